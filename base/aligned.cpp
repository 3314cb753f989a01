/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/aligned.hpp"

#include <algorithm>
#include <vector>

#include "base/checked.hpp"

namespace qluks {

namespace {

/* Up to here one request through a buffer is cheaper than up to three requests without a copy. */
constexpr uint64_t bounce_bytes_max = 64 * 1024;

/* Read the whole units around [offset, offset + dst.size()) and copy out what was asked for. */
Status read_through_buffer(std::span<std::byte> dst, uint64_t offset, uint32_t unit, const AlignedReadFn& read) {
  const uint64_t start = align_down<uint64_t>(offset, unit);
  const size_t skip = static_cast<size_t>(offset - start);
  std::vector<std::byte> buffer(static_cast<size_t>(align_down<uint64_t>(skip + dst.size() + unit - 1, unit)));
  if (Status s = read(buffer, start); !s) return s;
  std::copy_n(buffer.begin() + static_cast<ptrdiff_t>(skip), dst.size(), dst.begin());
  return ok();
}

} // namespace

Status read_unaligned(std::span<std::byte> dst, uint64_t offset, uint32_t unit, const AlignedReadFn& read) {
  const bool head_aligned = is_aligned<uint64_t>(offset, unit);
  if (head_aligned && is_aligned<uint64_t>(dst.size(), unit)) return read(dst, offset);
  if (dst.size() <= bounce_bytes_max) return read_through_buffer(dst, offset, unit, read);

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

} // namespace qluks
