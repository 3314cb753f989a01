/* SPDX-License-Identifier: BSD-3-Clause */
/* So many bytes for work that is in hand: who wants some waits until others have given back enough.
 *
 * Threads get their turn in the order in which they came, so a large lease is not starved by small ones.  A lease
 * beyond the limit is granted when nothing else is out.  Who holds a lease must not ask for another one.
 *
 * Leases are held while storage is waited for, so a budget is for one image: storage that hangs holds up nobody else's.
 * A wait ends when the process is told to end.
 */
#ifndef QLUKS_BASE_MEMORY_BUDGET_HPP
#define QLUKS_BASE_MEMORY_BUDGET_HPP

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <utility>

#include "base/wait.hpp"

namespace qluks {

class MemoryBudget {
 public:
  explicit MemoryBudget(uint64_t bytes_max) : bytes_max_(bytes_max) {}

  class Lease {
   public:
    Lease(Lease&& other) noexcept : budget_(std::exchange(other.budget_, nullptr)), bytes_(other.bytes_) {}
    Lease& operator=(Lease&&) = delete;
    ~Lease() {
      if (budget_ != nullptr) budget_->give_back(bytes_);
    }

   private:
    friend class MemoryBudget;
    Lease(MemoryBudget& budget, uint64_t bytes) noexcept : budget_(&budget), bytes_(bytes) {}

    MemoryBudget* budget_;
    uint64_t bytes_;
  };

  /* Fails only when the process has to end. */
  Result<Lease> lease(uint64_t bytes) {
    if (Status s = take(bytes); !s) return propagate(s);
    return Lease(*this, bytes);
  }

 private:
  struct Waiter {
    uint64_t bytes;
    bool granted = false;
    std::condition_variable changed{};
  };

  bool fits(uint64_t bytes) const noexcept { return used_ == 0 || used_ + bytes <= bytes_max_; }

  Status take(uint64_t bytes) {
    std::unique_lock lock(mutex_);
    if (waiting_.empty() && fits(bytes)) {
      used_ += bytes;
      return ok();
    }
    Waiter self{.bytes = bytes};
    waiting_.push_back(&self);
    Status s = wait_until(self.changed, lock, [&] { return self.granted; });
    if (!s) std::erase(waiting_, &self);
    return s;
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
