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
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/block_device.hpp"
#include "base/range_lock.hpp"
#include "formats/format.hpp"
#include "formats/luks/keyring.hpp"
#include "formats/luks/layer.hpp"
#include "formats/qcow2/cache.hpp"
#include "plugin/config.hpp"
#include "plugin/sources.hpp"

namespace qluks {

/* One connection's layers over its own way down. */
class Stack {
 public:
  explicit Stack(BlockDevice& bottom) : top_(&bottom) {}

  BlockDevice& top() const noexcept { return *top_; }
  void push(Format& format);

 private:
  std::vector<std::unique_ptr<BlockDevice>> layers_;
  BlockDevice* top_;
};

/* What is the same for every image of this server. */
struct ImageOptions {
  Config& config;
  const DetachedHeader* detached_header; /* null: none was given */
  std::shared_ptr<Qcow2Cache> cache;
  Sources& sources;
};

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
  RangeLock blocks; /* of the plugin, if it takes whole ones only */
  std::once_flag said_read_only;
  std::once_flag said_no_flush;
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

  /* What the writes of all connections share. */
  WriteState& writes() const noexcept { return writes_; }

 private:
  class Opener;
  std::vector<std::unique_ptr<Format>> formats_; /* from the stored bytes upward */
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
   * caller tries again. */
  Result<std::shared_ptr<const Image>> get(const ExportKey& key, const OpenFn& open);

 private:
  struct Slot {
    std::mutex mutex; /* held while opening */
    std::unique_ptr<const Image> image;
  };
  std::shared_ptr<Slot> slot(const ExportKey& key);

  std::mutex mutex_;
  std::map<ExportKey, std::weak_ptr<Slot>> slots_;
};

} // namespace qluks

#endif
