/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/file_device.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace qluks {

namespace {

tl::unexpected<Error> system_error(const std::string& path, int err) {
  return fail(Errc::io, path + ": " + std::strerror(err), err);
}

} // namespace

Result<std::unique_ptr<FileDevice>> FileDevice::open(const std::string& path) {
  /* O_NONBLOCK: opening a FIFO must not wait for its writer.  It means nothing to files and block devices. */
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (fd < 0) return system_error(path, errno);
  std::unique_ptr<FileDevice> device(new FileDevice(fd, 0, path));
  struct stat st {};
  if (fstat(fd, &st) != 0) return system_error(path, errno);
  if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
    return fail(Errc::unsupported, path + ": neither a regular file nor a block device", EINVAL);
  }
  const off_t end = lseek(fd, 0, SEEK_END);
  if (end < 0) return system_error(path, errno);
  device->size_ = static_cast<uint64_t>(end);
  return device;
}

FileDevice::~FileDevice() { ::close(fd_); }

Status FileDevice::read(std::span<std::byte> dst, uint64_t offset) {
  while (!dst.empty()) {
    const ssize_t n = pread(fd_, dst.data(), dst.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return system_error(path_, errno);
    if (n == 0) return fail(Errc::io, path_ + ": the file was cut short while in use", EIO);
    dst = dst.subspan(static_cast<size_t>(n));
    offset += static_cast<uint64_t>(n);
  }
  return ok();
}

Result<Extent> FileDevice::extent(uint64_t /*offset*/, uint64_t max) { return Extent{.length = max}; }

} // namespace qluks
