/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/encrypted_write.hpp"

#include <algorithm>
#include <array>

#include "base/buffer_pool.hpp"
#include "base/checked.hpp"

namespace qluks {

namespace {

constexpr size_t sector_size_max = 4096;

/* One write below.  Larger ones save nothing, and their cipher text does not stay in the second-level cache. */
constexpr size_t piece_bytes_max = 1 << 20;

/* All writes of the process together.  It lives as long as the process: threads may use it until the end. */
constexpr size_t pieces_out_max = 32;
constexpr size_t pieces_kept_max = 16;

BufferPool& pieces() {
  static BufferPool* const pool = new BufferPool(piece_bytes_max, pieces_out_max, pieces_kept_max);
  return *pool;
}

/* Plain bytes, and where they belong. */
struct Plain {
  std::span<const std::byte> bytes;
  uint64_t offset;

  uint64_t end() const noexcept { return offset + bytes.size(); }
  std::span<const std::byte> part(uint64_t from, uint64_t to) const noexcept {
    return bytes.subspan(static_cast<size_t>(from - offset), static_cast<size_t>(to - from));
  }
};

/* The sector at `start`, of which `plain` covers a part. */
Status encrypt_cut_sector(const Plain& plain, uint64_t start, std::span<std::byte> out,
                          const EncryptedSectors& sectors) {
  std::array<std::byte, sector_size_max> buffer;
  const auto sector = std::span(buffer).first(sectors.sector_size);
  if (Status s = sectors.read(sector, start); !s) return s;
  const uint64_t from = std::max(plain.offset, start);
  const auto changed = plain.part(from, std::min(plain.end(), start + sector.size()));
  std::copy(changed.begin(), changed.end(), sector.begin() + static_cast<ptrdiff_t>(from - start));
  sectors.encrypt(sector, out, start);
  return ok();
}

/* Fill `out`, which belongs to `start`, with the whole sectors that `plain` touches. */
Status encrypt_piece(const Plain& plain, uint64_t start, std::span<std::byte> out, const EncryptedSectors& sectors) {
  const uint32_t unit = sectors.sector_size;
  uint64_t whole_from = start;
  uint64_t whole_to = start + out.size();
  if (plain.offset > whole_from || plain.end() < whole_from + unit) {
    if (Status s = encrypt_cut_sector(plain, whole_from, out.first(unit), sectors); !s) return s;
    whole_from += unit;
  }
  if (whole_to > whole_from && plain.end() < whole_to) {
    whole_to -= unit;
    if (Status s = encrypt_cut_sector(plain, whole_to, out.last(unit), sectors); !s) return s;
  }
  if (whole_to > whole_from) {
    sectors.encrypt(plain.part(whole_from, whole_to),
                    out.subspan(static_cast<size_t>(whole_from - start), static_cast<size_t>(whole_to - whole_from)),
                    whole_from);
  }
  return ok();
}

} // namespace

Status write_encrypted(std::span<const std::byte> plain, uint64_t offset, const EncryptedSectors& sectors) {
  const uint64_t unit = sectors.sector_size;
  uint64_t start = align_down(offset, unit);
  const uint64_t end = align_down(offset + plain.size() + unit - 1, unit);
  const BufferPool::Lease lease =
      pieces().borrow(static_cast<size_t>(std::min<uint64_t>(end - start, piece_bytes_max)));
  while (start < end) {
    const auto out = lease.bytes().first(static_cast<size_t>(std::min<uint64_t>(lease.bytes().size(), end - start)));
    const uint64_t from = std::max(offset, start);
    const uint64_t to = std::min(offset + plain.size(), start + out.size());
    const Plain part{Plain{plain, offset}.part(from, to), from};
    if (Status s = encrypt_piece(part, start, out, sectors); !s) return s;
    if (Status s = sectors.write(out, start); !s) return s;
    start += out.size();
  }
  return ok();
}

} // namespace qluks
