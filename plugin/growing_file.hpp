/* SPDX-License-Identifier: BSD-3-Clause */
/* The local file that the plugin serves (qluks-grow), while a qcow2 in it is written.
 *
 *      first connection    lock ─▶ make longer, sparsely ─▶ the plugin opens it ─▶ has it that size?
 *      last one gone       cut behind the last cluster in use ─▶ unlock
 *
 * nbdkit keeps requests inside of the size that the plugin told when it was opened, so the room has to be there before.
 * A tail without data takes no disk and harms nobody; after a crash it is there at the next start.
 */
#ifndef QLUKS_PLUGIN_GROWING_FILE_HPP
#define QLUKS_PLUGIN_GROWING_FILE_HPP

#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "base/file_descriptor.hpp"
#include "base/result.hpp"

namespace qluks {

class GrowingFile {
 public:
  explicit GrowingFile(std::string path) : path_(std::move(path)) {}
  GrowingFile(const GrowingFile&) = delete;
  GrowingFile& operator=(const GrowingFile&) = delete;
  ~GrowingFile();

  /* A connection's part in it, from before the plugin opens until after it has closed. */
  class Use {
   public:
    Use(GrowingFile& file, bool may_write) noexcept : file_(file), may_write_(may_write) {}
    Use(const Use&) = delete;
    Use& operator=(const Use&) = delete;
    ~Use() { file_.leave(); }

    bool may_write() const noexcept { return may_write_; }

    /* Is what the plugin serves as long as the file? */
    Status check_size(uint64_t size) const { return file_.check_size(size); }

   private:
    GrowingFile& file_;
    bool may_write_;
  };

  /* Who may not write because another program has the file locked gets the read side of the locks, if that can be
   * had. */
  Result<std::unique_ptr<Use>> enter(bool read_only);

 private:
  Status open(bool read_only);
  Status make_room();
  Status check_size(uint64_t size);
  void leave() noexcept;
  void cut() noexcept;

  const std::string path_;
  std::mutex mutex_;
  unsigned users_ = 0;
  bool may_write_ = false;
  FileDescriptor file_{-1};
  uint64_t old_length_ = 0;
  uint64_t length_ = 0;             /* while it is in use */
  std::optional<uint64_t> old_end_; /* if it is to be cut: not before that */
  bool is_container_ = true;
};

} // namespace qluks

#endif
