/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/file_device.hpp"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/system_message.hpp"
#include "base/zero_bytes.hpp"

namespace qluks {

namespace {

/* O_NONBLOCK: opening a FIFO must not wait for its writer.  It means nothing to files and block devices. */
constexpr int open_flags = O_CLOEXEC | O_NONBLOCK | O_NOCTTY;

tl::unexpected<Error> system_error(const std::string& path, int err) {
  return fail(Errc::io, path + ": " + system_message(err), err);
}

} // namespace

Result<std::unique_ptr<FileDevice>> FileDevice::open(const std::string& path, Access access) {
  if (access == Access::write) {
    FileDescriptor fd(::open(path.c_str(), O_RDWR | open_flags));
    if (fd) {
      auto device = adopt(std::move(fd), path);
      if (device) (*device)->writable_ = true;
      return device;
    }
  }
  FileDescriptor fd(::open(path.c_str(), O_RDONLY | open_flags));
  if (!fd) return system_error(path, errno);
  return adopt(std::move(fd), path);
}

Result<std::unique_ptr<FileDevice>> FileDevice::open_beneath(const std::string& dir, const std::string& name) {
  const std::string path = dir + "/" + name;
  const FileDescriptor dir_fd(::open(dir.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!dir_fd) return system_error(dir, errno);
  open_how how = {};
  how.flags = O_RDONLY | open_flags;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS;
  FileDescriptor fd(static_cast<int>(syscall(SYS_openat2, dir_fd.get(), name.c_str(), &how, sizeof how)));
  if (!fd && errno == EXDEV) return fail(Errc::unsupported, path + ": leads out of the directory", EPERM);
  if (!fd) return system_error(path, errno);
  return adopt(std::move(fd), path);
}

Result<std::unique_ptr<FileDevice>> FileDevice::adopt(FileDescriptor file, const std::string& path) {
  std::unique_ptr<FileDevice> device(new FileDevice(std::move(file), path));
  const int fd = device->file_.get();
  struct stat st {};
  if (fstat(fd, &st) != 0) return system_error(path, errno);
  if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
    return fail(Errc::unsupported, path + ": neither a regular file nor a block device", EINVAL);
  }
  const off_t end = lseek(fd, 0, SEEK_END);
  if (end < 0) return system_error(path, errno);
  device->size_ = static_cast<uint64_t>(end);
  device->identity_ = {st.st_dev, st.st_ino};
  return device;
}

Status FileDevice::read(std::span<std::byte> dst, uint64_t offset) {
  while (!dst.empty()) {
    const ssize_t n = pread(file_.get(), dst.data(), dst.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return system_error(path_, errno);
    if (n == 0) return cut_short();
    dst = dst.subspan(static_cast<size_t>(n));
    offset += static_cast<uint64_t>(n);
  }
  return ok();
}

Status FileDevice::write(std::span<const std::byte> src, uint64_t offset, Fua /*fua*/) {
  while (!src.empty()) {
    const ssize_t n = pwrite(file_.get(), src.data(), src.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return system_error(path_, errno);
    src = src.subspan(static_cast<size_t>(n));
    offset += static_cast<uint64_t>(n);
  }
  return ok();
}

/* Of two ways that make zeroes one may be missing, by the file system. */
Status FileDevice::zero(uint64_t offset, uint64_t length, ZeroMode mode, Fua fua) {
  const int how = (may_trim(mode) ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE) | FALLOC_FL_KEEP_SIZE;
  if (fallocate(file_.get(), how, static_cast<off_t>(offset), static_cast<off_t>(length)) == 0) return ok();
  if (errno != EOPNOTSUPP && errno != ENOSYS && errno != EINVAL && errno != EINTR) return system_error(path_, errno);
  return write_zero_bytes(offset, length,
                          [&](std::span<const std::byte> zeroes, uint64_t at) { return write(zeroes, at, fua); });
}

Status FileDevice::flush() { return fdatasync(file_.get()) == 0 ? ok() : Status(system_error(path_, errno)); }

/* No data follows: there is a hole up to the end of the file, or the end is here already, because somebody cut the file
 * short.  What is behind the end cannot be read, so it is no hole either. */
Result<Extent> FileDevice::hole_to_the_end(uint64_t offset, uint64_t max) {
  const off_t end = lseek(file_.get(), 0, SEEK_END);
  if (end < 0) return system_error(path_, errno);
  if (static_cast<uint64_t>(end) <= offset) return cut_short();
  return Extent{.length = std::min(max, static_cast<uint64_t>(end) - offset), .hole = true, .zero = true};
}

tl::unexpected<Error> FileDevice::cut_short() const {
  return fail(Errc::io, path_ + ": the file was cut short while in use", EIO);
}

Result<Extent> FileDevice::extent(uint64_t offset, uint64_t max) {
  const off_t start = static_cast<off_t>(offset);
  const off_t data = lseek(file_.get(), start, SEEK_DATA);
  if (data < 0 && errno == ENXIO) return hole_to_the_end(offset, max);
  if (data > start) {
    return Extent{.length = std::min(max, static_cast<uint64_t>(data - start)), .hole = true, .zero = true};
  }
  /* Data, or a file system or device that cannot tell. */
  const off_t hole = data < 0 ? -1 : lseek(file_.get(), start, SEEK_HOLE);
  return Extent{.length = hole > start ? std::min(max, static_cast<uint64_t>(hole - start)) : max};
}

} // namespace qluks
