/* SPDX-License-Identifier: BSD-3-Clause */
/* Tables in memory become stable: the order that makes a journal unnecessary.
 *
 *      data, copied neighbours         when the client wrote them; an external data file is flushed first
 *      1  refcount blocks, whole new L2 tables, a whole new refcount table        ── flush
 *      2  links to new refcount blocks: refcount table entries, or the header     ── flush      seldom
 *      3  L2 entries, L1 entries                                                  ── flush
 *      4  refcounts of what nothing stable leads to any more
 *
 * What is written in a step was copied, under the lock, before step 1: an entry that is published later waits for the
 * next time, since its data may not be stable.  A new L2 table goes down whole in step 1, since nothing leads to it
 * before step 3.  Step 1 needs no flush if no entry leads to anything new, and steps without work are left out: a
 * client's flush costs one to three flushes below.
 *
 * Step 4 lowers refcounts of clusters that step 3 of this or an earlier time has taken out of use, once no request can
 * be under way to them.  Storage is told that it may forget a cluster before its refcount becomes 0: a hole that is
 * punched late would hit whoever has it next.  These refcounts need no flush: if they are lost, the clusters are.
 */
#include <algorithm>
#include <cerrno>

#include "base/checked.hpp"
#include "base/wait.hpp"
#include "formats/qcow2/writer.hpp"
#include "formats/text.hpp"

namespace qluks {

struct Qcow2Writer::WriteBack {
  std::vector<TableWrite> contents{}; /* step 1 */
  std::vector<TableWrite> links{};    /* step 2 */
  std::vector<TableWrite> entries{};  /* step 3 */
  std::vector<HostReference> released{};
  bool exposes = false;
  std::map<uint64_t, ChangedSlice> slices{}; /* pinned until they are written */
};

namespace {

/* Tables that are neighbours are one write. */
void join(std::vector<TableWrite>& writes) {
  if (writes.size() < 2) return;
  std::sort(writes.begin(), writes.end(), [](const auto& a, const auto& b) { return a.at < b.at; });
  size_t last = 0;
  for (size_t i = 1; i < writes.size(); ++i) {
    if (writes[last].at.bytes + writes[last].bytes.size() == writes[i].at.bytes) {
      writes[last].bytes.insert(writes[last].bytes.end(), writes[i].bytes.begin(), writes[i].bytes.end());
    } else if (++last != i) {
      writes[last] = std::move(writes[i]);
    }
  }
  writes.resize(last + 1);
}

Status write_all(BlockDevice& container, const std::vector<TableWrite>& writes) {
  for (const TableWrite& write : writes) {
    if (Status s = container.write(write.bytes, write.at.bytes, Fua::no); !s) return s;
  }
  return ok();
}

/* Whoever failed has said why; the clusters are free all the same. */
void trim_all(BlockDevice& container, const std::vector<HostClusters>& freed, unsigned cluster_bits) {
  for (const HostClusters& clusters : freed) {
    const uint64_t at = clusters.first << cluster_bits;
    const uint64_t end = std::min(container.size(), (clusters.first + clusters.count) << cluster_bits);
    if (at >= end) continue;
    const Status trimmed = container.trim(at, end - at, Fua::no);
    static_cast<void>(trimmed);
  }
}

} // namespace

Status Qcow2Writer::flush_below(BlockDevice& container) {
  return container.write_abilities().flush ? container.flush() : ok();
}

Status Qcow2Writer::flush_data() const {
  return data_file_ != nullptr && data_file_->write_abilities().flush ? data_file_->flush() : ok();
}

Status Qcow2Writer::flush(BlockDevice& container) {
  if (Status s = check_alive(); !s) return s;
  Lock lock(mutex_);
  const uint64_t ticket = ++flushes_asked_;
  /* Also when the process has to end: what was acknowledged is not given up because another one is just writing back.
   */
  changed_.wait(lock, [&] { return !writing_back_ || flushes_done_ >= ticket; });
  if (Status s = check_alive(); !s) return s;
  if (flushes_done_ >= ticket) return ok();
  return write_back(lock, container);
}

/* Whoever asks while this runs waits, and the next one does it for all of them. */
Status Qcow2Writer::write_back(Lock& lock, BlockDevice& container) {
  /* Also when memory runs out half-way: what is in memory and what is stored may differ from then on.  Who reads still
   * gets what was acknowledged, so these tables stay in memory. */
  struct Turn {
    Qcow2Writer& writer;
    Lock& lock;
    WriteBack& work;
    bool succeeded = false;
    ~Turn() {
      if (!lock.owns_lock()) lock.lock();
      writer.writing_back_ = false;
      if (!succeeded) {
        writer.ended_ = true;
        writer.slices_.merge(work.slices);
      }
      writer.changed_.notify_all();
    }
  };
  WriteBack work = collect();
  const uint64_t covers = flushes_asked_;
  writing_back_ = true;
  Turn turn{*this, lock, work};
  leaving_.reserve(leaving_.size() + work.released.size());
  collected(work);
  lock.unlock();
  Status s = write(container, work);
  lock.lock();
  if (!s) {
    give_up("its tables could not be written");
    return s;
  }
  for (const HostReference& reference : work.released) leaving_.push_back({reference, quiescence_.epoch()});
  flushes_done_ = covers;
  s = reclaim(lock, container);
  turn.succeeded = static_cast<bool>(s);
  return s;
}

TableWrite Qcow2Writer::header_write() const {
  const HostClusters table = refcounts_.table_clusters();
  struct {
    be64 offset;
    be32 clusters;
  } const fields{table.first << cluster_bits_, static_cast<uint32_t>(table.count)};
  static_assert(sizeof fields == 12);
  const auto bytes = std::as_bytes(std::span(&fields, 1));
  return {{offsetof(Qcow2HeaderOnDisk, refcount_table_offset)}, {bytes.begin(), bytes.end()}};
}

Qcow2Writer::WriteBack Qcow2Writer::collect() const {
  WriteBack work;
  refcounts_.collect(work.contents, work.links);
  if (refcounts_.has_moved()) work.links.push_back(header_write());
  for (const auto& [at, slice] : slices_) {
    const bool is_new = new_tables_.contains(align_down(at, geometry().cluster_size()));
    for (size_t i = 0; i < sectors_per_slice; ++i) {
      if (!slice.sectors.test(i)) continue;
      const size_t first = i;
      while (i < sectors_per_slice && slice.sectors.test(i)) ++i;
      const std::byte* bytes = slice.pin.bytes();
      const size_t end = std::min<size_t>(i * sector_bytes, slice_bytes(geometry()));
      (is_new ? work.contents : work.entries)
          .push_back({{at + first * sector_bytes}, {bytes + first * sector_bytes, bytes + end}});
    }
  }
  for (const uint64_t sector : l1_sectors_) {
    const uint64_t first = sector * sector_bytes;
    const uint64_t end = std::min(first + sector_bytes, map_.l1_entries() * sizeof(be64));
    work.entries.push_back({{header_.l1_offset.bytes + first}, {map_.l1_bytes() + first, map_.l1_bytes() + end}});
  }
  join(work.contents);
  join(work.entries);
  work.released = released_;
  work.exposes = exposes_ || !new_tables_.empty() || refcounts_.links_changed();
  return work;
}

void Qcow2Writer::collected(WriteBack& work) noexcept {
  refcounts_.collected();
  work.slices.swap(slices_);
  new_tables_.clear();
  l1_sectors_.clear();
  released_.clear();
  exposes_ = false;
  stable_ = false;
  too_much_ = false;
}

Status Qcow2Writer::write(BlockDevice& container, const WriteBack& work) const {
  if (Status s = flush_data(); !s) return s;
  if (Status s = write_all(container, work.contents); !s) return s;
  if (work.exposes || work.entries.empty()) {
    if (Status s = flush_below(container); !s) return s;
  }
  if (!work.links.empty()) {
    if (Status s = write_all(container, work.links); !s) return s;
    if (Status s = flush_below(container); !s) return s;
  }
  if (work.entries.empty()) return ok();
  if (Status s = write_all(container, work.entries); !s) return s;
  return flush_below(container);
}

Status Qcow2Writer::reclaim(Lock& lock, BlockDevice& container) {
  const uint64_t now = quiescence_.advance();
  const auto has_left = [&](const Released& r) { return Quiescence::has_passed(r.epoch, now); };
  std::vector<HostReference> gone;
  for (const Released& r : leaving_) {
    if (has_left(r)) gone.push_back(r.reference);
  }
  std::erase_if(leaving_, has_left);
  Status s = gone.empty() ? ok() : reclaim(lock, container, gone);
  const bool nothing_left = slices_.empty() && l1_sectors_.empty() && !refcounts_.links_changed();
  if (s && nothing_left) stable_ = true;
  return s;
}

/* One reference less to each of them. */
Status Qcow2Writer::reclaim(Lock& lock, BlockDevice& container, const std::vector<HostReference>& released) {
  auto freed = count_down(lock, container, released);
  if (!freed) return propagate(freed);
  if (container.write_abilities().trim) {
    lock.unlock();
    trim_all(container, *freed, cluster_bits_);
    lock.lock();
  }
  if (Status s = set_free(lock, container, *freed); !s) return s;
  if (refcounts_.links_changed()) return ok(); /* new blocks go with the next flush */
  return write_refcounts(lock, container);
}

/* Which of them nobody has any more: those are still counted once. */
Result<std::vector<HostClusters>> Qcow2Writer::count_down(Lock& lock, BlockDevice& container,
                                                          const std::vector<HostReference>& released) {
  std::vector<HostClusters> freed;
  for (const auto& [clusters, may_be_last] : released) {
    for (uint64_t cluster = clusters.first; cluster < clusters.first + clusters.count; ++cluster) {
      auto count = refcount(lock, container, cluster);
      if (!count) return propagate(count);
      if (*count == 0) {
        return give_up("the cluster at " + hex(cluster << cluster_bits_) + " was in use with refcount 0");
      }
      if (*count > 1) {
        refcounts_.set(cluster, *count - 1);
      } else if (!may_be_last) {
        continue; /* lost at worst, and not taken from who has it */
      } else if (!freed.empty() && freed.back().first + freed.back().count == cluster) {
        ++freed.back().count;
      } else {
        freed.push_back({cluster, 1});
      }
    }
  }
  return freed;
}

Status Qcow2Writer::set_free(Lock& lock, BlockDevice& container, const std::vector<HostClusters>& freed) {
  for (const HostClusters& clusters : freed) {
    metadata_.remove(clusters);
    used(clusters);
    for (uint64_t i = 0; i < clusters.count; ++i) {
      auto count = refcount(lock, container, clusters.first + i);
      if (!count) return propagate(count);
      refcounts_.set(clusters.first + i, 0);
    }
  }
  return ok();
}

/* The blocks that have changed, all of which the stored table has. */
Status Qcow2Writer::write_refcounts(Lock& lock, BlockDevice& container) {
  std::vector<TableWrite> blocks;
  std::vector<TableWrite> none;
  refcounts_.collect(blocks, none);
  refcounts_.collected();
  join(blocks);
  lock.unlock();
  Status s = write_all(container, blocks);
  lock.lock();
  return s;
}

} // namespace qluks
