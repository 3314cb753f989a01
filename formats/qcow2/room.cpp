/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/qcow2/room.hpp"

#include <limits>
#include <vector>

#include "base/window.hpp"
#include "formats/qcow2/refcounts.hpp"

namespace qluks {

namespace {

uint64_t parts_of(uint64_t n, uint64_t unit) noexcept { return n / unit + (n % unit != 0 ? 1 : 0); }

} // namespace

Result<uint64_t> qcow2_used_end(BlockDevice& container, const Qcow2Header& header) {
  std::vector<be64> table((header.refcount_table_clusters << header.cluster_bits) / sizeof(be64));
  const auto bytes = std::as_writable_bytes(std::span(table));
  if (Status s = read_zero_padded(container, bytes, header.refcount_table_offset.bytes); !s) return propagate(s);
  Qcow2Refcounts refcounts(header, table);
  for (uint64_t block = refcounts.blocks(); block-- > 0;) {
    if (refcounts.block_at(block).bytes == 0) continue;
    const size_t length = static_cast<size_t>(header.cluster_size());
    PageBuffer counts = make_page_buffer(length);
    if (Status s = read_zero_padded(container, {counts.get(), length}, refcounts.block_at(block).bytes); !s) {
      return propagate(s);
    }
    refcounts.insert(block, std::move(counts));
    for (uint64_t i = refcounts.clusters_per_block(); i-- > 0;) {
      const uint64_t number = block * refcounts.clusters_per_block() + i;
      if (refcounts.get(number) != 0) return (number + 1) << header.cluster_bits;
    }
    refcounts.shrink();
  }
  return header.cluster_size();
}

std::optional<uint64_t> qcow2_room_needed(const Qcow2Header& header, uint64_t used_end) noexcept {
  const uint64_t per_block = uint64_t{8} << header.cluster_bits >> header.refcount_order;
  const uint64_t l2_entry_bytes = header.has(qcow2_extended_l2_bit) ? 16 : 8;
  const uint64_t data = parts_of(header.size, header.cluster_size());
  const uint64_t tables = parts_of(data, header.cluster_size() / l2_entry_bytes);
  const uint64_t data_inside = header.has(qcow2_data_file_bit) ? 0 : data;
  const uint64_t before = parts_of(used_end, header.cluster_size()) + data_inside + tables;
  /* Blocks count themselves, and the refcount table, which may have to be made anew, has at most half again as many
   * entries as there are blocks. */
  uint64_t blocks = parts_of(before, per_block);
  for (int i = 0; i < 3; ++i) {
    const uint64_t links = 2 * parts_of(blocks * sizeof(be64), header.cluster_size()) + 2;
    blocks = parts_of(before + blocks + links, per_block) + 1;
  }
  const uint64_t table = 4 * (parts_of(blocks * sizeof(be64), header.cluster_size()) + 1);
  const uint64_t clusters = before + blocks + table;
  if (clusters > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()) >> header.cluster_bits) return std::nullopt;
  return clusters << header.cluster_bits;
}

} // namespace qluks
