/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/luks/kdf_gate.hpp"

#include "base/wait.hpp"

namespace qluks {

/* May it go in, with what runs now and who came before? */
bool KdfGate::is_next(std::list<KdfCost>::const_iterator waiter) const noexcept {
  for (auto before = waiting_.begin(); before != waiter; ++before) {
    if (is_dear(*before) == is_dear(*waiter)) return false;
  }
  if (is_dear(*waiter) && dear_running_ >= dear_max_) return false;
  const bool alone = running_ == 0 || memory_used_ == 0;
  return alone || waiter->memory_bytes == 0 || memory_used_ + waiter->memory_bytes <= memory_max_;
}

Result<KdfGate::Pass> KdfGate::enter(const KdfCost& cost) {
  std::unique_lock lock(mutex_);
  const auto waiter = waiting_.insert(waiting_.end(), cost);
  Status s = wait_until(left_, lock, [&] { return is_next(waiter); });
  waiting_.erase(waiter);
  left_.notify_all(); /* who came behind may go in as well */
  if (!s) return propagate(s);
  ++running_;
  dear_running_ += is_dear(cost);
  memory_used_ += cost.memory_bytes;
  return Pass(*this, cost);
}

size_t KdfGate::waiting() const {
  const std::lock_guard lock(mutex_);
  return waiting_.size();
}

void KdfGate::leave(const KdfCost& cost) noexcept {
  const std::lock_guard lock(mutex_);
  --running_;
  dear_running_ -= is_dear(cost);
  memory_used_ -= cost.memory_bytes;
  left_.notify_all();
}

} // namespace qluks
