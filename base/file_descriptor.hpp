/* SPDX-License-Identifier: BSD-3-Clause */
/* An open file that is closed when its owner goes. */
#ifndef QLUKS_BASE_FILE_DESCRIPTOR_HPP
#define QLUKS_BASE_FILE_DESCRIPTOR_HPP

#include <unistd.h>

#include <utility>

namespace qluks {

class FileDescriptor {
 public:
  /* What open() and its like return; negative: none, and errno says why. */
  explicit FileDescriptor(int fd) noexcept : fd_(fd) {}
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    if (this != &other) {
      close();
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  ~FileDescriptor() { close(); }

  explicit operator bool() const noexcept { return fd_ >= 0; }
  int get() const noexcept { return fd_; }
  void close() noexcept {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }

 private:
  int fd_;
};

} // namespace qluks

#endif
