/* SPDX-License-Identifier: BSD-3-Clause */
/* Memory for what is dear to fetch twice: pieces of L2 tables and decompressed clusters.
 *
 *      key ──hash──▶ shard:  lock | map: key ▶ slot | list: most recently used … least | bytes
 *
 * One cache serves any number of images and all their connections.  A thread that finds nothing enters a slot that
 * is "loading", lets go of the lock and fills it; whoever wants the same slot meanwhile waits for that slot.  So a
 * lock is held for a look-up and never while storage is waited for, and what many want is fetched once.
 *
 *      loading ──filled──▶ ready ──least recently used──▶ gone, once its last reader has let go of it
 *         └────failed────▶ gone: not remembered, and each one who waited tries anew on its own way down
 *
 * The bytes of a slot do not change once it is ready, but for those of a slot that is pinned: whoever writes an image
 * changes its tables in there, entry by entry (see slice.hpp), and keeps the slot pinned until they are stable.  So
 * there is never a second copy of a table that says something else.  Loading slots count as well, so memory is bounded
 * by the limit plus what readers hold on to; a single slot beyond the limit is kept until the next one comes.  What is
 * being loaded has a budget as well, so that many threads and large clusters do not add up.
 */
#ifndef QLUKS_FORMATS_QCOW2_CACHE_HPP
#define QLUKS_FORMATS_QCOW2_CACHE_HPP

#include <atomic>
#include <functional>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "base/page_buffer.hpp"
#include "base/result.hpp"

namespace qluks {

class Qcow2Cache {
 public:
  struct Key {
    uint64_t owner; /* from new_owner(): one for each kind of thing in each image */
    uint64_t at;    /* what tells it from others of its kind, such as its host offset */
    bool operator==(const Key&) const = default;
  };

  /* Valid for as long as someone holds it. */
  using Bytes = std::shared_ptr<const std::byte[]>;
  using FillFn = std::function<Status(std::span<std::byte> dst)>;

  explicit Qcow2Cache(uint64_t bytes_max);
  ~Qcow2Cache();

  uint64_t new_owner() noexcept { return owners_.fetch_add(1, std::memory_order_relaxed); }

  /* `length` bytes under that key, the same length each time; `fill` makes them if they are not there.  `fill` runs
   * without a lock.  It may use the cache for what its image lies on, never for its own owner. */
  Result<Bytes> get(const Key& key, size_t length, const FillFn& fill);

  /* Room for tables that are in memory as long as their image is open (L1), of all images together; given back when it
   * goes. */
  class TableRoom {
   public:
    TableRoom(TableRoom&& other) noexcept : used_(std::move(other.used_)), bytes_(std::exchange(other.bytes_, 0)) {}
    TableRoom& operator=(TableRoom&&) = delete;
    ~TableRoom() {
      if (used_ != nullptr) *used_ -= bytes_;
    }

   private:
    friend class Qcow2Cache;
    TableRoom(std::shared_ptr<std::atomic<uint64_t>> used, uint64_t bytes) noexcept
        : used_(std::move(used)), bytes_(bytes) {}

    std::shared_ptr<std::atomic<uint64_t>> used_;
    uint64_t bytes_;
  };
  /* Refuses what goes beyond the limit of the cache, or 256 MiB if that is more. */
  Result<TableRoom> room_for_table(uint64_t bytes);

  /* A slot that stays, until the pin goes.  The cache outlives it. */
  class Pin;
  Result<Pin> pin(const Key& key, size_t length, const FillFn& fill);

  /* A pinned slot of these bytes, instead of whatever is under that key. */
  Pin put(const Key& key, PageBuffer bytes, size_t length);

 private:
  struct Slot;
  class Shard;
  class Loading;

  Shard& shard_of(const Key& key) noexcept;

  std::vector<std::unique_ptr<Shard>> shards_; /* a power of two */
  std::atomic<uint64_t> owners_{0};
  uint64_t tables_bytes_max_;
  std::shared_ptr<std::atomic<uint64_t>> tables_bytes_; /* shared: an image may outlive the cache's owner */
};

class Qcow2Cache::Pin {
 public:
  Pin() noexcept = default;
  Pin(Pin&& other) noexcept { *this = std::move(other); }
  Pin& operator=(Pin&& other) noexcept;
  ~Pin();

  std::byte* bytes() const noexcept { return bytes_; }
  explicit operator bool() const noexcept { return slot_ != nullptr; }

 private:
  friend class Qcow2Cache;
  Pin(Shard& shard, std::shared_ptr<Slot> slot) noexcept;

  Shard* shard_ = nullptr;
  std::shared_ptr<Slot> slot_;
  std::byte* bytes_ = nullptr;
};

} // namespace qluks

#endif
