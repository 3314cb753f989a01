/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/qcow2/change.hpp"

#include <algorithm>
#include <cerrno>
#include <optional>

#include "base/buffer_pool.hpp"
#include "base/checked.hpp"
#include "formats/text.hpp"

namespace qluks {

namespace {

/* A piece that is encrypted, or put together, before it goes down: large enough for a client's usual request, small
 * enough for the cache of a CPU. */
constexpr size_t piece_bytes = 512 * 1024;
constexpr size_t pieces_max = 32; /* of all images together */
constexpr size_t pieces_kept = 8;

BufferPool& pieces() {
  static BufferPool pool(piece_bytes, pieces_max, pieces_kept);
  return pool;
}

uint64_t round_up(uint64_t n, uint64_t unit) noexcept { return align_down(n + unit - 1, unit); }

/* Has it a cluster that only we refer to, for data or for zeroes? */
bool is_ours(uint64_t word, const Qcow2Geometry& g) noexcept {
  return (word & qcow2_copied) != 0 && (word & qcow2_compressed) == 0 && is_allocated(word, g);
}

constexpr uint64_t all_units = 0xffffffff;

/* Bits [first, end) of 32. */
constexpr uint64_t unit_range(uint64_t first, uint64_t end) noexcept {
  return ((uint64_t{1} << end) - 1) & ~((uint64_t{1} << first) - 1);
}

} // namespace

WriteAbilities GuestWriter::abilities() const noexcept {
  const WriteAbilities below = container_.write_abilities();
  const bool zeroes_are_data = image_.data_file && (image_.header.has_autoclear(qcow2_raw_data_file_bit) ||
                                                    !image_.data_file->write_abilities().zero);
  return {.write = true,
          .flush = true, /* tables are written back in any case */
          .fua = true,
          .trim = true,
          .zero = true,
          .fast_zero = g_.version >= 3 && !zeroes_are_data,
          .multi_conn = below.multi_conn && data().write_abilities().multi_conn};
}

Status GuestWriter::write(std::span<const std::byte> src, uint64_t offset, Fua fua) {
  if (Status s = writer_.begin(container_); !s) return s;
  bool is_durable = fua == Fua::yes && data().write_abilities().fua;
  if (Status s = write_pieces({src, {offset}}, is_durable); !s) return s;
  return end_change(fua, is_durable);
}

Status GuestWriter::write_pieces(const Source& source, bool& is_durable) {
  for (Source rest = source; !rest.bytes.empty();) {
    auto done = write_in_place(rest, is_durable);
    if (done && *done == 0) {
      is_durable = false;
      done = write_elsewhere(rest);
    }
    if (!done) return propagate(done);
    rest = {rest.bytes.subspan(*done), {rest.at.bytes + *done}};
  }
  return ok();
}

Status GuestWriter::flush() { return writer_.flush(container_); }

Status GuestWriter::end_change(Fua fua, bool is_durable) {
  const bool must_flush = fua == Fua::yes && !is_durable;
  return must_flush || writer_.should_write_back() ? writer_.flush(container_) : ok();
}

/* The bytes from the start of the source on that lie in clusters of ours, one behind the other in the container. */
Result<GuestWriter::Target> GuestWriter::run_in_place(const Source& source) {
  Target run{source.at, 0, {}};
  HostOffset looked_at;
  Qcow2Cache::Bytes slice;
  while (run.length < source.bytes.size()) {
    const GuestOffset at{source.at.bytes + run.length};
    const L2Place place(at, g_);
    const uint64_t l1_entry = image_.map.l1_entry(place.l1_index);
    if ((l1_entry & qcow2_copied) == 0) break;
    const HostOffset table{l1_entry & qcow2_offset_mask};
    const HostOffset wanted{table.bytes + place.slice * slice_bytes(g_)};
    if (slice == nullptr || wanted != looked_at) {
      auto bytes = writer_.slice_in_use(container_, table, place);
      if (!bytes) return propagate(bytes);
      slice = std::move(*bytes);
      looked_at = wanted;
    }
    const L2Entry entry = load_l2_entry(slice.get(), place.index, g_);
    if (!is_ours(entry.word, g_)) break;
    auto piece = decode_l2(entry, at, g_);
    if (!piece) return propagate(piece, "guest offset " + hex(at.bytes));
    const auto* data = std::get_if<Data>(&piece->mapping);
    if (data == nullptr) break;
    if (run.length == 0) run.to = data->at;
    if (data->at.bytes != run.to.bytes + run.length) break;
    run.length += std::min<uint64_t>(piece->length, source.bytes.size() - run.length);
  }
  return run;
}

/* Nothing is written of what does not follow the first byte in place.  Others may write to the same clusters. */
Result<size_t> GuestWriter::write_in_place(const Source& source, bool& is_durable) {
  const Quiescence::Request request(writer_.quiescence());
  auto run = run_in_place(source);
  if (!run) return propagate(run);
  if (run->length == 0) return size_t{0};
  const size_t done = static_cast<size_t>(run->length);
  is_durable = is_durable && writer_.is_stable();
  const Fua fua = is_durable ? Fua::yes : Fua::no;
  if (!image_.crypt) {
    if (Status s = write_target(source, *run, fua); !s) return propagate(s);
    return done;
  }
  const uint64_t skip = run->from.bytes % sector_bytes;
  const Target sectors{{run->from.bytes - skip}, round_up(run->length + skip, sector_bytes), {run->to.bytes - skip}};
  auto guard = writer_.sectors().take(sectors.from.bytes, sectors.length);
  if (!guard) return propagate(guard);
  const Source part{source.bytes.first(done), source.at};
  if (Status s = write_target(part, sectors, fua); !s) return propagate(s);
  return done;
}

/* As much of the request as one change of a slice takes. */
Result<size_t> GuestWriter::write_elsewhere(const Source& source) {
  const L2Place place(source.at, g_);
  const uint64_t cluster = align_down(source.at.bytes, g_.cluster_size());
  const uint64_t slice_end = cluster + (entries_per_slice(g_) - place.index) * g_.cluster_size();
  const uint64_t end = std::min(round_up(source.end(), g_.cluster_size()), slice_end);
  auto guard = writer_.clusters().take(cluster, end - cluster);
  if (!guard) return propagate(guard);
  auto table = writer_.table_for_writing(container_, place.l1_index);
  if (!table) return propagate(table);
  auto pin = writer_.slice_for_writing(container_, *table, place);
  if (!pin) return propagate(pin);
  const HostOffset slice{table->bytes + place.slice * slice_bytes(g_)};
  const size_t length = static_cast<size_t>(std::min<uint64_t>(source.bytes.size(), end - source.at.bytes));
  const Source part{source.bytes.first(length), source.at};
  Batch batch = next_batch(part, slice, place, pin->bytes());
  if (batch.old.empty()) return size_t{0}; /* another one was here first: now it can be written in place */
  return write_batch(part, std::move(batch), std::move(*pin));
}

/* The units of that cluster that the request touches. */
uint64_t GuestWriter::touched_units(const Source& source, GuestOffset cluster) const noexcept {
  const uint64_t begin = std::max(source.at.bytes, cluster.bytes) - cluster.bytes;
  const uint64_t end = std::min(source.end() - cluster.bytes, g_.cluster_size());
  return unit_range(begin >> g_.unit_bits(), round_up(end, g_.unit_size()) >> g_.unit_bits());
}

GuestWriter::Batch GuestWriter::next_batch(const Source& source, HostOffset slice, const L2Place& place,
                                           const std::byte* bytes) const {
  Batch batch{slice, place.index, {align_down(source.at.bytes, g_.cluster_size())}, {}, false};
  const L2Entry first = load_l2_entry(bytes, place.index, g_);
  batch.keeps_room = is_ours(first.word, g_);
  if (batch.keeps_room && g_.extended_l2) {
    const uint64_t unit = g_.in_cluster(source.at) >> g_.unit_bits();
    if (((first.bitmap >> unit) & 1) == 0) batch.old.push_back(first);
    return batch;
  }
  for (uint64_t i = 0; place.index + i < entries_per_slice(g_); ++i) {
    if (batch.at.bytes + i * g_.cluster_size() >= source.end()) break;
    const L2Entry entry = load_l2_entry(bytes, place.index + i, g_);
    if (is_ours(entry.word, g_) != batch.keeps_room) break;
    if (batch.keeps_room && (entry.word & qcow2_zero) == 0) break;
    if (batch.keeps_room && entry.word != first.word + i * g_.cluster_size()) break;
    batch.old.push_back(entry);
  }
  return batch;
}

/* The one behind the other is one write. */
void GuestWriter::add_target(std::vector<Target>& targets, const Target& target) {
  const bool joins = !targets.empty() && targets.back().from.bytes + targets.back().length == target.from.bytes &&
                     targets.back().to.bytes + targets.back().length == target.to.bytes;
  if (joins) {
    targets.back().length += target.length;
  } else {
    targets.push_back(target);
  }
}

/* Is there nothing in that cluster of the guest disk? */
bool GuestWriter::reads_as_zero(L2Entry entry, GuestOffset cluster) const noexcept {
  const bool has_data = (entry.bitmap & all_units) != 0 || (entry.word & qcow2_compressed) != 0 ||
                        (is_allocated(entry.word, g_) && (g_.extended_l2 || (entry.word & qcow2_zero) == 0));
  return !has_data && (!image_.backing || cluster.bytes >= image_.backing->size());
}

Result<size_t> GuestWriter::write_batch(const Source& source, Batch batch, Qcow2Cache::Pin pin) {
  std::optional<Qcow2Writer::Claim> claim;
  HostOffset host{g_.data_file ? batch.at.bytes : batch.old[0].word & qcow2_offset_mask};
  if (!batch.keeps_room && !g_.data_file) {
    auto claimed = writer_.claim(container_, batch.old.size());
    if (!claimed) return propagate(claimed);
    batch.old.resize(static_cast<size_t>(claimed->clusters().count));
    host = {claimed->clusters().first << g_.cluster_bits};
    claim.emplace(std::move(*claimed));
  }
  /* Zeroes that are to be encrypted have to be written in any case. */
  const bool is_covered =
      source.at <= batch.at && source.end() >= batch.at.bytes + batch.old.size() * g_.cluster_size();
  const bool is_blank = claim && !is_covered && !image_.crypt && writer_.is_blank(container_, *claim);
  Qcow2Writer::Change change{.slice = batch.slice, .index = batch.index, .exposes = true};
  std::vector<Target> targets;
  uint64_t end = std::min(source.end(), batch.at.bytes + batch.old.size() * g_.cluster_size());
  for (size_t i = 0; i < batch.old.size(); ++i) {
    const L2Entry old = batch.old[i];
    const uint64_t step = i * g_.cluster_size();
    const GuestOffset cluster{batch.at.bytes + step};
    const bool is_compressed = (old.word & qcow2_compressed) != 0;
    const uint64_t had = is_compressed ? all_units : old.bitmap & all_units;
    uint64_t units = touched_units(source, cluster);
    if (batch.keeps_room && g_.extended_l2) {
      /* Up to a subcluster that has data, which others may be writing just now. */
      const uint64_t first = static_cast<uint64_t>(std::countr_zero(units));
      const uint64_t ends = static_cast<uint64_t>(std::countr_zero((had >> first) | (uint64_t{1} << (32 - first))));
      units &= unit_range(first, first + ends);
      end = std::min(end, cluster.bytes + ((first + ends) << g_.unit_bits()));
    }
    const uint64_t has = had | units;
    if (is_blank && reads_as_zero(old, cluster)) {
      const uint64_t from = std::max(source.at.bytes, cluster.bytes);
      const uint64_t to = std::min(source.end(), cluster.bytes + g_.cluster_size());
      add_target(targets, {{from}, to - from, {host.bytes + step + from - cluster.bytes}});
    } else {
      add_units(targets, batch.keeps_room || !g_.extended_l2 ? units : has, cluster, {host.bytes + step});
    }
    const uint64_t zeroes = is_compressed ? 0 : (old.bitmap >> 32) & ~has;
    change.entries.push_back({(host.bytes + step) | qcow2_copied, g_.extended_l2 ? (zeroes << 32 | has) : 0});
    if (!batch.keeps_room) change.released.push_back(reference_of(old.word, g_));
  }
  const size_t done = static_cast<size_t>(end - source.at.bytes);
  if (Status s = write_targets({source.bytes.first(done), source.at}, targets); !s) return propagate(s);
  writer_.publish(std::move(change), std::move(pin));
  if (claim) claim->keep();
  return done;
}

/* Those units of a guest cluster, whose host cluster is at `host`. */
void GuestWriter::add_units(std::vector<Target>& targets, uint64_t units, GuestOffset cluster, HostOffset host) const {
  for (uint64_t unit = 0; unit < 32 && (units >> unit) != 0;) {
    unit += static_cast<uint64_t>(std::countr_zero(units >> unit));
    const uint64_t count = static_cast<uint64_t>(std::countr_one(units >> unit));
    const uint64_t at = unit << g_.unit_bits();
    add_target(targets, {{cluster.bytes + at}, count << g_.unit_bits(), {host.bytes + at}});
    unit += count;
  }
}

Status GuestWriter::write_targets(const Source& source, const std::vector<Target>& targets) {
  for (const Target& target : targets) {
    if (Status s = write_target(source, target, Fua::no); !s) return s;
  }
  return ok();
}

/* It need be no longer than the disk, whose last cluster may be cut. */
GuestWriter::Target GuestWriter::inside_of_data_file(Target target) const noexcept {
  const uint64_t end = round_up(image_.size, sector_bytes);
  if (image_.data_file) target.length = std::min(target.length, end - target.from.bytes);
  return target;
}

Status GuestWriter::write_target(const Source& source, const Target& whole, Fua fua) {
  const Target target = inside_of_data_file(whole);
  if (!range_fits(target.to.bytes, target.length, data().size())) {
    return fail(Errc::out_of_bounds,
                "the cluster at " + hex(target.to.bytes) + " does not end before the end of the container (" +
                    hex(container_.size()) + "): make it longer while nothing serves it (truncate -s +SIZE FILE)",
                ENOSPC);
  }
  if (!image_.data_file) {
    if (Status s = writer_.check_data(target.to, target.length); !s) return s;
  }
  const bool is_covered = source.at <= target.from && source.end() >= target.from.bytes + target.length;
  if (image_.crypt || !is_covered) return write_buffered(source, target, fua);
  const size_t skip = static_cast<size_t>(target.from.bytes - source.at.bytes);
  return data().write(source.bytes.subspan(skip, static_cast<size_t>(target.length)), target.to.bytes, fua);
}

Status GuestWriter::write_buffered(const Source& source, const Target& target, Fua fua) {
  const auto lease = pieces().borrow(static_cast<size_t>(target.length));
  for (uint64_t done = 0; done < target.length;) {
    const auto piece =
        lease.bytes().first(static_cast<size_t>(std::min<uint64_t>(lease.bytes().size(), target.length - done)));
    const GuestOffset from{target.from.bytes + done};
    const HostOffset to{target.to.bytes + done};
    const bool is_covered = source.at <= from && source.end() >= from.bytes + piece.size();
    if (is_covered && image_.crypt) {
      const size_t skip = static_cast<size_t>(from.bytes - source.at.bytes);
      image_.crypt->encrypt(source.bytes.subspan(skip, piece.size()), piece, from, to);
    } else {
      if (Status s = compose(source, from, piece); !s) return s;
      if (image_.crypt) image_.crypt->encrypt(piece, piece, from, to);
    }
    if (Status s = data().write(piece, to.bytes, fua); !s) return s;
    done += piece.size();
  }
  return ok();
}

/* Whole sectors from `from` on: the request, and what is there now where it does not reach. */
Status GuestWriter::compose(const Source& source, GuestOffset from, std::span<std::byte> out) const {
  const uint64_t end = from.bytes + out.size();
  const uint64_t first = std::clamp(source.at.bytes, from.bytes, end);
  const uint64_t last = std::clamp(source.end(), from.bytes, end);
  if (first >= last) return read_(out, from);
  const uint64_t head = round_up(first, sector_bytes) - from.bytes;
  const uint64_t tail = align_down<uint64_t>(last, sector_bytes) - from.bytes;
  if (first > from.bytes) {
    if (Status s = read_(out.first(static_cast<size_t>(head)), from); !s) return s;
  }
  if (last < end) {
    if (Status s = read_(out.subspan(static_cast<size_t>(tail)), {from.bytes + tail}); !s) return s;
  }
  std::copy_n(source.bytes.begin() + static_cast<ptrdiff_t>(first - source.at.bytes), last - first,
              out.begin() + static_cast<ptrdiff_t>(first - from.bytes));
  return ok();
}

} // namespace qluks
