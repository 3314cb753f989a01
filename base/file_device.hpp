/* SPDX-License-Identifier: BSD-3-Clause */
/* A local file or block device that a parameter named. */
#ifndef QLUKS_BASE_FILE_DEVICE_HPP
#define QLUKS_BASE_FILE_DEVICE_HPP

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "base/block_device.hpp"
#include "base/file_descriptor.hpp"

namespace qluks {

class FileDevice final : public BlockDevice {
 public:
  /* Refuses what is neither a regular file nor a block device (a FIFO would block the server).  It is written only if
   * that is asked for and the system allows it. */
  enum class Access : bool { read, write };
  static Result<std::unique_ptr<FileDevice>> open(const std::string& path, Access access = Access::read);

  /* The same for a name that comes from an image: `name` is taken inside of the directory `dir` and cannot leave it,
   * neither by ".." nor through a symbolic link, whoever changes the directory meanwhile. */
  static Result<std::unique_ptr<FileDevice>> open_beneath(const std::string& dir, const std::string& name);

  uint64_t size() const noexcept override { return size_; }
  Limits limits() const noexcept override { return {}; }
  Status read(std::span<std::byte> dst, uint64_t offset) override;
  Result<Extent> extent(uint64_t offset, uint64_t max) override;

  WriteAbilities write_abilities() const noexcept override { return {.write = writable_, .flush = true, .zero = true}; }
  Status write(std::span<const std::byte> src, uint64_t offset, Fua fua) override;
  Status zero(uint64_t offset, uint64_t length, ZeroMode mode, Fua fua) override;
  Status flush() override;

  /* Two devices of one identity are the same file, whatever they were called. */
  using Identity = std::pair<uint64_t, uint64_t>; /* device, inode */
  Identity identity() const noexcept { return identity_; }

  /* For locks on it; valid as long as the device is. */
  int descriptor() const noexcept { return file_.get(); }

 private:
  FileDevice(FileDescriptor file, std::string path) noexcept : file_(std::move(file)), path_(std::move(path)) {}
  static Result<std::unique_ptr<FileDevice>> adopt(FileDescriptor file, const std::string& path);
  Result<Extent> hole_to_the_end(uint64_t offset, uint64_t max);
  tl::unexpected<Error> cut_short() const;

  FileDescriptor file_;
  bool writable_ = false;
  uint64_t size_ = 0;
  Identity identity_;
  std::string path_;
};

} // namespace qluks

#endif
