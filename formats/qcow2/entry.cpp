/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/qcow2/entry.hpp"

#include <bit>

#include "base/checked.hpp"
#include "formats/text.hpp"

namespace qluks {

namespace {

/* The subclusters from `first` on that are like it. */
Result<Run> decode_subclusters(L2Entry entry, bool allocated, uint64_t host, uint64_t in_cluster,
                               const Qcow2Geometry& g) {
  const auto has_data = static_cast<uint32_t>(entry.bitmap);
  const auto is_zero = static_cast<uint32_t>(entry.bitmap >> 32);
  if ((has_data & is_zero) != 0 || (!allocated && has_data != 0)) {
    return fail(Errc::corrupt, "subcluster bitmap " + hex(entry.bitmap) + " is not valid for " +
                                   (allocated ? "a cluster with data" : "a cluster without data"));
  }
  const unsigned subcluster_bits = g.unit_bits();
  const auto first = static_cast<unsigned>(in_cluster >> subcluster_bits);
  const auto like_first = [&](uint32_t bits) { return static_cast<unsigned>(std::countr_one(bits >> first)); };
  const auto up_to = [&](unsigned count) {
    const unsigned end = first + count > 32 ? 32 : first + count;
    return (uint64_t{end} << subcluster_bits) - in_cluster;
  };
  if (const unsigned n = like_first(has_data)) return Run{up_to(n), Data{{host + in_cluster}}};
  if (const unsigned n = like_first(is_zero)) return Run{up_to(n), Zero{allocated}};
  return Run{up_to(static_cast<unsigned>(std::countr_zero((has_data | is_zero) >> first))), Unallocated{}};
}

} // namespace

Compressed decode_compressed(uint64_t word, unsigned cluster_bits) noexcept {
  const unsigned count_bits = cluster_bits - 8;
  const unsigned offset_bits = 62 - count_bits;
  const uint64_t offset = word & ((uint64_t{1} << offset_bits) - 1);
  const uint64_t sectors = ((word >> offset_bits) & ((uint64_t{1} << count_bits) - 1)) + 1;
  return {{offset}, static_cast<uint32_t>(sectors * sector_bytes - offset % sector_bytes)};
}

/* The first cluster of an external data file is at 0; in the image itself the header is there. */
bool is_allocated(uint64_t word, const Qcow2Geometry& g) noexcept {
  return (word & qcow2_offset_mask) != 0 || (g.data_file && (word & qcow2_copied) != 0);
}

Result<HostOffset> decode_l1(uint64_t entry, const Qcow2Geometry& geometry) {
  const uint64_t offset = entry & qcow2_offset_mask;
  if (!is_aligned(offset, geometry.cluster_size())) {
    return fail(Errc::corrupt, "L2 table offset " + hex(offset) + " is not a multiple of the cluster size (" +
                                   hex(geometry.cluster_size()) + ")");
  }
  return HostOffset{offset};
}

Result<Run> decode_l2(L2Entry entry, GuestOffset at, const Qcow2Geometry& g) {
  const uint64_t in_cluster = g.in_cluster(at);
  const uint64_t rest = g.cluster_size() - in_cluster;
  if ((entry.word & qcow2_compressed) != 0) {
    if (g.data_file) return fail(Errc::corrupt, "compressed cluster in an image with an external data file");
    return Run{rest, decode_compressed(entry.word, g.cluster_bits)};
  }

  const uint64_t host = entry.word & qcow2_offset_mask;
  if (!is_aligned(host, g.cluster_size())) {
    return fail(Errc::corrupt, "cluster offset " + hex(host) + " is not a multiple of the cluster size (" +
                                   hex(g.cluster_size()) + ")");
  }
  const bool allocated = is_allocated(entry.word, g);
  if (allocated && g.data_file && host != at.bytes - in_cluster) {
    return fail(Errc::corrupt, "cluster offset " + hex(host) + " in the external data file is not the guest offset " +
                                   hex(at.bytes - in_cluster));
  }
  if (g.extended_l2) return decode_subclusters(entry, allocated, host, in_cluster, g);
  if ((entry.word & qcow2_zero) != 0) {
    if (g.version < 3) return fail(Errc::corrupt, "zero cluster in an image of version 2");
    return Run{rest, Zero{allocated}};
  }
  if (allocated) return Run{rest, Data{{host + in_cluster}}};
  return Run{rest, Unallocated{}};
}

bool continues(const Run& run, const Run& next) noexcept {
  if (const auto* data = std::get_if<Data>(&run.mapping)) {
    return next.mapping == Mapping(Data{{data->at.bytes + run.length}});
  }
  return !std::holds_alternative<Compressed>(run.mapping) && run.mapping == next.mapping;
}

bool is_followed_by(L2Entry entry, L2Entry next, const Qcow2Geometry& g) noexcept {
  constexpr uint64_t all_data = 0xffffffff;
  constexpr uint64_t all_zero = all_data << 32;
  const uint64_t step = is_allocated(entry.word, g) ? g.cluster_size() : 0;
  const bool is_uniform = entry.bitmap == 0 || entry.bitmap == all_data || entry.bitmap == all_zero;
  const bool same_flags = ((entry.word ^ next.word) & ~qcow2_offset_mask) == 0; /* no carry out of the offset */
  return (entry.word & qcow2_compressed) == 0 && is_uniform && same_flags && next.word == entry.word + step &&
         next.bitmap == entry.bitmap;
}

} // namespace qluks
