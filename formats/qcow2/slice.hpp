/* SPDX-License-Identifier: BSD-3-Clause */
/* Table entries in memory that some threads read while another one changes them, without a lock.
 *
 * An entry is one word, read and written whole.  An extended L2 entry is two: who writes it makes the host offset valid
 * before the bitmap speaks of data in it, and the other way round when it goes; who reads it looks at the bitmap before
 * and after.  So each reader has an entry that means what one of the two meant.
 */
#ifndef QLUKS_FORMATS_QCOW2_SLICE_HPP
#define QLUKS_FORMATS_QCOW2_SLICE_HPP

#include <algorithm>
#include <bit>
#include <cstddef>

#include "formats/qcow2/entry.hpp"

namespace qluks {

using TableWord = uint64_t __attribute__((may_alias));

constexpr uint64_t big_endian_word(uint64_t value) noexcept {
  if constexpr (std::endian::native == std::endian::little) return __builtin_bswap64(value);
  return value;
}

/* `at` is a multiple of 8 from the start of a table's buffer. */
inline uint64_t load_table_word(const std::byte* at) noexcept {
  return big_endian_word(__atomic_load_n(reinterpret_cast<const TableWord*>(at), __ATOMIC_ACQUIRE));
}

inline void store_table_word(std::byte* at, uint64_t value) noexcept {
  __atomic_store_n(reinterpret_cast<TableWord*>(at), big_endian_word(value), __ATOMIC_RELEASE);
}

/* L2 tables are read and kept in pieces of this. */
inline constexpr uint64_t qcow2_slice_bytes_max = 64 * 1024;

inline uint64_t slice_bytes(const Qcow2Geometry& g) noexcept {
  return std::min(g.cluster_size(), qcow2_slice_bytes_max);
}

inline uint64_t entries_per_slice(const Qcow2Geometry& g) noexcept { return slice_bytes(g) / g.l2_entry_bytes(); }

inline L2Entry load_l2_entry(const std::byte* slice, uint64_t index, const Qcow2Geometry& g) noexcept {
  const std::byte* at = slice + index * g.l2_entry_bytes();
  if (!g.extended_l2) return {.word = load_table_word(at)};
  for (;;) {
    const uint64_t before = load_table_word(at + 8);
    const L2Entry entry{.word = load_table_word(at), .bitmap = load_table_word(at + 8)};
    if (entry.bitmap == before) return entry;
  }
}

inline void store_l2_entry(std::byte* slice, uint64_t index, L2Entry entry, const Qcow2Geometry& g) noexcept {
  std::byte* at = slice + index * g.l2_entry_bytes();
  /* The bitmap of a compressed cluster is not looked at. */
  const bool bitmap_first = (entry.word & qcow2_offset_mask) == 0 || (load_table_word(at) & qcow2_compressed) != 0;
  if (g.extended_l2 && bitmap_first) store_table_word(at + 8, entry.bitmap);
  store_table_word(at, entry.word);
  if (g.extended_l2 && !bitmap_first) store_table_word(at + 8, entry.bitmap);
}

/* Where the entry of a guest cluster is in the two levels. */
struct L2Place {
  L2Place(GuestOffset at, const Qcow2Geometry& g) noexcept
      : l1_index(at.bytes >> (g.l2_bits() + g.cluster_bits)),
        in_table(((at.bytes >> g.cluster_bits) & ((uint64_t{1} << g.l2_bits()) - 1)) * g.l2_entry_bytes()),
        slice(in_table / slice_bytes(g)),
        index(in_table % slice_bytes(g) / g.l2_entry_bytes()) {}

  uint64_t l1_index;
  uint64_t in_table; /* bytes */
  uint64_t slice;    /* of the table */
  uint64_t index;    /* in the slice */
};

} // namespace qluks

#endif
