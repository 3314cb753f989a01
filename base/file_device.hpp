/* SPDX-License-Identifier: BSD-3-Clause */
/* A local file or block device that a parameter named, read-only. */
#ifndef QLUKS_BASE_FILE_DEVICE_HPP
#define QLUKS_BASE_FILE_DEVICE_HPP

#include <memory>
#include <string>

#include "base/block_device.hpp"

namespace qluks {

class FileDevice final : public BlockDevice {
 public:
  /* Refuses what is neither a regular file nor a block device (a FIFO would block the server). */
  static Result<std::unique_ptr<FileDevice>> open(const std::string& path);
  ~FileDevice() override;

  uint64_t size() const noexcept override { return size_; }
  Limits limits() const noexcept override { return {}; }
  Status read(std::span<std::byte> dst, uint64_t offset) override;
  Result<Extent> extent(uint64_t offset, uint64_t max) override;

 private:
  FileDevice(int fd, uint64_t size, std::string path) noexcept : fd_(fd), size_(size), path_(std::move(path)) {}

  int fd_;
  uint64_t size_;
  std::string path_;
};

} // namespace qluks

#endif
