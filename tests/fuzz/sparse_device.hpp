/* SPDX-License-Identifier: BSD-3-Clause */
/* A large device of few bytes: zero but for some pieces.  A request outside of it is a finding. */
#ifndef QLUKS_TESTS_FUZZ_SPARSE_DEVICE_HPP
#define QLUKS_TESTS_FUZZ_SPARSE_DEVICE_HPP

#include <algorithm>
#include <span>
#include <vector>

#include "base/block_device.hpp"
#include "base/checked.hpp"
#include "tests/fuzz/checks.hpp"

namespace qluks::fuzz {

class SparseDevice final : public BlockDevice {
 public:
  explicit SparseDevice(uint64_t size_min) : size_(size_min) {}
  SparseDevice(SparseDevice&& other) noexcept : pieces_(std::move(other.pieces_)), size_(other.size_) {}

  /* Borrows the bytes; what is added later lies on top. */
  void add(uint64_t offset, std::span<const std::byte> bytes) {
    pieces_.push_back({offset, bytes});
    size_ = std::max(size_, offset + bytes.size());
  }

  uint64_t size() const noexcept override { return size_; }
  Limits limits() const noexcept override { return {}; }

  Status read(std::span<std::byte> dst, uint64_t offset) override {
    check(!dst.empty() && range_fits(offset, dst.size(), size_), "a read below is not empty and inside of the device");
    std::fill(dst.begin(), dst.end(), std::byte{0});
    for (const Piece& piece : pieces_) {
      const uint64_t begin = std::max(offset, piece.offset);
      const uint64_t end = std::min(offset + dst.size(), piece.offset + piece.bytes.size());
      if (begin >= end) continue;
      const auto bytes =
          piece.bytes.subspan(static_cast<size_t>(begin - piece.offset), static_cast<size_t>(end - begin));
      std::copy(bytes.begin(), bytes.end(), dst.begin() + static_cast<ptrdiff_t>(begin - offset));
    }
    return ok();
  }

  /* What lies in front of the first piece at or behind `offset` is a hole. */
  Result<Extent> extent(uint64_t offset, uint64_t max) override {
    check(max != 0 && range_fits(offset, max, size_), "extents are asked for inside of the device");
    uint64_t hole = max;
    for (const Piece& piece : pieces_) {
      if (offset >= piece.offset + piece.bytes.size()) continue;
      if (offset >= piece.offset) return Extent{.length = std::min(max, piece.offset + piece.bytes.size() - offset)};
      hole = std::min(hole, piece.offset - offset);
    }
    return Extent{.length = hole, .hole = true, .zero = true};
  }

  Status cache(uint64_t offset, uint64_t length) override {
    check(length != 0 && range_fits(offset, length, size_), "what is cached is inside of the device");
    return ok();
  }

 private:
  struct Piece {
    uint64_t offset;
    std::span<const std::byte> bytes;
  };

  std::vector<Piece> pieces_;
  uint64_t size_;
};

} // namespace qluks::fuzz

#endif
