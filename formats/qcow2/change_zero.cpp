/* SPDX-License-Identifier: BSD-3-Clause */
/* Zeroes and trim: whole clusters by their L2 entries, edges by writing zeroes.
 *
 *      request            |.....####|########|########|##......|
 *                          edge      entries            edge: written, unless it reads as zeroes already
 */
#include <algorithm>

#include "base/checked.hpp"
#include "base/zero_bytes.hpp"
#include "formats/qcow2/change.hpp"

namespace qluks {

namespace {

constexpr uint64_t all_zero = uint64_t{0xffffffff} << 32; /* the bitmap of an extended entry */

} // namespace

Status GuestWriter::zero(uint64_t offset, uint64_t length, ZeroMode mode, Fua fua) {
  if (Status s = writer_.begin(container_); !s) return s;
  const Zeroing how = may_trim(mode) ? Zeroing::free : Zeroing::keep;
  if (Status s = set_zero(offset, length, how, is_fast(mode)); !s) return s;
  return end_change(fua, false);
}

/* A cluster that is not there any more reads as zeroes, or in version 2 as the backing file: then it stays. */
Status GuestWriter::trim(uint64_t offset, uint64_t length, Fua fua) {
  if (Status s = writer_.begin(container_); !s) return s;
  const uint64_t end = offset + length;
  const uint64_t first = align_down(offset + g_.cluster_size() - 1, g_.cluster_size());
  const uint64_t last = end == image_.size ? end : align_down(end, g_.cluster_size());
  for (uint64_t at = first; at < last && (g_.version >= 3 || is_unbacked(at));) {
    auto next = zero_slice(at, last, Zeroing::discard);
    if (!next) return propagate(next);
    at = *next;
  }
  return end_change(fua, false);
}

bool GuestWriter::is_unbacked(uint64_t at) const noexcept { return !image_.backing || at >= image_.backing->size(); }

Status GuestWriter::set_zero(uint64_t offset, uint64_t length, Zeroing how, bool fast) {
  const uint64_t end = offset + length;
  const uint64_t first = align_down(offset + g_.cluster_size() - 1, g_.cluster_size());
  const uint64_t last = end == image_.size ? end : align_down(end, g_.cluster_size());
  const bool entries_can_say_so = g_.version >= 3 || is_unbacked(offset);
  if (first >= last || !entries_can_say_so) return zero_edge(offset, end, fast);
  if (Status s = zero_edge(offset, first, fast); !s) return s;
  if (Status s = zero_edge(last, end, fast); !s) return s;
  for (uint64_t at = first; at < last;) {
    auto next = zero_slice(at, last, how);
    if (!next) return propagate(next);
    at = *next;
  }
  return ok();
}

Status GuestWriter::zero_edge(uint64_t begin, uint64_t end, bool fast) {
  while (begin < end) {
    Result<Run> run = [&] {
      const Quiescence::Request request(writer_.quiescence());
      return image_.map.run_at(container_, {begin}, end - begin);
    }();
    if (!run) return propagate(run);
    const bool is_zero = std::holds_alternative<Zero>(run->mapping) ||
                         (std::holds_alternative<Unallocated>(run->mapping) && is_unbacked(begin));
    if (!is_zero && fast) return fail(Errc::not_fast, "these zeroes would have to be written");
    if (!is_zero) {
      if (Status s = write_zeroes(begin, begin + run->length); !s) return s;
    }
    begin += run->length;
  }
  return ok();
}

Status GuestWriter::write_zeroes(uint64_t begin, uint64_t end) {
  bool is_durable = false;
  return write_zero_bytes(begin, end - begin, [&](std::span<const std::byte> zeroes, uint64_t at) {
    return write_pieces({zeroes, {at}}, is_durable);
  });
}

/* What the entry becomes.  Room that is kept stays ours, and reads as zeroes all the same. */
L2Entry GuestWriter::zeroed(L2Entry old, Zeroing how, bool unbacked) const noexcept {
  const bool is_unallocated = (old.word & ~qcow2_copied) == 0 && old.bitmap == 0 && !is_allocated(old.word, g_);
  if (is_unallocated && (unbacked || how == Zeroing::discard)) return old;
  const bool is_ours = (old.word & qcow2_copied) != 0 && (old.word & qcow2_compressed) == 0;
  const uint64_t room = how == Zeroing::keep && is_ours ? old.word & (qcow2_offset_mask | qcow2_copied) : 0;
  if (g_.extended_l2) return {.word = room, .bitmap = all_zero};
  return {.word = g_.version >= 3 ? room | qcow2_zero : 0};
}

/* Before the entries say so: until then these bytes are the old ones or zeroes, and afterwards nobody comes late to
 * what was written there since. */
Status GuestWriter::zero_data_file(uint64_t begin, uint64_t end, Zeroing how) {
  const bool is_raw = image_.header.has_autoclear(qcow2_raw_data_file_bit);
  if (!image_.data_file || (how == Zeroing::keep && !is_raw)) return ok();
  const Target clusters = inside_of_data_file({{begin}, end - begin, {begin}});
  const ZeroMode mode = how == Zeroing::keep ? ZeroMode::keep : ZeroMode::may_trim;
  return image_.data_file->zero(clusters.to.bytes, clusters.length, mode, Fua::no);
}

/* Changes the entries for the clusters from `begin` on, up to `end` or the end of their slice, and says where that
 * is. */
Result<uint64_t> GuestWriter::zero_slice(uint64_t begin, uint64_t end, Zeroing how) {
  const L2Place place({begin}, g_);
  const uint64_t table_end = begin + (uint64_t{1} << (g_.l2_bits() + g_.cluster_bits)) -
                             (begin & ((uint64_t{1} << (g_.l2_bits() + g_.cluster_bits)) - 1));
  const bool has_table = (image_.map.l1_entry(place.l1_index) & qcow2_offset_mask) != 0;
  if (!has_table && (is_unbacked(begin) || how == Zeroing::discard)) return std::min(end, table_end);
  const uint64_t slice_end = begin + (entries_per_slice(g_) - place.index) * g_.cluster_size();
  end = std::min(end, slice_end);
  const uint64_t count = ((end - begin - 1) >> g_.cluster_bits) + 1;
  auto guard = writer_.clusters().take(begin, count << g_.cluster_bits);
  if (!guard) return propagate(guard);
  auto table = writer_.table_for_writing(container_, place.l1_index);
  if (!table) return propagate(table);
  auto pin = writer_.slice_for_writing(container_, *table, place);
  if (!pin) return propagate(pin);

  Qcow2Writer::Change change{.slice = {table->bytes + place.slice * slice_bytes(g_)}, .index = place.index};
  bool changes = false;
  for (uint64_t i = 0; i < count; ++i) {
    const L2Entry old = load_l2_entry(pin->bytes(), place.index + i, g_);
    const L2Entry entry = zeroed(old, how, is_unbacked(begin + (i << g_.cluster_bits)));
    change.entries.push_back(entry);
    changes = changes || entry.word != old.word || entry.bitmap != old.bitmap;
    const HostReference had = reference_of(old.word, g_);
    if (had.clusters.count != 0 && clusters_of(entry.word, g_).count == 0) change.released.push_back(had);
  }
  if (!changes) return end;
  if (Status s = zero_data_file(begin, begin + (count << g_.cluster_bits), how); !s) return propagate(s);
  change.exposes = image_.data_file != nullptr;
  writer_.publish(std::move(change), std::move(*pin));
  return end;
}

} // namespace qluks
