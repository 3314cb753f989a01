/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/qcow2/writer.hpp"

#include <algorithm>
#include <cerrno>

#include "base/log.hpp"
#include "base/wait.hpp"
#include "base/window.hpp"
#include "formats/text.hpp"

namespace qluks {

namespace {

constexpr uint64_t autoclear_kept = uint64_t{1} << qcow2_raw_data_file_bit;

std::string bytes_text(uint64_t bytes) { return std::to_string(bytes) + " bytes"; }

/* Without the lock for as long as it lives; what has to happen afterwards happens in any case. */
template <class After>
class Unlocked {
 public:
  Unlocked(std::unique_lock<std::mutex>& lock, After after) : lock_(lock), after_(std::move(after)) { lock_.unlock(); }
  Unlocked(const Unlocked&) = delete;
  Unlocked& operator=(const Unlocked&) = delete;
  ~Unlocked() {
    lock_.lock();
    after_();
  }

 private:
  std::unique_lock<std::mutex>& lock_;
  After after_;
};

} // namespace

Qcow2Writer::Qcow2Writer(const Qcow2Header& header, Qcow2Map& map, Qcow2Refcounts refcounts, BlockDevice* data_file,
                         uint64_t tables_bytes_max)
    : header_(header),
      map_(map),
      data_file_(data_file),
      cluster_bits_(header.cluster_bits),
      tables_bytes_max_(tables_bytes_max),
      checked_(new std::atomic<uint32_t>[map.l1_entries()] {}),
      refcounts_(std::move(refcounts)) {}

tl::unexpected<Error> Qcow2Writer::give_up(const std::string& why) {
  if (!ended_.exchange(true)) {
    log_warning("qcow2: " + why + ": nothing more is written to this image; see what qemu-img check says");
  }
  return fail(Errc::corrupt, "qcow2: " + why, EIO);
}

Status Qcow2Writer::check_alive() const {
  if (!ended_.load(std::memory_order_relaxed)) return ok();
  return fail(Errc::io, "qcow2: nothing more is written to this image since it failed", EIO);
}

bool Qcow2Writer::admit(const BlockDevice& container) noexcept {
  const Lock lock(mutex_);
  if (writers_ != 0 && !container.write_abilities().multi_conn) return false;
  ++writers_;
  return true;
}

void Qcow2Writer::leave() noexcept {
  const Lock lock(mutex_);
  --writers_;
}

/* Bits that a writer must clear unless it keeps what they promise; nothing else of the header changes.  That a data
 * file can be read as it is stays true: it is given zeroes wherever the disk is. */
Status Qcow2Writer::prepare_header(BlockDevice& container) const {
  if (header_.has_autoclear(qcow2_bitmaps_bit)) {
    log_warning("qcow2: the bitmaps of the image are not kept up to date, and are no longer valid");
  }
  const be64 kept = header_.autoclear & autoclear_kept;
  const auto bytes = std::as_bytes(std::span(&kept, 1));
  if (Status s = container.write(bytes, offsetof(Qcow2HeaderOnDisk, autoclear_features), Fua::no); !s) return s;
  return flush_below(container);
}

Status Qcow2Writer::begin(BlockDevice& container) {
  if (Status s = check_alive(); !s) return s;
  if (prepared_.load(std::memory_order_acquire)) return ok();
  Lock lock(mutex_);
  if (Status s = wait_until(changed_, lock, [&] { return !preparing_; }); !s) return s;
  if (prepared_) return ok();
  preparing_ = true;
  const Unlocked prepared(lock, [&] {
    preparing_ = false;
    changed_.notify_all();
  });
  Status s = check_small_tables(container);
  if (s && (header_.autoclear & ~autoclear_kept) != 0) s = prepare_header(container);
  if (s) prepared_ = true;
  return s;
}

Status Qcow2Writer::load_block(Lock& lock, BlockDevice& container, uint64_t block) {
  if (loading_.contains(block)) {
    return wait_until(changed_, lock, [&] { return !loading_.contains(block); });
  }
  const size_t length = size_t{1} << cluster_bits_;
  PageBuffer bytes = make_page_buffer(length);
  const HostOffset at = refcounts_.block_at(block);
  loading_.insert(block);
  Status s = [&] {
    const Unlocked loaded(lock, [&] {
      loading_.erase(block);
      changed_.notify_all();
    });
    return read_present(container, {bytes.get(), length}, at.bytes);
  }();
  if (!s) return propagate(s, "refcount block at " + hex(at.bytes));
  if (!writing_back_) refcounts_.shrink();
  refcounts_.insert(block, std::move(bytes));
  return ok();
}

Result<uint64_t> Qcow2Writer::refcount(Lock& lock, BlockDevice& container, uint64_t cluster) {
  while (!refcounts_.is_loaded(refcounts_.block_of(cluster))) {
    if (Status s = load_block(lock, container, refcounts_.block_of(cluster)); !s) return propagate(s);
  }
  return refcounts_.get(cluster);
}

/* What is free by its refcount must not hold anything that we know. */
Status Qcow2Writer::check_unused(HostClusters clusters) {
  const auto part = metadata_.find(clusters);
  if (!part) return ok();
  return give_up("the cluster at " + hex(clusters.first << cluster_bits_) + " has refcount 0 and holds the " +
                 name_of(*part));
}

Status Qcow2Writer::make_block(uint64_t block, uint64_t limit) {
  const HostClusters clusters = refcounts_.new_block_clusters(block);
  if (clusters.first >= limit) return fail(Errc::out_of_bounds, "", ENOSPC);
  if (Status s = check_unused(clusters); !s) return s;
  refcounts_.make_block(block);
  used(clusters);
  metadata_.add(clusters, Qcow2Part::refcount_block);
  return ok();
}

Status Qcow2Writer::grow_table(uint64_t limit) {
  auto clusters = refcounts_.longer_table_clusters(header_);
  if (!clusters) return propagate(clusters);
  if (clusters->first + clusters->count > limit) return fail(Errc::out_of_bounds, "", ENOSPC);
  if (Status s = check_unused(*clusters); !s) return s;
  const HostClusters old = refcounts_.table_clusters();
  try {
    refcounts_.grow_table(*clusters);
    used(*clusters);
  } catch (...) {
    ended_ = true; /* half of a table is worse than none */
    throw;
  }
  const HostClusters table = refcounts_.table_clusters();
  metadata_.add({clusters->first, table.first - clusters->first}, Qcow2Part::refcount_block);
  metadata_.add(table, Qcow2Part::refcount_table);
  release({old, true});
  not_stable();
  return ok();
}

tl::unexpected<Error> Qcow2Writer::no_room(const BlockDevice& container) const {
  const uint64_t end = ((container.size() >> cluster_bits_) + 1) << cluster_bits_;
  return fail(Errc::out_of_bounds,
              "no room in the container: it has " + bytes_text(container.size()) +
                  ", and one more cluster needs at least " + bytes_text(end) +
                  ": use qluks-grow=FILE, or make it longer while nothing serves it "
                  "(truncate -s +SIZE FILE)",
              ENOSPC);
}

Result<Qcow2Writer::Claim> Qcow2Writer::claim(BlockDevice& container, uint64_t wanted) {
  using Next = Qcow2Refcounts::Search::Next;
  constexpr unsigned offset_bits = 56;
  const uint64_t limit = std::min(container.size(), uint64_t{1} << offset_bits) >> cluster_bits_;
  Lock lock(mutex_);
  for (bool flushed = false;;) {
    if (Status s = check_alive(); !s) return propagate(s);
    const auto search = refcounts_.find_free(wanted, limit);
    Status s = ok();
    switch (search.next) {
      case Next::take:
        if (s = check_unused(search.clusters); !s) return propagate(s);
        for (uint64_t i = 0; i < search.clusters.count; ++i) refcounts_.set(search.clusters.first + i, 1);
        return make_claim(search.clusters);
      case Next::load:
        s = load_block(lock, container, search.block);
        break;
      case Next::make_block:
        s = make_block(search.block, limit);
        break;
      case Next::grow_table:
        s = grow_table(limit);
        break;
      case Next::no_room:
        s = fail(Errc::out_of_bounds, "", ENOSPC);
        break;
    }
    if (s) continue;
    const bool is_full = s.error().code == Errc::out_of_bounds && s.error().what.empty();
    if (!is_full) return propagate(s);
    if (flushed || (released_.empty() && leaving_.empty())) return no_room(container);
    /* What was freed may be used again once that is stable. */
    lock.unlock();
    if (s = flush(container); !s) return propagate(s);
    lock.lock();
    flushed = true;
  }
}

void Qcow2Writer::used(HostClusters clusters) noexcept {
  used_end_ = std::max(used_end_, clusters.first + clusters.count);
}

Qcow2Writer::Claim Qcow2Writer::make_claim(HostClusters clusters) noexcept {
  const bool was_never_used = clusters.first >= used_end_;
  used(clusters);
  return {*this, clusters, was_never_used};
}

bool Qcow2Writer::is_blank(BlockDevice& container, const Claim& claim) {
  constexpr uint64_t asked_bytes_max = 1 << 30;
  if (!claim.was_never_used()) return false;
  const uint64_t begin = claim.clusters().first << cluster_bits_;
  const uint64_t end = begin + (claim.clusters().count << cluster_bits_);
  {
    const Lock lock(mutex_);
    if (begin >= storage_said_.begin && end <= storage_said_.end) return storage_said_.zero;
  }
  auto extent = container.extent(begin, std::min(container.size() - begin, asked_bytes_max));
  if (!extent) return false;
  const Lock lock(mutex_);
  storage_said_ = {begin, begin + extent->length, extent->zero};
  return extent->zero && end <= storage_said_.end;
}

/* Of a write that failed: nothing refers to them.  If their block is no longer in memory, they are lost until a check
 * finds them. */
void Qcow2Writer::unclaim(HostClusters clusters) noexcept {
  const Lock lock(mutex_);
  for (uint64_t i = 0; i < clusters.count; ++i) {
    const uint64_t cluster = clusters.first + i;
    if (refcounts_.is_loaded(refcounts_.block_of(cluster))) refcounts_.set(cluster, 0);
  }
}

void Qcow2Writer::release(const HostReference& reference) {
  if (reference.clusters.count == 0) return;
  if (!released_.empty()) {
    auto& [last, may_be_last] = released_.back();
    if (last.first + last.count == reference.clusters.first && may_be_last == reference.may_be_last) {
      last.count += reference.clusters.count;
      return;
    }
  }
  released_.push_back(reference);
}

void Qcow2Writer::not_stable() noexcept {
  stable_.store(false, std::memory_order_release);
  too_much_.store(slices_.size() * slice_bytes(geometry()) > tables_bytes_max_, std::memory_order_relaxed);
}

void Qcow2Writer::mark(ChangedSlice& slice, uint64_t first_byte, uint64_t end_byte) noexcept {
  for (uint64_t sector = first_byte / sector_bytes; sector * sector_bytes < end_byte; ++sector)
    slice.sectors.set(sector);
}

Result<HostOffset> Qcow2Writer::table_for_writing(BlockDevice& container, uint64_t l1_index) {
  const auto ours = [&]() -> std::optional<HostOffset> {
    const uint64_t entry = map_.l1_entry(l1_index);
    if ((entry & qcow2_copied) == 0) return std::nullopt;
    return HostOffset{entry & qcow2_offset_mask};
  };
  if (const auto table = ours()) return *table;
  auto guard = table_locks_.take(l1_index, 1);
  if (!guard) return propagate(guard);
  if (const auto table = ours()) return *table;

  const HostOffset old_table{map_.l1_entry(l1_index) & qcow2_offset_mask};
  auto claimed = claim(container, 1);
  if (!claimed) return propagate(claimed);
  const HostOffset table{claimed->clusters().first << cluster_bits_};
  auto slices = fill_table(container, old_table, table);
  if (!slices) return propagate(slices);
  enter_table(l1_index, old_table, table, std::move(*slices));
  claimed->keep();
  return table;
}

/* The old table is one that a snapshot refers to as well, so nobody changes it. */
Result<std::vector<Qcow2Cache::Pin>> Qcow2Writer::fill_table(BlockDevice& container, HostOffset old_table,
                                                             HostOffset table) {
  const size_t length = static_cast<size_t>(slice_bytes(geometry()));
  std::vector<Qcow2Cache::Pin> slices;
  for (uint64_t at = 0; at < geometry().cluster_size(); at += length) {
    PageBuffer bytes = make_page_buffer(length);
    std::fill_n(bytes.get(), length, std::byte{0});
    if (old_table.bytes != 0) {
      auto old = map_.pin_slice(container, {old_table.bytes + at});
      if (!old) return propagate(old);
      std::copy_n(old->bytes(), length, bytes.get());
    }
    slices.push_back(map_.cache().put(map_.slice_key({table.bytes + at}), std::move(bytes), length));
  }
  return slices;
}

void Qcow2Writer::enter_table(uint64_t l1_index, HostOffset old_table, HostOffset table,
                              std::vector<Qcow2Cache::Pin> slices) {
  /* All that takes memory first: then the table is in all of these or in none. */
  std::map<uint64_t, ChangedSlice> changed;
  for (size_t i = 0; i < slices.size(); ++i) {
    ChangedSlice& slice = changed[table.bytes + i * slice_bytes(geometry())];
    slice.pin = std::move(slices[i]);
    slice.sectors.set();
  }
  std::set<uint64_t> new_table{table.bytes};
  std::set<uint64_t> l1_sector{l1_index * sizeof(be64) / sector_bytes};
  const Lock lock(mutex_);
  released_.reserve(released_.size() + 1);
  metadata_.add({table.bytes >> cluster_bits_, 1}, Qcow2Part::l2_table);
  slices_.merge(changed);
  new_tables_.merge(new_table);
  l1_sectors_.merge(l1_sector);
  if (old_table.bytes != 0) release({{old_table.bytes >> cluster_bits_, 1}, false});
  if (old_table.bytes == 0) checked_[l1_index] = ~uint32_t{0};
  map_.set_l1_entry(l1_index, table.bytes | qcow2_copied);
  not_stable();
}

Result<Qcow2Cache::Pin> Qcow2Writer::slice_for_writing(BlockDevice& container, HostOffset table, const L2Place& place) {
  auto pin = map_.pin_slice(container, {table.bytes + place.slice * slice_bytes(geometry())});
  if (!pin) return propagate(pin);
  if (Status s = check_slice(container, place, pin->bytes()); !s) return propagate(s);
  return pin;
}

Result<Qcow2Cache::Bytes> Qcow2Writer::slice_in_use(BlockDevice& container, HostOffset table, const L2Place& place) {
  auto bytes = map_.slice(container, {table.bytes + place.slice * slice_bytes(geometry())});
  if (!bytes) return propagate(bytes);
  if (Status s = check_slice(container, place, bytes->get()); !s) return propagate(s);
  return bytes;
}

void Qcow2Writer::publish(Change change, Qcow2Cache::Pin pin) {
  const Lock lock(mutex_);
  released_.reserve(released_.size() + change.released.size());
  ChangedSlice& slice = slices_[change.slice.bytes];
  if (!slice.pin) slice.pin = std::move(pin);
  const Qcow2Geometry& g = geometry();
  for (size_t i = 0; i < change.entries.size(); ++i) {
    store_l2_entry(slice.pin.bytes(), change.index + i, change.entries[i], g);
  }
  mark(slice, change.index * g.l2_entry_bytes(), (change.index + change.entries.size()) * g.l2_entry_bytes());
  for (const HostReference& reference : change.released) release(reference);
  exposes_ = exposes_ || change.exposes;
  not_stable();
}

Status Qcow2Writer::check_data(HostOffset at, uint64_t length) {
  const uint64_t first = at.bytes >> cluster_bits_;
  const auto part = metadata_.find({first, ((at.bytes + length - 1) >> cluster_bits_) - first + 1});
  if (!part) return ok();
  return give_up("data of the guest disk at " + hex(at.bytes) + " would be written over the " + name_of(*part));
}

} // namespace qluks
