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
#include <deque>
#include <mutex>

namespace qluks {

class MemoryBudget {
 public:
  explicit MemoryBudget(uint64_t bytes_max) : bytes_max_(bytes_max) {}

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
  struct Waiter {
    uint64_t bytes;
    bool granted = false;
    std::condition_variable changed{};
  };

  bool fits(uint64_t bytes) const noexcept { return used_ == 0 || used_ + bytes <= bytes_max_; }

  void take(uint64_t bytes) {
    std::unique_lock lock(mutex_);
    if (waiting_.empty() && fits(bytes)) {
      used_ += bytes;
      return;
    }
    Waiter self{.bytes = bytes};
    waiting_.push_back(&self);
    self.changed.wait(lock, [&] { return self.granted; });
  }

  void give_back(uint64_t bytes) noexcept {
    const std::lock_guard lock(mutex_);
    used_ -= bytes;
    while (!waiting_.empty() && fits(waiting_.front()->bytes)) {
      Waiter& first = *waiting_.front();
      waiting_.pop_front();
      used_ += first.bytes;
      first.granted = true;
      first.changed.notify_one();
    }
  }

  std::mutex mutex_;
  std::deque<Waiter*> waiting_;
  uint64_t bytes_max_;
  uint64_t used_ = 0;
};

} // namespace qluks

#endif
