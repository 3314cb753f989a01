/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/aligned.hpp"

#include <algorithm>
#include <atomic>

#include "base/checked.hpp"
#include "base/page_buffer.hpp"

namespace qluks {

namespace {

/* Up to here one request through a buffer is cheaper than up to three requests without a copy: always, and when the
 * storage is far away. */
constexpr uint64_t small_bounce_bytes = 64 * 1024;
constexpr uint64_t large_bounce_bytes = 1024 * 1024;

/* Large buffers of all threads together; who finds no room does without. */
constexpr uint64_t large_bounces_bytes_max = 16 * 1024 * 1024;
std::atomic<uint64_t> large_bounces_bytes{0};

class LargeBounce {
 public:
  explicit LargeBounce(uint64_t bytes) noexcept : bytes_(bytes), before_(large_bounces_bytes.fetch_add(bytes)) {}
  LargeBounce(const LargeBounce&) = delete;
  LargeBounce& operator=(const LargeBounce&) = delete;
  ~LargeBounce() { large_bounces_bytes.fetch_sub(bytes_); }

  bool has_room() const noexcept { return before_ + bytes_ <= large_bounces_bytes_max; }

 private:
  uint64_t bytes_, before_;
};

/* Read the whole units around [offset, offset + dst.size()) and copy out what was asked for. */
Status read_through_buffer(std::span<std::byte> dst, uint64_t offset, uint32_t unit, const AlignedReadFn& read) {
  const uint64_t start = align_down<uint64_t>(offset, unit);
  const size_t skip = static_cast<size_t>(offset - start);
  const size_t length = static_cast<size_t>(align_down<uint64_t>(skip + dst.size() + unit - 1, unit));
  const PageBuffer buffer = make_page_buffer(length);
  if (Status s = read({buffer.get(), length}, start); !s) return s;
  std::copy_n(buffer.get() + skip, dst.size(), dst.begin());
  return ok();
}

} // namespace

Status read_unaligned(std::span<std::byte> dst, uint64_t offset, uint32_t unit, const AlignedReadFn& read) {
  const bool head_aligned = is_aligned<uint64_t>(offset, unit);
  if (head_aligned && is_aligned<uint64_t>(dst.size(), unit)) return read(dst, offset);
  if (dst.size() <= small_bounce_bytes) return read_through_buffer(dst, offset, unit, read);
  if (dst.size() <= large_bounce_bytes) {
    const LargeBounce bounce(dst.size());
    if (bounce.has_room()) return read_through_buffer(dst, offset, unit, read);
  }

  const size_t head = head_aligned ? 0 : static_cast<size_t>(unit - (offset & (unit - 1)));
  const size_t tail = (dst.size() - head) & (unit - 1);
  const size_t middle = dst.size() - head - tail;
  if (head != 0) {
    if (Status s = read_through_buffer(dst.first(head), offset, unit, read); !s) return s;
  }
  if (Status s = read(dst.subspan(head, middle), offset + head); !s) return s;
  if (tail == 0) return ok();
  return read_through_buffer(dst.last(tail), offset + head + middle, unit, read);
}

Status read_blocks(std::span<std::byte> dst, uint64_t offset, uint32_t block, uint64_t size,
                   const AlignedReadFn& read) {
  if (block == 1) return read(dst, offset);
  return read_unaligned(dst, offset, block, [&](std::span<std::byte> blocks, uint64_t at) {
    const uint64_t present = std::min<uint64_t>(blocks.size(), size - at);
    return read(blocks.first(static_cast<size_t>(present)), at);
  });
}

namespace {

/* One block, of which `src` at `offset` is a part.  The last block of the storage may be short. */
Status change_block(std::span<const std::byte> src, uint64_t offset, uint32_t block, uint64_t size,
                    const AlignedDevice& device) {
  const uint64_t start = align_down<uint64_t>(offset, block);
  const size_t length = static_cast<size_t>(std::min<uint64_t>(block, size - start));
  const PageBuffer buffer = make_page_buffer(length);
  if (Status s = device.read({buffer.get(), length}, start); !s) return s;
  std::copy(src.begin(), src.end(), buffer.get() + (offset - start));
  return device.write({buffer.get(), length}, start);
}

} // namespace

Status write_blocks(std::span<const std::byte> src, uint64_t offset, uint32_t block, uint64_t size,
                    const AlignedDevice& device) {
  const uint64_t in_block = offset & (block - 1);
  if (in_block != 0) {
    const auto head = src.first(static_cast<size_t>(std::min<uint64_t>(block - in_block, src.size())));
    if (Status s = change_block(head, offset, block, size, device); !s) return s;
    src = src.subspan(head.size());
    offset += head.size();
  }
  /* What ends where the storage does is whole, also if its last block is short. */
  const size_t tail = offset + src.size() == size ? 0 : src.size() & (block - 1);
  const auto whole = src.first(src.size() - tail);
  if (!whole.empty()) {
    if (Status s = device.write(whole, offset); !s) return s;
  }
  if (tail == 0) return ok();
  return change_block(src.last(tail), offset + whole.size(), block, size, device);
}

} // namespace qluks
