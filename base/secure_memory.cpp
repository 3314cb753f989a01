/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/secure_memory.hpp"

#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <list>
#include <mutex>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "base/checked.hpp"
#include "base/log.hpp"
#include "base/poison.hpp"
#include "base/system_message.hpp"

namespace qluks {

namespace {

constexpr size_t region_bytes_min = 64 * 1024;

size_t page_bytes() noexcept {
  static const size_t bytes = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return bytes;
}

size_t granules_of(size_t bytes) noexcept { return (bytes + secure_granule_bytes - 1) / secure_granule_bytes; }

/* Whole pages, and all that is done to them. */
class Region {
 public:
  explicit Region(size_t bytes) : used_(bytes / secure_granule_bytes), bytes_(bytes) {
    const auto with_guards = checked_add(bytes, 2 * page_bytes());
    if (!with_guards) throw std::bad_alloc();
    void* pages = mmap(nullptr, *with_guards, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED) throw std::bad_alloc();
    data_ = static_cast<std::byte*>(pages) + page_bytes();
    if (mprotect(data_, bytes_, PROT_READ | PROT_WRITE) != 0) {
      unmap();
      throw std::bad_alloc();
    }
    madvise(data_, bytes_, MADV_DONTDUMP);
    ASAN_POISON_MEMORY_REGION(data_, bytes_);
  }
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;
  ~Region() {
    ASAN_UNPOISON_MEMORY_REGION(data_, bytes_);
    unmap();
  }

  bool holds(const std::byte* p) const noexcept { return p >= data_ && p < data_ + bytes_; }
  bool empty() const noexcept { return used_granules_ == 0; }
  size_t bytes() const noexcept { return bytes_; }

  bool lock() const noexcept { return mlock(data_, bytes_) == 0; }
  void leave_out_of_children() const noexcept { madvise(data_, bytes_, MADV_WIPEONFORK); }

  /* nullptr: no room. */
  std::byte* take(size_t size) noexcept {
    const size_t granules = granules_of(size);
    const auto first = std::search_n(used_.begin(), used_.end(), granules, false);
    if (first == used_.end()) return nullptr;
    std::fill_n(first, granules, true);
    used_granules_ += granules;
    std::byte* bytes = data_ + static_cast<size_t>(first - used_.begin()) * secure_granule_bytes;
    ASAN_UNPOISON_MEMORY_REGION(bytes, size);
    return bytes;
  }

  void give_back(std::byte* bytes, size_t size) noexcept {
    const size_t granules = granules_of(size);
    ASAN_UNPOISON_MEMORY_REGION(bytes, granules * secure_granule_bytes);
    explicit_bzero(bytes, granules * secure_granule_bytes);
    ASAN_POISON_MEMORY_REGION(bytes, granules * secure_granule_bytes);
    std::fill_n(used_.begin() + (bytes - data_) / static_cast<ptrdiff_t>(secure_granule_bytes), granules, false);
    used_granules_ -= granules;
  }

 private:
  void unmap() noexcept { munmap(data_ - page_bytes(), bytes_ + 2 * page_bytes()); }

  std::vector<bool> used_; /* granules */
  size_t used_granules_ = 0;
  size_t bytes_;
  std::byte* data_ = nullptr;
};

class SecureMemory {
 public:
  std::byte* allocate(size_t size) {
    const std::lock_guard lock(mutex_);
    for (Region& region : regions_) {
      if (std::byte* bytes = region.take(size)) return bytes;
    }
    const auto rounded = checked_align_up(size, page_bytes());
    if (!rounded) throw std::bad_alloc();
    Region& added = regions_.emplace_back(std::max(*rounded, region_bytes_min));
    protect(added);
    return added.take(size);
  }

  void free(std::byte* bytes, size_t size) noexcept {
    const std::lock_guard lock(mutex_);
    const auto region =
        std::find_if(regions_.begin(), regions_.end(), [bytes](const Region& r) { return r.holds(bytes); });
    region->give_back(bytes, size);
    if (region != regions_.begin() && region->empty()) regions_.erase(region);
  }

  void keep_here() {
    const std::lock_guard lock(mutex_);
    kept_here_ = true;
    for (const Region& region : regions_) protect(region);
  }

 private:
  void protect(const Region& region) {
    if (kept_here_) region.leave_out_of_children();
    if (!region.lock()) warn_not_locked(region.bytes(), errno);
  }

  void warn_not_locked(size_t bytes, int err) {
    if (std::exchange(warned_, true)) return;
    rlimit limit{};
    getrlimit(RLIMIT_MEMLOCK, &limit);
    log_warning("cannot lock " + std::to_string(bytes) + " bytes for secrets in memory (" + system_message(err) +
                "), so they may reach swap: RLIMIT_MEMLOCK is " + std::to_string(limit.rlim_cur) +
                " bytes: raise it (ulimit -l, or LimitMEMLOCK= of a systemd unit)");
  }

  std::mutex mutex_; /* guards all of it */
  std::list<Region> regions_;
  bool kept_here_ = false;
  bool warned_ = false;
};

/* Never destroyed: a buffer may outlive whatever order the end of a process has, and wipes itself. */
SecureMemory& secure_memory() {
  static auto& memory = *new SecureMemory;
  return memory;
}

} // namespace

std::byte* allocate_secure(size_t size) { return secure_memory().allocate(size); }

void free_secure(std::byte* bytes, size_t size) noexcept { secure_memory().free(bytes, size); }

void keep_secure_memory_here() { secure_memory().keep_here(); }

} // namespace qluks
