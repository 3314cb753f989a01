/* SPDX-License-Identifier: BSD-3-Clause */
/* Locks on ranges of a device: requests that overlap follow each other, all others do not notice.
 *
 *      |—— held ——|      |—— held ——|
 *            |—— waits for both ——|        |—— granted ——|
 *
 * Who comes later waits for whoever overlaps and came before, also when that one waits itself, so nobody starves.  What
 * is held is held while storage is waited for; that holds up only requests to the same bytes, and a wait ends when the
 * process is told to.
 */
#ifndef QLUKS_BASE_RANGE_LOCK_HPP
#define QLUKS_BASE_RANGE_LOCK_HPP

#include <condition_variable>
#include <cstdint>
#include <list>
#include <mutex>

#include "base/result.hpp"

namespace qluks {

class RangeLock {
 private:
  struct Entry {
    uint64_t begin;
    uint64_t end;
  };

 public:
  /* Releases the range when it goes. */
  class Guard {
   public:
    Guard() noexcept = default;
    Guard(Guard&& other) noexcept : lock_(other.lock_), entry_(other.entry_) { other.lock_ = nullptr; }
    Guard& operator=(Guard&&) = delete;
    ~Guard() {
      if (lock_ != nullptr) lock_->release(entry_);
    }

   private:
    friend class RangeLock;
    Guard(RangeLock& lock, std::list<Entry>::iterator entry) noexcept : lock_(&lock), entry_(entry) {}

    RangeLock* lock_ = nullptr;
    std::list<Entry>::iterator entry_{};
  };

  /* Take [offset, offset + length), which must not wrap.  Who holds a range must not take another one that overlaps it,
   * nor a lower one.  Fails only when the process has to end. */
  Result<Guard> take(uint64_t offset, uint64_t length);

  /* How many threads wait now. */
  size_t waiting() const {
    const std::lock_guard lock(mutex_);
    return waiting_;
  }

 private:
  bool is_first(std::list<Entry>::iterator entry) const noexcept;
  void release(std::list<Entry>::iterator entry) noexcept;

  mutable std::mutex mutex_;
  std::condition_variable released_;
  std::list<Entry> entries_; /* in the order in which they came */
  size_t waiting_ = 0;
};

} // namespace qluks

#endif
