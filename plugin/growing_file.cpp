/* SPDX-License-Identifier: BSD-3-Clause */
#include "plugin/growing_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/file_device.hpp"
#include "base/log.hpp"
#include "base/system_message.hpp"
#include "formats/qcow2/room.hpp"
#include "plugin/image_lock.hpp"

namespace qluks {

namespace {

tl::unexpected<Error> system_error(const std::string& path, const char* what) {
  const int err = errno;
  return fail(Errc::io, "qluks-grow: " + path + ": " + what + ": " + system_message(err), err);
}

std::string bytes_text(uint64_t bytes) { return std::to_string(bytes) + " bytes"; }

/* What tells how long the qcow2 in the file is. */
struct Used {
  Qcow2Header header;
  uint64_t end;
};
Result<Used> find_used(const std::string& path) {
  auto file = FileDevice::open(path);
  if (!file) return propagate(file);
  auto header = read_qcow2_header(**file);
  if (!header) return propagate(header);
  auto end = qcow2_used_end(**file, *header);
  if (!end) return propagate(end);
  return Used{std::move(*header), *end};
}

} // namespace

Result<std::unique_ptr<GrowingFile::Use>> GrowingFile::enter(bool read_only) {
  const std::lock_guard lock(mutex_);
  if (users_ == 0) {
    Status s = open(read_only);
    if (s && may_write_) s = make_room();
    if (!s) {
      file_.close();
      return propagate(s);
    }
  }
  auto use = std::make_unique<Use>(*this, may_write_);
  ++users_;
  return use;
}

/* Sets whether it may be written: not if another program is in the way. */
Status GrowingFile::open(bool read_only) {
  const int flags = (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
  file_ = FileDescriptor(::open(path_.c_str(), flags));
  if (!file_) return system_error(path_, "cannot open");
  struct stat st {};
  if (fstat(file_.get(), &st) != 0) return system_error(path_, "cannot look at it");
  old_length_ = length_ = static_cast<uint64_t>(st.st_size);
  old_end_.reset();
  is_container_ = true;
  may_write_ = false;
  if (!read_only) {
    Status s = lock_image(file_.get(), path_, ImageUse::write_and_resize);
    may_write_ = static_cast<bool>(s);
    if (s) return ok();
    log_warning("served read-only: " + s.error().what);
  }
  Status s = lock_image(file_.get(), path_, ImageUse::read);
  if (!s && read_only) log_warning("what is read may change at any time: " + s.error().what);
  return ok();
}

Status GrowingFile::make_room() {
  struct stat st {};
  if (fstat(file_.get(), &st) != 0) return system_error(path_, "cannot look at it");
  if (!S_ISREG(st.st_mode)) return ok(); /* a block device is as long as it is */
  auto used = find_used(path_);
  if (!used) return propagate(used, "qluks-grow: " + path_);
  const auto needed = qcow2_room_needed(used->header, used->end);
  if (!needed) return fail(Errc::unsupported, "qluks-grow: " + path_ + ": no file can be as long as the disk needs");
  old_end_ = std::min(used->end, length_);
  if (*needed <= length_) return ok();
  if (ftruncate(file_.get(), static_cast<off_t>(*needed)) != 0) {
    return system_error(path_, ("cannot make it " + bytes_text(*needed) + " long").c_str());
  }
  log_debug("qluks-grow: " + path_ + " has " + bytes_text(*needed) + " now, and " + bytes_text(length_) + " before");
  length_ = *needed;
  return ok();
}

Status GrowingFile::check_size(uint64_t size) {
  const std::lock_guard lock(mutex_);
  if (size == length_) return ok();
  is_container_ = false;
  return fail(Errc::invalid_format,
              "qluks-grow: " + path_ + " is not what the plugin serves: it has " + bytes_text(length_) +
                  ", and what the plugin serves has " + bytes_text(size),
              EINVAL);
}

GrowingFile::~GrowingFile() {
  if (users_ != 0) cut();
}

void GrowingFile::leave() noexcept {
  const std::lock_guard lock(mutex_);
  if (--users_ != 0) return;
  cut();
  file_.close();
}

/* What cannot be cut off now stays until the next time. */
void GrowingFile::cut() noexcept {
  if (!old_end_) return;
  try {
    uint64_t end = old_length_;
    if (is_container_) {
      auto used = find_used(path_);
      if (!used) return;
      end = std::max(*old_end_, used->end);
    }
    if (end < length_ && ftruncate(file_.get(), static_cast<off_t>(end)) != 0) {
      log_warning("qluks-grow: " + path_ + " cannot be cut to " + bytes_text(end) + ": " + system_message(errno));
    }
  } catch (const std::bad_alloc&) {
    return;
  }
}

} // namespace qluks
