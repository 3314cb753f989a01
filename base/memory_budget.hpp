/* SPDX-License-Identifier: BSD-3-Clause */
/* So many bytes for work that is in hand: who wants some waits until others have given back enough.
 *
 * Threads get their turn in the order in which they came, so a large lease is not starved by small ones.  A lease
 * beyond the limit is granted when nothing else is out.  Who holds a lease must not ask for another one.
 */
#ifndef QLUKS_BASE_MEMORY_BUDGET_HPP
#define QLUKS_BASE_MEMORY_BUDGET_HPP

#include <condition_variable>
#include <cstdint>
#include <mutex>

namespace qluks {

class MemoryBudget {
 public:
  explicit MemoryBudget(uint64_t bytes_max) noexcept : bytes_max_(bytes_max) {}

  class Lease {
   public:
    Lease(MemoryBudget& budget, uint64_t bytes) : budget_(budget), bytes_(bytes) { budget_.take(bytes_); }
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    ~Lease() { budget_.give_back(bytes_); }

   private:
    MemoryBudget& budget_;
    uint64_t bytes_;
  };

 private:
  void take(uint64_t bytes) {
    std::unique_lock lock(mutex_);
    const uint64_t ticket = tickets_++;
    changed_.wait(lock, [&] { return ticket == next_ && (used_ == 0 || used_ + bytes <= bytes_max_); });
    ++next_;
    used_ += bytes;
    if (next_ != tickets_) changed_.notify_all();
  }

  void give_back(uint64_t bytes) noexcept {
    const std::lock_guard lock(mutex_);
    used_ -= bytes;
    if (next_ != tickets_) changed_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  uint64_t bytes_max_;
  uint64_t used_ = 0;
  uint64_t tickets_ = 0; /* given out; those from next_ on are waiting */
  uint64_t next_ = 0;
};

} // namespace qluks

#endif
