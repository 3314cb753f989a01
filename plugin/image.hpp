/* SPDX-License-Identifier: BSD-3-Clause */
/* One export's image, shared by all of its connections, and where the shared ones are found.
 *
 *      ImageRegistry ──▶ ImageSlot ──▶ Image: Format, Format …      one per export name, while a connection uses it
 *                                        ▲
 *      connection:  next ◀ layer ◀ layer ┘
 *
 * The first connection opens the image while the others wait for it.  The last one to go takes the image with it, so
 * an image that was changed while nobody was connected is read afresh; what was costly, the unlocked volume keys, is
 * remembered by the Keyring.
 */
#ifndef QLUKS_PLUGIN_IMAGE_HPP
#define QLUKS_PLUGIN_IMAGE_HPP

#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "base/block_device.hpp"
#include "base/range_lock.hpp"
#include "plugin/opener.hpp"

namespace qluks {

/* After a flush that failed, nobody knows which of the bytes that were acknowledged are stable, and the storage may
 * well say yes to the next one (Linux forgets what it could not write).  So no later flush of the image succeeds. */
class FlushRecord {
 public:
  /* Run `flush`, unless one has failed before. */
  template <class FlushFn>
  Status run(FlushFn&& flush) {
    if (failed_)
      return fail(Errc::io, "an earlier flush of this image failed: what was written since is not safe", EIO);
    Status s = flush();
    if (!s && s.error().code != Errc::shutting_down) failed_ = true;
    return s;
  }

 private:
  std::atomic<bool> failed_{false};
};

struct WriteState {
  FlushRecord flushes;
  RangeLock blocks;                 /* of the plugin, if it takes whole ones only */
  std::atomic<bool> written{false}; /* by any connection, since the image was opened */
  std::once_flag said_read_only;
  std::once_flag said_no_flush;
  std::once_flag said_changed;
};

class Image {
 public:
  /* Find out what `container` holds, open and unlock it. */
  static Result<std::unique_ptr<Image>> open(BlockDevice& container, const ImageOptions& options, bool read_only);

  Stack stack_on(BlockDevice& container) const;

  /* "qcow2 v3, LUKS1 aes-xts-plain64 512-bit"; "raw" if there are no layers. */
  std::string describe() const;

  /* Why it is served read-only although the plugin could write; empty: it is not. */
  std::string why_read_only() const;

  /* Does the container look as if another program had written it since it was opened? */
  bool has_changed(BlockDevice& container) const {
    return !layers_.formats.empty() && layers_.formats.front()->has_changed(container);
  }

  /* What the user may have meant instead, for the operator; empty: nothing. */
  const std::string& hint() const noexcept { return layers_.hint; }

  /* What the writes of all connections share. */
  WriteState& writes() const noexcept { return writes_; }

 private:
  explicit Image(OpenedLayers layers) : layers_(std::move(layers)) {}

  OpenedLayers layers_;
  mutable WriteState writes_;
};

/* What tells images apart: the export, and everything that may make the plugin below serve other bytes for it. */
struct ExportKey {
  std::string name;
  bool read_only = false;
  bool tls = false;
  auto operator<=>(const ExportKey&) const = default;
};

class ImageRegistry {
 public:
  using OpenFn = std::function<Result<std::unique_ptr<Image>>()>;

  /* The image of that export, opened by `open` unless another connection has it open.  After a failure the next
   * caller tries again.  A wait for another connection's attempt ends when the process is told to end. */
  Result<std::shared_ptr<const Image>> get(const ExportKey& key, const OpenFn& open);

  /* Has this line not been said before?  Clients come and go, and open their images anew. */
  bool is_news(const std::string& line);

 private:
  struct Slot {
    std::mutex mutex; /* guards what follows; not held while opening */
    std::condition_variable settled;
    bool opening = false;
    std::unique_ptr<const Image> image;
  };
  class Opening;
  std::shared_ptr<Slot> slot(const ExportKey& key);
  static Status open_in(Slot& slot, std::unique_lock<std::mutex>& lock, const OpenFn& open);

  std::mutex mutex_;
  std::map<ExportKey, std::weak_ptr<Slot>> slots_;
  std::set<std::string> said_;
};

} // namespace qluks

#endif
