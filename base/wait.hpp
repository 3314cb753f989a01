/* SPDX-License-Identifier: BSD-3-Clause */
/* The one way to wait for another thread.
 *
 * Whoever waits here gives up when the process is told to end, so that no lock that a thread holds while it waits for
 * storage can keep the server alive.  The question is asked a few times a second: it costs the waiter nothing, and a
 * notification is acted on at once.
 */
#ifndef QLUKS_BASE_WAIT_HPP
#define QLUKS_BASE_WAIT_HPP

#include <chrono>
#include <condition_variable>
#include <mutex>

#include "base/result.hpp"
#include "base/shutdown.hpp"

namespace qluks {

inline constexpr std::chrono::milliseconds shutdown_poll_interval{100};

/* Wait until `done` holds, which is asked under the lock whenever `changed` is notified.  Fails with
 * Errc::shutting_down when the process has to end before that. */
template <class Done>
Status wait_until(std::condition_variable& changed, std::unique_lock<std::mutex>& lock, Done&& done) {
  while (!changed.wait_for(lock, shutdown_poll_interval, done)) {
    lock.unlock();
    const bool ends = shutting_down();
    lock.lock();
    if (ends && !done()) return given_up();
  }
  return ok();
}

} // namespace qluks

#endif
