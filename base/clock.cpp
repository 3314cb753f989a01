/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/clock.hpp"

#include <chrono>

namespace qluks {

double monotonic_seconds() noexcept {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

} // namespace qluks
