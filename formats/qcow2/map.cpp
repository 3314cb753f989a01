/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/qcow2/map.hpp"

#include <algorithm>

#include "base/window.hpp"
#include "formats/text.hpp"

namespace qluks {

namespace {

constexpr uint64_t slice_bytes_max = 64 * 1024;

uint64_t slice_bytes(const Qcow2Geometry& g) noexcept { return std::min(g.cluster_size(), slice_bytes_max); }

L2Entry entry_in(const Qcow2Cache::Bytes& slice, uint64_t index, const Qcow2Geometry& g) noexcept {
  const std::span bytes(slice.get() + index * g.l2_entry_bytes(), g.l2_entry_bytes());
  L2Entry entry{.word = load_on_disk<be64>(bytes)};
  if (g.extended_l2) entry.bitmap = load_on_disk<be64>(bytes.subspan(8));
  return entry;
}

/* What is left of the unit of 2^bits bytes that `at` is in. */
uint64_t rest_of(GuestOffset at, unsigned bits) noexcept {
  const uint64_t unit = uint64_t{1} << bits;
  return unit - (at.bytes & (unit - 1));
}

/* `piece` starts at `at`, in the entry `index` of the slice.  If it ends with its cluster, the entries that continue it
 * are joined, until it has `max` bytes: a scan of a large image spends its time here. */
void join_entries(const Qcow2Cache::Bytes& slice, uint64_t index, const Qcow2Geometry& g, GuestOffset at, uint64_t max,
                  Run& piece) noexcept {
  if (g.in_cluster({at.bytes + piece.length}) != 0) return;
  const uint64_t entries = slice_bytes(g) / g.l2_entry_bytes();
  for (L2Entry entry = entry_in(slice, index, g); piece.length < max && ++index < entries;) {
    const L2Entry next = entry_in(slice, index, g);
    if (!is_followed_by(entry, next, g)) return;
    piece.length += g.cluster_size();
    entry = next;
  }
}

std::string at_guest(GuestOffset at) { return "guest offset " + hex(at.bytes); }

} // namespace

Qcow2Map::Qcow2Map(const Qcow2Geometry& geometry, std::vector<be64> l1, std::shared_ptr<Qcow2Cache> cache)
    : geometry_(geometry), l1_(std::move(l1)), cache_(std::move(cache)), owner_(cache_->new_owner()) {}

Result<Qcow2Map> Qcow2Map::load(BlockDevice& container, const Qcow2Geometry& geometry, HostOffset l1_offset,
                                uint32_t l1_entries, std::shared_ptr<Qcow2Cache> cache) {
  /* A table that is said to be large in a small file costs no more memory than the file has bytes. */
  const uint64_t to_end = container.size() - std::min(container.size(), l1_offset.bytes);
  const size_t present = static_cast<size_t>(std::min<uint64_t>(l1_entries, (to_end + 7) / sizeof(be64)));
  std::vector<be64> l1(present);
  if (Status s = read_zero_padded(container, std::as_writable_bytes(std::span(l1)), l1_offset.bytes); !s) {
    return propagate(s, "L1 table at " + hex(l1_offset.bytes));
  }
  return Qcow2Map(geometry, std::move(l1), std::move(cache));
}

Result<Run> Qcow2Map::run_at(BlockDevice& container, GuestOffset at, uint64_t max) const {
  Cursor cursor{.container = container, .at = {}, .slice = nullptr};
  auto first = piece_at(cursor, at, max);
  if (!first) return propagate(first, at_guest(at));
  Run run = *first;
  while (run.length < max) {
    const auto next = piece_at(cursor, {at.bytes + run.length}, max - run.length);
    if (!next || !continues(run, *next)) break;
    run.length += next->length;
  }
  run.length = std::min(run.length, max);
  return run;
}

/* The part of the run at `at` that a single slice, or the lack of a table, tells.  It may be longer than `max`. */
Result<Run> Qcow2Map::piece_at(Cursor& cursor, GuestOffset at, uint64_t max) const {
  const unsigned table_bits = geometry_.l2_bits() + geometry_.cluster_bits;
  const uint64_t l1_index = at.bytes >> table_bits;
  auto table = decode_l1(l1_index < l1_.size() ? uint64_t{l1_[static_cast<size_t>(l1_index)]} : 0, geometry_);
  if (!table) return propagate(table);
  if (table->bytes == 0) return Run{rest_of(at, table_bits), Unallocated{}};

  const uint64_t l2_index = (at.bytes >> geometry_.cluster_bits) & ((uint64_t{1} << geometry_.l2_bits()) - 1);
  const uint64_t in_table = l2_index * geometry_.l2_entry_bytes();
  const uint64_t in_slice = in_table % slice_bytes(geometry_);
  const HostOffset slice{table->bytes + in_table - in_slice};
  if (slice.bytes >= cursor.container.size()) return Run{rest_of(at, geometry_.cluster_bits), Unallocated{}};
  if (Status s = move_to(cursor, slice); !s) return propagate(s);
  const uint64_t index = in_slice / geometry_.l2_entry_bytes();
  auto piece = decode_l2(entry_in(cursor.slice, index, geometry_), at, geometry_);
  if (piece) join_entries(cursor.slice, index, geometry_, at, max, *piece);
  return piece;
}

Status Qcow2Map::move_to(Cursor& cursor, HostOffset slice) const {
  if (cursor.slice != nullptr && cursor.at == slice) return ok();
  const Qcow2Cache::Key key{.owner = owner_, .at = slice.bytes};
  auto bytes = cache_->get(key, static_cast<size_t>(slice_bytes(geometry_)), [&](std::span<std::byte> dst) {
    return read_zero_padded(cursor.container, dst, slice.bytes);
  });
  if (!bytes) return propagate(bytes, "L2 table at " + hex(slice.bytes));
  cursor.at = slice;
  cursor.slice = std::move(*bytes);
  return ok();
}

} // namespace qluks
