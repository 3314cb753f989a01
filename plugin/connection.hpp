/* SPDX-License-Identifier: BSD-3-Clause */
/* One client connection: the way down, the layers over it, and the answers that nbdkit asks for. */
#ifndef QLUKS_PLUGIN_CONNECTION_HPP
#define QLUKS_PLUGIN_CONNECTION_HPP

#include <memory>
#include <optional>
#include <string>

#include "plugin/growing_file.hpp"
#include "plugin/image.hpp"
#include "plugin/next_device.hpp"

namespace qluks {

class Connection {
 public:
  /* `file`: the connection's part in the file that qluks-grow names, or none. */
  explicit Connection(ExportKey key, std::unique_ptr<GrowingFile::Use> file = nullptr)
      : key_(std::move(key)), file_(std::move(file)) {}

  /* Find or open the export's image and stack its layers over `next`. */
  Status prepare(nbdkit_next* next, ImageRegistry& registry, const ImageOptions& options);

  const std::string& description() const noexcept { return description_; }
  bool can_cache() const noexcept { return next_->can_cache(); }
  uint64_t size() const noexcept { return top().size(); }
  Limits limits() const noexcept { return top().limits(); }

  Status read(std::span<std::byte> dst, uint64_t offset) { return top().read(dst, offset); }
  Status cache(uint64_t offset, uint64_t length) { return top().cache(offset, length); }

  /* What the client may do.  FUA is there whenever flush is: where nothing below has it, a flush follows the write. */
  const WriteAbilities& write_abilities() const noexcept { return abilities_; }
  Status write(std::span<const std::byte> src, uint64_t offset, Fua fua);
  Status zero(uint64_t offset, uint64_t length, ZeroMode mode, Fua fua);
  Status trim(uint64_t offset, uint64_t length, Fua fua);
  Status flush();

  /* The client goes: what it has written is flushed, if it has not done so itself. */
  Status finalize();

  /* Describe [offset, offset + length); nbdkit joins neighbours of one kind. */
  Status extents(uint64_t offset, uint64_t length, bool only_one, nbdkit_extents* extents);

 private:
  BlockDevice& top() const noexcept { return stack_->top(); }
  void find_abilities();
  void say_read_only(const std::string& why) const;
  void say_changed(const Image& image) const;
  template <class WriteFn>
  Status write_with(Fua fua, WriteFn&& write);

  ExportKey key_;
  std::unique_ptr<GrowingFile::Use> file_;
  /* Destroyed from the last to the first: the layers, the image they borrow, the device below. */
  std::unique_ptr<NextDevice> next_;
  std::shared_ptr<const Image> image_;
  std::optional<Stack> stack_;
  std::string description_;
  WriteAbilities abilities_;
  bool fua_below_ = false;
};

} // namespace qluks

#endif
