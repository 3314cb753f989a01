/* SPDX-License-Identifier: BSD-3-Clause */
/* When has everyone let go of what they may have found before a moment?
 *
 * A request looks up where a cluster is and then reads it, or writes it in place, without a lock.  A cluster that was
 * freed meanwhile must not be given to someone else before that request has ended.  So requests say when they begin
 * and end, which costs two additions to a counter that few threads share, and epochs count on:
 *
 *      epoch      n         n + 1        n + 2
 *      requests   |—— began in n ——|
 *                     ^ freed in n        ^ nobody is left who could have found it
 *
 * The epoch moves on when nobody is left from the one before it.
 */
#ifndef QLUKS_FORMATS_QCOW2_QUIESCENCE_HPP
#define QLUKS_FORMATS_QCOW2_QUIESCENCE_HPP

#include <array>
#include <atomic>
#include <cstdint>

namespace qluks {

class Quiescence {
  struct alignas(64) Counter {
    std::array<std::atomic<uint32_t>, 2> requests{};
  };

 public:
  /* A request, from before its look-up until it has ended. */
  class Request {
   public:
    explicit Request(Quiescence& q) noexcept : requests_(q.enter()) {}
    Request(const Request&) = delete;
    Request& operator=(const Request&) = delete;
    ~Request() { requests_->fetch_sub(1); }

   private:
    std::atomic<uint32_t>* requests_;
  };

  uint64_t epoch() const noexcept { return epoch_.load(); }

  /* Move on as far as requests allow; the epoch that came of it.  By one thread at a time. */
  uint64_t advance() noexcept {
    for (int i = 0; i < 2; ++i) {
      const uint64_t now = epoch_.load();
      for (const Counter& counter : counters_) {
        if (counter.requests[(now + 1) & 1].load() != 0) return now;
      }
      epoch_.store(now + 1);
    }
    return epoch_.load();
  }

  /* May what was taken away in epoch `then` be used for something else? */
  static bool has_passed(uint64_t then, uint64_t now) noexcept { return now >= then + 2; }

 private:
  std::atomic<uint32_t>* enter() noexcept {
    static std::atomic<unsigned> threads{0};
    thread_local const unsigned self = threads.fetch_add(1);
    Counter& counter = counters_[self % counters_.size()];
    for (;;) {
      const uint64_t now = epoch_.load();
      auto& requests = counter.requests[now & 1];
      requests.fetch_add(1);
      if (epoch_.load() == now) return &requests;
      requests.fetch_sub(1);
    }
  }

  std::atomic<uint64_t> epoch_{0};
  std::array<Counter, 16> counters_{};
};

} // namespace qluks

#endif
