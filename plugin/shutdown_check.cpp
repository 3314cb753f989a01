/* SPDX-License-Identifier: BSD-3-Clause */
/* nbdkit tells a filter that the server has to end only by way of nbdkit_nanosleep().  On the thread of a connection
 * that returns early as well when the client hangs up, which is no reason to give up what other clients wait for, and
 * what this one will ask for again.  So the question is asked on a thread of its own, and not too often. */
#include "plugin/shutdown_check.hpp"

#include <nbdkit-filter.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "base/shutdown.hpp"

namespace qluks {

namespace {

using Clock = std::chrono::steady_clock;

constexpr Clock::duration check_interval = std::chrono::milliseconds(50);

std::atomic<bool> told_to_end{false};
std::atomic<Clock::time_point> next_check{};

bool ask_nbdkit() noexcept {
  bool ends = false;
  try {
    std::thread([&ends] { ends = nbdkit_nanosleep(0, 0) != 0; }).join();
  } catch (...) {
    /* No thread can be had now, or no memory for one: the next check will tell. */
  }
  return ends;
}

/* nbdkit reports each early return as an error: the first is enough. */
bool check() noexcept {
  if (told_to_end) return true;
  auto due = next_check.load();
  const auto now = Clock::now();
  if (now < due || !next_check.compare_exchange_strong(due, now + check_interval)) return false;
  if (ask_nbdkit()) told_to_end = true;
  return told_to_end;
}

} // namespace

void install_shutdown_check() noexcept { set_shutdown_check(check); }

} // namespace qluks
