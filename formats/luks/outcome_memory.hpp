/* SPDX-License-Identifier: BSD-3-Clause */
/* What came of a costly piece of work, by the fingerprint of what it was done for.
 *
 *      success, wrong secret      remembered; the oldest give way, refusals first, what is in use never
 *      another failure            remembered for a moment: many clients of a broken thing do not break it anew each
 *      being worked on            whoever wants the same waits for the outcome, and takes it
 *
 * No lock is held while the work is done.
 */
#ifndef QLUKS_FORMATS_LUKS_OUTCOME_MEMORY_HPP
#define QLUKS_FORMATS_LUKS_OUTCOME_MEMORY_HPP

#include <algorithm>
#include <condition_variable>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "base/clock.hpp"
#include "base/result.hpp"
#include "base/wait.hpp"

namespace qluks {

/* `Value` is a shared pointer: what somebody else holds is in use. */
template <class Value>
class OutcomeMemory {
 public:
  /* Enough for every image of a server; whoever makes up fingerprints does not fill our memory. */
  static constexpr size_t remembered_max = 256;

  /* For how long a failure that may pass is remembered. */
  explicit OutcomeMemory(double failure_seconds = 2) noexcept : failure_seconds_(failure_seconds) {}

  /* The outcome for `fingerprint`: remembered, of the work that another thread does, or of `work`. */
  template <class Work>
  Result<Value> get(const std::string& fingerprint, Work&& work) {
    std::shared_ptr<Task> task;
    {
      std::unique_lock lock(mutex_);
      while (true) {
        if (const Entry* known = find(fingerprint)) return known->outcome;
        const auto busy = std::find_if(tasks_.begin(), tasks_.end(),
                                       [&](const auto& each) { return each->fingerprint == fingerprint; });
        if (busy == tasks_.end()) break;
        const std::shared_ptr<Task> other = *busy;
        if (Status s = wait_until(settled_, lock, [&] { return other->settled; }); !s) return propagate(s);
        if (other->outcome) return *other->outcome;
      }
      task = std::make_shared<Task>(Task{.fingerprint = fingerprint});
      tasks_.push_back(task);
    }
    const Settle settle(*this, task);
    task->outcome = work();
    return *task->outcome;
  }

 private:
  struct Task {
    std::string fingerprint;
    bool settled = false;
    std::optional<Result<Value>> outcome = {}; /* none: the work ended with an exception */
  };
  struct Entry {
    std::string fingerprint;
    Result<Value> outcome;
    double expires; /* 0: never */
  };

  /* On every path, also when memory runs out. */
  class Settle {
   public:
    Settle(OutcomeMemory& memory, std::shared_ptr<Task> task) noexcept : memory_(memory), task_(std::move(task)) {}
    Settle(const Settle&) = delete;
    Settle& operator=(const Settle&) = delete;
    ~Settle() {
      const std::lock_guard lock(memory_.mutex_);
      if (task_->outcome) memory_.remember(*task_);
      memory_.tasks_.remove(task_);
      task_->settled = true;
      memory_.settled_.notify_all();
    }

   private:
    OutcomeMemory& memory_;
    std::shared_ptr<Task> task_;
  };

  const Entry* find(const std::string& fingerprint) {
    const auto found = std::find_if(entries_.begin(), entries_.end(),
                                    [&](const Entry& entry) { return entry.fingerprint == fingerprint; });
    if (found == entries_.end()) return nullptr;
    if (found->expires == 0 || monotonic_seconds() < found->expires) return &*found;
    entries_.erase(found);
    return nullptr;
  }

  /* Without memory nothing is remembered. */
  void remember(const Task& task) noexcept {
    const Result<Value>& outcome = *task.outcome;
    const bool lasts = outcome || outcome.error().code == Errc::wrong_passphrase;
    if (!lasts && outcome.error().code != Errc::io) return; /* what cost nothing to find out */
    try {
      entries_.push_back({task.fingerprint, outcome, lasts ? 0 : monotonic_seconds() + failure_seconds_});
    } catch (...) {
      return;
    }
    if (entries_.size() > remembered_max) forget_one();
  }

  /* The oldest refusal; if there is none, the oldest success that nobody uses. */
  void forget_one() noexcept {
    auto oldest = std::find_if(entries_.begin(), entries_.end(), [](const Entry& entry) { return !entry.outcome; });
    if (oldest == entries_.end()) {
      oldest = std::find_if(entries_.begin(), entries_.end(),
                            [](const Entry& entry) { return entry.outcome->use_count() == 1; });
    }
    if (oldest != entries_.end()) entries_.erase(oldest);
  }

  const double failure_seconds_;
  std::mutex mutex_; /* guards what follows; never held while working */
  std::condition_variable settled_;
  std::list<std::shared_ptr<Task>> tasks_;
  std::list<Entry> entries_; /* oldest first */
};

} // namespace qluks

#endif
