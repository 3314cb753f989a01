/* SPDX-License-Identifier: BSD-3-Clause */
/* May this image be written?  What is looked at is bounded: header, L1 table, refcount table, the refcounts of all
 * metadata.  L2 tables are looked at before the first change if they are few, else each when it is first used for
 * writing: what contradicts the refcounts there may be found too late by then. */
#include "base/checked.hpp"
#include "base/shutdown.hpp"
#include "base/window.hpp"
#include "formats/qcow2/snapshot.hpp"
#include "formats/qcow2/writer.hpp"
#include "formats/text.hpp"

namespace qluks {

namespace {

tl::unexpected<Error> refuse(std::string why) { return fail(Errc::corrupt, std::move(why)); }

/* Clusters of it are where the guest has them, so it has to be as long as the disk. */
Status check_data_file(const Qcow2Header& header, const BlockDevice* data_file) {
  if (data_file == nullptr) return ok();
  if (!data_file->write_abilities().write) return fail(Errc::read_only, "the external data file is read-only");
  const uint64_t needed = *checked_align_up<uint64_t>(header.size, sector_bytes);
  if (data_file->size() >= needed) return ok();
  return fail(Errc::out_of_bounds, "the external data file has " + std::to_string(data_file->size()) +
                                       " bytes, and the disk " + std::to_string(needed) +
                                       ": make it longer (truncate -s)");
}

} // namespace

class Qcow2Writer::Checks {
 public:
  Checks(Qcow2Writer& writer, BlockDevice& container)
      : writer_(writer), container_(container), bits_(writer.cluster_bits_), lock_(writer.mutex_) {}

  Status run(const Qcow2Header& h) {
    Status s = add(Qcow2Part::header, {0}, h.cluster_size());
    if (s) s = add(Qcow2Part::l1_table, h.l1_offset, uint64_t{h.l1_entries} * sizeof(be64));
    if (s) s = add(Qcow2Part::refcount_table, h.refcount_table_offset, h.refcount_table_clusters << bits_);
    if (s && h.encryption) s = add(Qcow2Part::encryption_header, h.encryption->at, h.encryption->length);
    if (s && h.bitmap_directory)
      s = add(Qcow2Part::bitmap_directory, h.bitmap_directory->at, h.bitmap_directory->length);
    if (s) s = add_refcount_blocks();
    if (s) s = add_snapshots(h);
    if (s) s = add_l2_tables(h);
    if (s) s = check_refcounts();
    return s ? take_room() : s;
  }

 private:
  /* A disk of 64 TiB has 2^18 in clusters of 64 KiB, and one of 2 TiB 2^20 in clusters of 4 KiB. */
  static constexpr uint64_t structures_max = 1 << 20;

  Status add(Qcow2Part part, HostOffset at, uint64_t length) {
    if (length == 0) return ok();
    const std::string name = std::string(name_of(part)) + " at " + hex(at.bytes);
    const uint64_t first = at.bytes >> bits_;
    const HostClusters clusters{first, ((length - 1) >> bits_) + 1};
    if (!is_aligned(at.bytes, uint64_t{1} << bits_)) return refuse(name + ": not a multiple of the cluster size");
    /* The last cluster of the container need not be whole. */
    const uint64_t end = ((container_.size() - 1) >> bits_) + 1;
    if (!range_fits(first, clusters.count, end)) {
      return refuse(name + ": behind the end of the container (" + hex(container_.size()) + ")");
    }
    if (++structures_ > structures_max) {
      return refuse("the image has more than " + std::to_string(structures_max) + " L2 tables and refcount blocks");
    }
    if (const auto other = writer_.metadata_.find(clusters)) return refuse(name + ": overlaps the " + name_of(*other));
    writer_.metadata_.add(clusters, part);
    return ok();
  }

  Status add_refcount_blocks() {
    for (uint64_t i = 0; i < writer_.refcounts_.blocks(); ++i) {
      const HostOffset at = writer_.refcounts_.block_at(i);
      if (at.bytes == 0) continue;
      if (Status s = add(Qcow2Part::refcount_block, at, uint64_t{1} << bits_); !s) return s;
    }
    return ok();
  }

  Status add_snapshots(const Qcow2Header& h) {
    auto snapshots = list_qcow2_snapshots(container_, h);
    if (!snapshots) return propagate(snapshots);
    if (Status s = add(Qcow2Part::snapshot_table, h.snapshots_offset, snapshots->table_bytes); !s) return s;
    for (const Qcow2Snapshot& snapshot : snapshots->snapshots) {
      const uint64_t bytes = uint64_t{snapshot.l1_entries} * sizeof(be64);
      if (Status s = add(Qcow2Part::snapshot_l1_table, snapshot.l1_offset, bytes); !s) return s;
    }
    return ok();
  }

  Status add_l2_tables(const Qcow2Header& h) {
    for (uint64_t i = 0; i < writer_.map_.l1_entries(); ++i) {
      if (Status s = add_l2_table(writer_.map_.l1_entry(i)); !s) return s;
    }
    /* What the L1 table holds behind the disk leads to tables as well. */
    std::vector<be64> entries(4096);
    for (uint64_t i = writer_.map_.l1_entries(); i < h.l1_entries; i += entries.size()) {
      entries.resize(static_cast<size_t>(std::min<uint64_t>(entries.size(), h.l1_entries - i)));
      const auto bytes = std::as_writable_bytes(std::span(entries));
      if (Status s = read_present(container_, bytes, h.l1_offset.bytes + i * sizeof(be64), "L1 table"); !s) return s;
      for (const uint64_t entry : entries) {
        if (Status s = add_l2_table(entry); !s) return s;
      }
    }
    return ok();
  }

  /* One that the entry says is ours alone has to be. */
  Status add_l2_table(uint64_t entry) {
    const uint64_t at = entry & qcow2_offset_mask;
    if (at == 0) return ok();
    if (Status s = add(Qcow2Part::l2_table, {at}, uint64_t{1} << bits_); !s) return s;
    if ((entry & qcow2_copied) == 0) return ok();
    auto count = writer_.refcount(lock_, container_, at >> bits_);
    if (!count) return propagate(count);
    return *count == 1 ? ok() : contradiction(at >> bits_, Qcow2Part::l2_table, *count);
  }

  /* Nobody else may refer to what we change in place. */
  Status check_refcounts() {
    Status s = writer_.metadata_.for_each([&](HostClusters clusters, Qcow2Part part) -> Status {
      if (shutting_down()) return given_up();
      for (uint64_t i = 0; i < clusters.count; ++i) {
        auto count = writer_.refcount(lock_, container_, clusters.first + i);
        if (!count) return propagate(count);
        const bool may_be_shared = part == Qcow2Part::l2_table;
        if (*count == 0 || (*count != 1 && !may_be_shared)) return contradiction(clusters.first + i, part, *count);
      }
      return ok();
    });
    return s;
  }

  /* What is known of them stays in memory as long as the image is open, and is counted for all images together. */
  Status take_room() {
    auto room = writer_.map_.cache().room_for_table(structures_ * Qcow2Metadata::entry_bytes);
    if (!room) return propagate(room, "what has to be known of the L2 tables");
    writer_.metadata_room_.emplace(std::move(*room));
    return ok();
  }

  Status contradiction(uint64_t cluster, Qcow2Part part, uint64_t count) const {
    return refuse(std::string(name_of(part)) + " at " + hex(cluster << bits_) + " has refcount " +
                  std::to_string(count));
  }

  Qcow2Writer& writer_;
  BlockDevice& container_;
  unsigned bits_;
  Lock lock_;
  uint64_t structures_ = 0;
};

Result<std::unique_ptr<Qcow2Writer>> Qcow2Writer::open(BlockDevice& container, const Qcow2Header& header, Qcow2Map& map,
                                                       BlockDevice* data_file, uint64_t tables_bytes_max) {
  if (header.has(qcow2_dirty_bit)) return refuse("the image is marked dirty (incompatible bit 0)");
  if (header.has(qcow2_corrupt_bit)) return refuse("the image is marked corrupt (incompatible bit 1)");
  if (map.l1_entries() < *qcow2_l1_entries_needed(header, header.size)) {
    return refuse("the L1 table goes on behind the end of the container");
  }
  if (Status s = check_data_file(header, data_file); !s) return propagate(s);
  std::vector<be64> table((header.refcount_table_clusters << header.cluster_bits) / sizeof(be64));
  if (Status s = read_present(container, std::as_writable_bytes(std::span(table)), header.refcount_table_offset.bytes);
      !s) {
    return propagate(s, "refcount table");
  }
  std::unique_ptr<Qcow2Writer> writer(
      new Qcow2Writer(header, map, Qcow2Refcounts(header, table), data_file, tables_bytes_max));
  if (Status s = Checks(*writer, container).run(header); !s) return propagate(s);
  return writer;
}

/* An entry that leads to a free cluster has to be found before that cluster is given to somebody else. */
Status Qcow2Writer::check_small_tables(BlockDevice& container) {
  constexpr uint64_t bytes_max = 8 << 20; /* a disk of 64 GiB in clusters of 64 KiB */
  const Qcow2Geometry& g = geometry();
  std::vector<uint64_t> used;
  for (uint64_t i = 0; i < map_.l1_entries(); ++i) {
    if ((map_.l1_entry(i) & qcow2_offset_mask) == 0) continue;
    if ((used.size() + 1) << cluster_bits_ > bytes_max) return ok();
    used.push_back(i);
  }
  const uint64_t guest_bytes_of_slice = entries_per_slice(g) << cluster_bits_;
  for (const uint64_t l1_index : used) {
    const uint64_t first = l1_index << (g.l2_bits() + cluster_bits_);
    const uint64_t slices = g.cluster_size() / slice_bytes(g);
    for (uint64_t slice = 0; slice < slices; ++slice) {
      const HostOffset table{map_.l1_entry(l1_index) & qcow2_offset_mask};
      auto bytes = slice_in_use(container, table, L2Place({first + slice * guest_bytes_of_slice}, g));
      if (!bytes) return propagate(bytes);
    }
  }
  return ok();
}

/* Whoever writes in place, or frees, goes by these entries. */
Status Qcow2Writer::check_slice(BlockDevice& container, const L2Place& place, const std::byte* slice) {
  const uint32_t bit = uint32_t{1} << place.slice;
  if ((checked_[place.l1_index].load(std::memory_order_acquire) & bit) != 0) return ok();
  Lock lock(mutex_);
  for (uint64_t i = 0; i < entries_per_slice(geometry()); ++i) {
    if (Status s = check_entry(lock, container, slice, i); !s) return s;
  }
  checked_[place.l1_index].fetch_or(bit);
  return ok();
}

HostClusters clusters_of(uint64_t word, const Qcow2Geometry& g) noexcept {
  if (g.data_file) return {};
  if ((word & qcow2_compressed) != 0) {
    const Compressed stream = decode_compressed(word, g.cluster_bits);
    const uint64_t first = stream.at.bytes >> g.cluster_bits;
    const uint64_t last = (stream.at.bytes + stream.bytes_max - 1) >> g.cluster_bits;
    return {first, last - first + 1};
  }
  if ((word & qcow2_offset_mask) == 0) return {};
  return {(word & qcow2_offset_mask) >> g.cluster_bits, 1};
}

HostReference reference_of(uint64_t word, const Qcow2Geometry& g) noexcept {
  return {clusters_of(word, g), (word & (qcow2_copied | qcow2_compressed)) != 0};
}

Status Qcow2Writer::check_entry(Lock& lock, BlockDevice& container, const std::byte* slice, uint64_t index) {
  const Qcow2Geometry& g = geometry();
  for (;;) {
    const uint64_t word = load_l2_entry(slice, index, g).word;
    const HostClusters clusters = clusters_of(word, g);
    if (clusters.count == 0) return ok();
    const std::string where = "the L2 entry " + hex(word) + " leads to ";
    if ((clusters.first + clusters.count - 1) << cluster_bits_ >= container.size()) {
      return give_up(where + "behind the end of the container");
    }
    if (const auto part = metadata_.find(clusters)) return give_up(where + "the " + name_of(*part));
    bool waited = false;
    for (uint64_t i = 0; i < clusters.count && !waited; ++i) {
      const uint64_t block = refcounts_.block_of(clusters.first + i);
      waited = !refcounts_.is_loaded(block);
      if (waited) {
        if (Status s = load_block(lock, container, block); !s) return s;
        break;
      }
      const uint64_t count = refcounts_.get(clusters.first + i);
      if (count == 0) return give_up(where + "a cluster of refcount 0");
      if (count != 1 && (word & qcow2_copied) != 0) return give_up(where + "a cluster that others refer to as well");
    }
    if (!waited) return ok(); /* else it may have changed meanwhile */
  }
}

} // namespace qluks
