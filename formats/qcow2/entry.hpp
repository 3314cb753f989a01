/* SPDX-License-Identifier: BSD-3-Clause */
/* L1 and L2 entries, decoded into what they say about a piece of the guest disk.
 *
 *     guest offset     |  L1 index  |  L2 index (l2_bits)  |  in the cluster (cluster_bits)  |
 *
 *     L1 entry         63 copied   55…9 offset of an L2 table, 0: none
 *     L2 entry         63 copied   62 compressed   55…9 host offset of the cluster   0 reads as zeroes (version 3)
 *     compressed       62 set   61…x sectors after the first   x-1…0 host offset in bytes     x = 70 - cluster_bits
 *
 * An extended L2 entry has 16 bytes: such an entry, in which bit 0 means nothing, and a bitmap over its 32
 * subclusters, whose low half says "has data here" and whose high half says "reads as zeroes".
 *
 * Reserved bits are masked and not looked at, as QEMU does: only its check reports them.  Where data lies beyond the
 * end of the file is not decided here either.
 */
#ifndef QLUKS_FORMATS_QCOW2_ENTRY_HPP
#define QLUKS_FORMATS_QCOW2_ENTRY_HPP

#include <variant>

#include "base/result.hpp"
#include "base/units.hpp"
#include "formats/qcow2/header.hpp"

namespace qluks {

/* The parts of an L1 or L2 entry. */
inline constexpr uint64_t qcow2_offset_mask = 0x00fffffffffffe00;
inline constexpr uint64_t qcow2_copied = uint64_t{1} << 63; /* nobody else refers to it: it may be written in place */
inline constexpr uint64_t qcow2_compressed = uint64_t{1} << 62;
inline constexpr uint64_t qcow2_zero = 1;

/* The numbers of an image that its entries are read by. */
struct Qcow2Geometry {
  explicit Qcow2Geometry(const Qcow2Header& header) noexcept
      : version(header.version),
        cluster_bits(header.cluster_bits),
        extended_l2(header.has(qcow2_extended_l2_bit)),
        data_file(header.has(qcow2_data_file_bit)) {}

  unsigned l2_entry_bytes() const noexcept { return extended_l2 ? 16 : 8; }
  unsigned l2_bits() const noexcept { return cluster_bits - (extended_l2 ? 4 : 3); }
  uint64_t cluster_size() const noexcept { return uint64_t{1} << cluster_bits; }
  /* What an entry maps at a time: a cluster, or one of the 32 subclusters of an extended entry. */
  unsigned unit_bits() const noexcept { return cluster_bits - (extended_l2 ? 5 : 0); }
  uint64_t unit_size() const noexcept { return uint64_t{1} << unit_bits(); }
  uint64_t in_cluster(GuestOffset at) const noexcept { return at.bytes & (cluster_size() - 1); }

  uint32_t version;
  unsigned cluster_bits;
  bool extended_l2;
  bool data_file;
};

struct L2Entry {
  uint64_t word = 0;
  uint64_t bitmap = 0; /* 0 without extended L2 */
};

struct Data {
  HostOffset at;
  bool operator==(const Data&) const = default;
};
/* Reads as zeroes, also over a backing file. */
struct Zero {
  bool preallocated = false; /* a cluster is kept for it */
  bool operator==(const Zero&) const = default;
};
/* Reads from the backing file, or as zeroes. */
struct Unallocated {
  bool operator==(const Unallocated&) const = default;
};
/* One whole cluster. */
struct Compressed {
  HostOffset at;
  uint32_t bytes_max = 0; /* the stream ends somewhere in there; at most two clusters */
  bool operator==(const Compressed&) const = default;
};
using Mapping = std::variant<Data, Zero, Unallocated, Compressed>;

/* A piece of the guest disk and how it is mapped. */
struct Run {
  uint64_t length = 0;
  Mapping mapping;
};

/* Does the entry keep a cluster, for data or for zeroes?  Not said of compressed ones. */
bool is_allocated(uint64_t word, const Qcow2Geometry& geometry) noexcept;

/* Of an entry that says that its cluster is compressed. */
Compressed decode_compressed(uint64_t word, unsigned cluster_bits) noexcept;

/* Where the L2 table is, or 0. */
Result<HostOffset> decode_l1(uint64_t entry, const Qcow2Geometry& geometry);

/* What the entry says from `at` on: a run that ends with its cluster or before. */
Result<Run> decode_l2(L2Entry entry, GuestOffset at, const Qcow2Geometry& geometry);

/* Is `next` the same thing going on, so that the two can be one run? */
bool continues(const Run& run, const Run& next) noexcept;

/* The same of a valid entry and the one after it, without decoding them: true only if both are all alike within and
 * continue, but false for some that do, such as zeroes in clusters that are kept out of order. */
bool is_followed_by(L2Entry entry, L2Entry next, const Qcow2Geometry& geometry) noexcept;

} // namespace qluks

#endif
