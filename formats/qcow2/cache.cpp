/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/qcow2/cache.hpp"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <condition_variable>
#include <list>
#include <mutex>
#include <string>
#include <unordered_map>

#include "base/wait.hpp"

namespace qluks {

namespace {

/* A shard should hold several of the largest slots, which are 2 MiB. */
constexpr uint64_t shard_bytes = 8 << 20;
constexpr uint64_t shards_max = 16;

/* For L1 tables in any case: a disk of 8 TiB in clusters of 64 KiB has one of 128 KiB, the largest has 32 MiB, and a chain
 * of backing files may have 128 MiB. */
constexpr uint64_t tables_bytes_least = 256 << 20;

/* What a slot costs beside its bytes: map and list nodes, reference counts. */
constexpr uint64_t slot_overhead_bytes = 256;

/* The finalizer of SplitMix64: host offsets differ in few bits, and both the shard and the bucket are taken from it. */
uint64_t mix(uint64_t n) noexcept {
  n = (n ^ (n >> 30)) * 0xbf58476d1ce4e5b9;
  n = (n ^ (n >> 27)) * 0x94d049bb133111eb;
  return n ^ (n >> 31);
}

struct KeyHash {
  size_t operator()(const Qcow2Cache::Key& key) const noexcept { return mix(key.at ^ mix(key.owner)); }
};

} // namespace

struct Qcow2Cache::Slot {
  enum class State : uint8_t { loading, ready, failed };

  Key key;
  uint64_t cost = 0; /* once it has its turn to load */
  State state = State::loading;
  Bytes bytes{};     /* once ready */
  unsigned pins = 0; /* while there are any, it stays */
};

/* Every function needs the lock of the shard. */
class Qcow2Cache::Shard {
 public:
  explicit Shard(uint64_t bytes_max) : bytes_max_(bytes_max) {}

  /* The slot under that key, which becomes the most recently used one; null if there is none. */
  std::shared_ptr<Slot> find(const Key& key) {
    const auto found = slots_.find(key);
    if (found == slots_.end()) return nullptr;
    recent_.splice(recent_.begin(), recent_, found->second);
    return *found->second;
  }

  std::shared_ptr<Slot> enter(const Key& key) {
    recent_.push_front(std::make_shared<Slot>(Slot{.key = key}));
    try {
      slots_.emplace(key, recent_.begin());
    } catch (...) {
      recent_.pop_front();
      throw;
    }
    return recent_.front();
  }

  void charge(Slot& slot, uint64_t cost) noexcept {
    make_room(cost);
    slot.cost = cost;
    bytes_ += cost;
  }

  void remove(const Slot& slot) noexcept {
    const auto found = slots_.find(slot.key);
    if (found == slots_.end() || found->second->get() != &slot) return;
    bytes_ -= (*found->second)->cost;
    recent_.erase(found->second);
    slots_.erase(found);
  }

  std::mutex mutex;
  std::condition_variable settled; /* a slot is no longer loading */

 private:
  /* Slots that are loading stay: there are no more of them than threads. */
  void make_room(uint64_t cost) noexcept {
    auto it = recent_.end();
    while (bytes_ + cost > bytes_max_ && it != recent_.begin()) {
      const Slot& slot = **--it;
      if (slot.state != Slot::State::ready || slot.pins != 0) continue;
      bytes_ -= slot.cost;
      slots_.erase(slot.key);
      it = recent_.erase(it);
    }
  }

  uint64_t bytes_max_;
  uint64_t bytes_ = 0;
  std::list<std::shared_ptr<Slot>> recent_;
  std::unordered_map<Key, std::list<std::shared_ptr<Slot>>::iterator, KeyHash> slots_;
};

/* Whoever loads a slot settles it on every path, also when memory runs out. */
class Qcow2Cache::Loading {
 public:
  Loading(Shard& shard, std::shared_ptr<Slot> slot) noexcept : shard_(shard), slot_(std::move(slot)) {}
  Loading(const Loading&) = delete;
  Loading& operator=(const Loading&) = delete;

  ~Loading() {
    if (slot_ == nullptr) return;
    {
      const std::lock_guard lock(shard_.mutex);
      shard_.remove(*slot_);
      slot_->state = Slot::State::failed;
    }
    shard_.settled.notify_all();
  }

  void charge(uint64_t cost) noexcept {
    const std::lock_guard lock(shard_.mutex);
    shard_.charge(*slot_, cost);
  }

  void filled(Bytes bytes) {
    {
      const std::lock_guard lock(shard_.mutex);
      slot_->bytes = std::move(bytes);
      slot_->state = Slot::State::ready;
    }
    shard_.settled.notify_all();
    slot_ = nullptr;
  }

 private:
  Shard& shard_;
  std::shared_ptr<Slot> slot_;
};

Qcow2Cache::Qcow2Cache(uint64_t bytes_max)
    : tables_bytes_max_(std::max(bytes_max, tables_bytes_least)),
      tables_bytes_(std::make_shared<std::atomic<uint64_t>>(0)) {
  const uint64_t count = std::bit_floor(std::clamp<uint64_t>(bytes_max / shard_bytes, 1, shards_max));
  for (uint64_t i = 0; i < count; ++i) shards_.push_back(std::make_unique<Shard>(bytes_max / count));
}

Qcow2Cache::~Qcow2Cache() = default;

Result<Qcow2Cache::TableRoom> Qcow2Cache::room_for_table(uint64_t bytes) {
  const uint64_t together = tables_bytes_->fetch_add(bytes) + bytes;
  TableRoom room(tables_bytes_, bytes);
  if (together <= tables_bytes_max_) return room;
  return fail(Errc::unsupported,
              std::to_string(bytes) + " bytes: with it, the tables of all open images have " +
                  std::to_string(together) + " bytes, the limit is " + std::to_string(tables_bytes_max_) +
                  ": raise qluks-cache-size",
              ENOMEM);
}

Qcow2Cache::Shard& Qcow2Cache::shard_of(const Key& key) noexcept {
  /* The high bits: the buckets of the map go by the low ones. */
  return *shards_[(KeyHash{}(key) >> 48) & (shards_.size() - 1)];
}

Qcow2Cache::Pin::Pin(Shard& shard, std::shared_ptr<Slot> slot) noexcept
    : shard_(&shard), slot_(std::move(slot)), bytes_(const_cast<std::byte*>(slot_->bytes.get())) {}

Qcow2Cache::Pin& Qcow2Cache::Pin::operator=(Pin&& other) noexcept {
  std::swap(shard_, other.shard_);
  std::swap(slot_, other.slot_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

Qcow2Cache::Pin::~Pin() {
  if (slot_ == nullptr) return;
  const std::lock_guard lock(shard_->mutex);
  --slot_->pins;
}

/* Between the two steps the slot may have gone again. */
Result<Qcow2Cache::Pin> Qcow2Cache::pin(const Key& key, size_t length, const FillFn& fill) {
  for (;;) {
    auto bytes = get(key, length, fill);
    if (!bytes) return propagate(bytes);
    Shard& shard = shard_of(key);
    const std::lock_guard lock(shard.mutex);
    auto slot = shard.find(key);
    if (slot == nullptr || slot->bytes != *bytes) continue;
    ++slot->pins;
    return Pin(shard, std::move(slot));
  }
}

Qcow2Cache::Pin Qcow2Cache::put(const Key& key, PageBuffer buffer, size_t length) {
  Bytes bytes(std::move(buffer));
  Shard& shard = shard_of(key);
  const std::lock_guard lock(shard.mutex);
  if (const auto former = shard.find(key)) shard.remove(*former);
  auto slot = shard.enter(key);
  shard.charge(*slot, length + slot_overhead_bytes);
  slot->bytes = std::move(bytes);
  slot->state = Slot::State::ready;
  slot->pins = 1;
  return Pin(shard, std::move(slot));
}

Result<Qcow2Cache::Bytes> Qcow2Cache::get(const Key& key, size_t length, const FillFn& fill) {
  Shard& shard = shard_of(key);
  std::unique_lock lock(shard.mutex);
  while (const auto slot = shard.find(key)) {
    Status s = wait_until(shard.settled, lock, [&] { return slot->state != Slot::State::loading; });
    if (!s) return propagate(s);
    if (slot->state == Slot::State::ready) return slot->bytes;
  }
  auto slot = shard.enter(key);
  lock.unlock();

  Loading loading(shard, std::move(slot));
  loading.charge(length + slot_overhead_bytes);
  PageBuffer buffer = make_page_buffer(length);
  if (Status s = fill({buffer.get(), length}); !s) return propagate(s);
  Bytes bytes(std::move(buffer));
  loading.filled(bytes);
  return bytes;
}

} // namespace qluks
