/* SPDX-License-Identifier: BSD-3-Clause */
/* What all connections that write an image share: its tables as they will be, and the way they become stable.
 *
 *      connection:  GuestWriter ─claim──▶ clusters that are free now, counted from here on
 *                               ─write──▶ data and what is copied around it        (no lock, its own way down)
 *                               ─publish▶ L2 entries that lead there: from now on others see it
 *                               ─flush──▶ the tables are written back in their order (write_back.cpp)
 *
 * Promises:
 *   - What is stable never leads to what is not: a power cut leaves nothing worse than clusters that nobody uses.
 *   - A cluster is given out only if its refcount is 0 and it holds no known metadata, and one that was freed only
 *     when the table that does not lead there any more is stable and no request is under way that found it.
 *   - A write that failed has changed no table.  A write-back that failed, or a contradiction in the image, ends all
 *     writing of this image for good; reads go on.
 *
 * One mutex guards all of it; it is never held while storage is waited for.  Everything that waits takes the device of
 * the connection that waits.
 */
#ifndef QLUKS_FORMATS_QCOW2_WRITER_HPP
#define QLUKS_FORMATS_QCOW2_WRITER_HPP

#include <atomic>
#include <bitset>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <vector>

#include "base/range_lock.hpp"
#include "formats/qcow2/map.hpp"
#include "formats/qcow2/overlap.hpp"
#include "formats/qcow2/quiescence.hpp"
#include "formats/qcow2/refcounts.hpp"

namespace qluks {

/* The clusters of the container that an L2 entry refers to: none, one, or those that a compressed stream touches.  An
 * external data file has no refcounts: each of its clusters is for one cluster of the guest disk. */
HostClusters clusters_of(uint64_t word, const Qcow2Geometry& geometry) noexcept;

/* The same, and whether the entry says that nobody else refers to them.  One that does not is about to be counted
 * down, but never to 0: if its refcount is 1, that one reference is somebody else's, or the image contradicts itself.
 * Compressed clusters never say so, and are counted alone. */
struct HostReference {
  HostClusters clusters;
  bool may_be_last = false;
};
HostReference reference_of(uint64_t word, const Qcow2Geometry& geometry) noexcept;

class Qcow2Writer {
 public:
  /* Reads and checks what has to be known before the first change.  An error says why this image is not written.
   * Borrows the map, whose tables it changes, and the external data file if there is one.  `tables_bytes_max`:
   * changed tables in memory beyond it are written back. */
  static Result<std::unique_ptr<Qcow2Writer>> open(BlockDevice& container, const Qcow2Header& header, Qcow2Map& map,
                                                   BlockDevice* data_file, uint64_t tables_bytes_max);

  /* May this connection write?  Where connections do not see each other's bytes at once, only one at a time may. */
  bool admit(const BlockDevice& container) noexcept;
  void leave() noexcept;

  const Qcow2Geometry& geometry() const noexcept { return map_.geometry(); }
  Quiescence& quiescence() noexcept { return quiescence_; }

  /* Whoever changes L2 entries of these guest bytes, whole clusters. */
  RangeLock& clusters() noexcept { return cluster_locks_; }
  /* Whoever writes encrypted sectors in place: a part of one is read, changed and written. */
  RangeLock& sectors() noexcept { return sector_locks_; }

  /* Before each change: fails once writing has ended, and makes the image ready for the first one. */
  Status begin(BlockDevice& container);

  /* Free clusters, neighbours, at least one and as many of `wanted` as there are.  They are free again when the claim
   * goes, unless it was kept. */
  class Claim;
  Result<Claim> claim(BlockDevice& container, uint64_t wanted);

  /* Does storage hold zeroes there?  Then they need not be written.  It is asked for long ranges, and only of clusters
   * that nobody used since the image was opened; it is believed, as it is when it is read. */
  bool is_blank(BlockDevice& container, const Claim& claim);

  /* The L2 table for that part of the guest disk, made or copied if it must be: one that only we refer to. */
  Result<HostOffset> table_for_writing(BlockDevice& container, uint64_t l1_index);

  /* A slice of such a table, checked when it is first used. */
  Result<Qcow2Cache::Pin> slice_for_writing(BlockDevice& container, HostOffset table, const L2Place& place);

  /* The same for who only looks at it. */
  Result<Qcow2Cache::Bytes> slice_in_use(BlockDevice& container, HostOffset table, const L2Place& place);

  /* Entries of one slice, from `index` on, and what they no longer refer to. */
  struct Change {
    HostOffset slice;
    uint64_t index = 0;
    std::vector<L2Entry> entries{};
    std::vector<HostReference> released{};
    bool exposes = false; /* they lead to clusters that were written for them */
  };
  void publish(Change change, Qcow2Cache::Pin pin);

  /* Would these bytes be written over metadata?  Then writing ends. */
  Status check_data(HostOffset at, uint64_t length);

  /* All that was written and published before is stable. */
  Status flush(BlockDevice& container);

  /* Is everything stable that was published?  Then a write in place needs no more than to be stable itself. */
  bool is_stable() const noexcept { return stable_.load(std::memory_order_acquire); }
  bool should_write_back() const noexcept { return too_much_.load(std::memory_order_relaxed); }

  /* The image contradicts itself: say so once, and write no more. */
  tl::unexpected<Error> give_up(const std::string& why);

 private:
  using Lock = std::unique_lock<std::mutex>;
  class Checks;
  struct WriteBack;

  static constexpr size_t sectors_per_slice = qcow2_slice_bytes_max / sector_bytes;
  struct ChangedSlice {
    Qcow2Cache::Pin pin{};
    std::bitset<sectors_per_slice> sectors{};
  };
  struct Released {
    HostReference reference;
    uint64_t epoch = 0;
  };

  Qcow2Writer(const Qcow2Header& header, Qcow2Map& map, Qcow2Refcounts refcounts, BlockDevice* data_file,
              uint64_t tables_bytes_max);

  Status check_alive() const;
  Status prepare_header(BlockDevice& container) const;
  static Status flush_below(BlockDevice& container);
  Status flush_data() const;

  /* With the lock; those that take it by reference let go of it while they wait. */
  Status load_block(Lock& lock, BlockDevice& container, uint64_t block);
  Result<uint64_t> refcount(Lock& lock, BlockDevice& container, uint64_t cluster);
  Status make_block(uint64_t block, uint64_t limit);
  Status grow_table(uint64_t limit);
  Status check_unused(HostClusters clusters);
  tl::unexpected<Error> no_room(const BlockDevice& container) const;
  void release(const HostReference& reference);
  void mark(ChangedSlice& slice, uint64_t first_byte, uint64_t end_byte) noexcept;
  void not_stable() noexcept;
  void unclaim(HostClusters clusters) noexcept;
  void used(HostClusters clusters) noexcept;
  Claim make_claim(HostClusters clusters) noexcept;

  Result<std::vector<Qcow2Cache::Pin>> fill_table(BlockDevice& container, HostOffset old_table, HostOffset table);
  void enter_table(uint64_t l1_index, HostOffset old_table, HostOffset table, std::vector<Qcow2Cache::Pin> slices);

  Status check_small_tables(BlockDevice& container);
  Status check_slice(BlockDevice& container, const L2Place& place, const std::byte* slice);
  Status check_entry(Lock& lock, BlockDevice& container, const std::byte* slice, uint64_t index);

  /* write_back.cpp */
  Status write_back(Lock& lock, BlockDevice& container);
  WriteBack collect() const;
  void collected(WriteBack& work) noexcept;
  Status write(BlockDevice& container, const WriteBack& work) const;
  TableWrite header_write() const;
  Status reclaim(Lock& lock, BlockDevice& container);
  Status reclaim(Lock& lock, BlockDevice& container, const std::vector<HostReference>& released);
  Result<std::vector<HostClusters>> count_down(Lock& lock, BlockDevice& container,
                                               const std::vector<HostReference>& released);
  Status set_free(Lock& lock, BlockDevice& container, const std::vector<HostClusters>& freed);
  Status write_refcounts(Lock& lock, BlockDevice& container);

  const Qcow2Header header_;
  Qcow2Map& map_;
  BlockDevice* const data_file_;
  const unsigned cluster_bits_;
  const uint64_t tables_bytes_max_;
  Quiescence quiescence_;
  RangeLock cluster_locks_;
  RangeLock sector_locks_;
  RangeLock table_locks_; /* by L1 index */
  std::optional<Qcow2Cache::TableRoom> metadata_room_;
  Qcow2Metadata metadata_;
  std::unique_ptr<std::atomic<uint32_t>[]> checked_; /* by L1 index: a bit for each slice */

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  Qcow2Refcounts refcounts_;
  std::set<uint64_t> loading_; /* refcount blocks */
  std::map<uint64_t, ChangedSlice> slices_;
  std::set<uint64_t> new_tables_; /* L2 tables that nothing stable refers to */
  std::set<uint64_t> l1_sectors_;
  std::vector<HostReference> released_; /* by what is published */
  std::vector<Released> leaving_;       /* by what is stable, but someone may still be there */
  unsigned writers_ = 0;                /* connections */
  uint64_t used_end_ = 0;               /* from this cluster on none was taken or given back since it was opened */
  struct {
    uint64_t begin = 0, end = 0; /* bytes */
    bool zero = false;
  } storage_said_;
  bool exposes_ = false;
  bool preparing_ = false;
  bool writing_back_ = false;
  uint64_t flushes_asked_ = 0;
  uint64_t flushes_done_ = 0;

  std::atomic<bool> prepared_ = false;
  std::atomic<bool> ended_{false};
  std::atomic<bool> stable_{true};
  std::atomic<bool> too_much_{false};
};

class Qcow2Writer::Claim {
 public:
  Claim(Qcow2Writer& writer, HostClusters clusters, bool was_never_used) noexcept
      : writer_(&writer), clusters_(clusters), was_never_used_(was_never_used) {}
  Claim(Claim&& other) noexcept
      : writer_(other.writer_), clusters_(other.clusters_), was_never_used_(other.was_never_used_) {
    other.writer_ = nullptr;
  }
  Claim& operator=(Claim&&) = delete;
  ~Claim() {
    if (writer_ != nullptr) writer_->unclaim(clusters_);
  }

  HostClusters clusters() const noexcept { return clusters_; }
  bool was_never_used() const noexcept { return was_never_used_; }
  void keep() noexcept { writer_ = nullptr; }

 private:
  Qcow2Writer* writer_;
  HostClusters clusters_;
  bool was_never_used_;
};

} // namespace qluks

#endif
