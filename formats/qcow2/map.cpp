/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/qcow2/map.hpp"

#include <algorithm>

#include "base/checked.hpp"
#include "base/window.hpp"
#include "formats/text.hpp"

namespace qluks {

namespace {

/* Looked at for one run. */
constexpr int run_slices_max = 64;

/* What is left of the unit of 2^bits bytes that `at` is in. */
uint64_t rest_of(GuestOffset at, unsigned bits) noexcept {
  const uint64_t unit = uint64_t{1} << bits;
  return unit - (at.bytes & (unit - 1));
}

/* How many entries of the slice there are: a file that was cut short may end within. */
uint64_t entries_present(HostOffset slice, const BlockDevice& container, const Qcow2Geometry& g) noexcept {
  const uint64_t to_end = container.size() - std::min(container.size(), slice.bytes);
  return std::min(to_end, slice_bytes(g)) / g.l2_entry_bytes();
}

/* Entries of a slice, from `index` on. */
struct EntryRange {
  uint64_t index;
  uint64_t end;
};

/* `piece` starts at `at`, in `entry`, which is the first one of the range.  If it ends with its cluster, the
 * entries that continue it are joined, until it has `max` bytes: a scan of a large image spends its time here. */
void join_entries(const Qcow2Cache::Bytes& slice, EntryRange range, L2Entry entry, const Qcow2Geometry& g,
                  GuestOffset at, uint64_t max, Run& piece) noexcept {
  if (g.in_cluster({at.bytes + piece.length}) != 0) return;
  uint64_t index = range.index;
  while (piece.length < max && ++index < range.end) {
    const L2Entry next = load_l2_entry(slice.get(), index, g);
    if (!is_followed_by(entry, next, g)) return;
    piece.length += g.cluster_size();
    entry = next;
  }
}

std::string at_guest(GuestOffset at) { return "guest offset " + hex(at.bytes); }

} // namespace

Qcow2Map::Qcow2Map(const Qcow2Geometry& geometry, std::vector<be64> l1, Qcow2Cache::TableRoom room,
                   std::shared_ptr<Qcow2Cache> cache)
    : geometry_(geometry),
      l1_(std::move(l1)),
      l1_room_(std::move(room)),
      cache_(std::move(cache)),
      owner_(cache_->new_owner()) {}

Result<Qcow2Map> Qcow2Map::load(BlockDevice& container, const Qcow2Geometry& geometry, HostOffset l1_offset,
                                uint32_t l1_entries, std::shared_ptr<Qcow2Cache> cache) {
  const std::string where = "L1 table at " + hex(l1_offset.bytes);
  const uint64_t bytes = uint64_t{l1_entries} * sizeof(be64);
  /* Known before there is memory for it: a small file does not cost the memory of a large table. */
  if (bytes != 0 && !range_fits(l1_offset.bytes, bytes, container.size())) {
    return past_the_end(where, l1_offset.bytes, bytes, container.size());
  }
  auto room = cache->room_for_table(bytes);
  if (!room) return propagate(room, where);
  std::vector<be64> l1(l1_entries);
  if (Status s = read_present(container, std::as_writable_bytes(std::span(l1)), l1_offset.bytes, where); !s) {
    return propagate(s);
  }
  return Qcow2Map(geometry, std::move(l1), std::move(*room), std::move(cache));
}

Result<Run> Qcow2Map::run_at(BlockDevice& container, GuestOffset at, uint64_t max) const {
  Cursor cursor{.container = container, .at = {}, .slice = nullptr};
  auto first = piece_at(cursor, at, max);
  if (!first) return propagate(first, at_guest(at));
  Run run = *first;
  while (run.length < max && cursor.slices < run_slices_max) {
    const auto next = piece_at(cursor, {at.bytes + run.length}, max - run.length);
    if (!next || !continues(run, *next)) break;
    run.length += next->length;
  }
  run.length = std::min(run.length, max);
  return run;
}

/* The part of the run at `at` that a single slice, or the lack of a table, tells.  It may be longer than `max`. */
Result<Run> Qcow2Map::piece_at(Cursor& cursor, GuestOffset at, uint64_t max) const {
  const L2Place place(at, geometry_);
  auto table = decode_l1(l1_entry(place.l1_index), geometry_);
  if (!table) return propagate(table);
  if (table->bytes == 0) return Run{rest_of(at, geometry_.l2_bits() + geometry_.cluster_bits), Unallocated{}};

  const HostOffset slice{table->bytes + place.slice * slice_bytes(geometry_)};
  const uint64_t present = entries_present(slice, cursor.container, geometry_);
  if (place.index >= present) {
    return past_the_end("L2 table at " + hex(table->bytes), table->bytes + place.in_table, geometry_.l2_entry_bytes(),
                        cursor.container.size());
  }
  if (Status s = move_to(cursor, slice); !s) return propagate(s);
  const L2Entry entry = load_l2_entry(cursor.slice.get(), place.index, geometry_);
  auto piece = decode_l2(entry, at, geometry_);
  if (piece) join_entries(cursor.slice, {place.index, present}, entry, geometry_, at, max, *piece);
  return piece;
}

Status Qcow2Map::move_to(Cursor& cursor, HostOffset slice) const {
  if (cursor.slice != nullptr && cursor.at == slice) return ok();
  auto bytes = this->slice(cursor.container, slice);
  if (!bytes) return propagate(bytes);
  cursor.at = slice;
  ++cursor.slices;
  cursor.slice = std::move(*bytes);
  return ok();
}

Result<Qcow2Cache::Bytes> Qcow2Map::slice(BlockDevice& container, HostOffset at) const {
  auto bytes = cache_->get(slice_key(at), static_cast<size_t>(slice_bytes(geometry_)),
                           [&](std::span<std::byte> dst) { return read_zero_padded(container, dst, at.bytes); });
  if (!bytes) return propagate(bytes, "L2 table at " + hex(at.bytes));
  return bytes;
}

Result<Qcow2Cache::Pin> Qcow2Map::pin_slice(BlockDevice& container, HostOffset slice) const {
  auto pin = cache_->pin(slice_key(slice), static_cast<size_t>(slice_bytes(geometry_)),
                         [&](std::span<std::byte> dst) { return read_present(container, dst, slice.bytes); });
  if (!pin) return propagate(pin, "L2 table at " + hex(slice.bytes));
  return pin;
}

} // namespace qluks
