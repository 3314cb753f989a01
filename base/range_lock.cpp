/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/range_lock.hpp"

#include "base/wait.hpp"

namespace qluks {

/* Does nothing that came before overlap it? */
bool RangeLock::is_first(std::list<Entry>::iterator entry) const noexcept {
  for (auto other = entries_.begin(); other != std::list<Entry>::const_iterator(entry); ++other) {
    if (other->begin < entry->end && entry->begin < other->end) return false;
  }
  return true;
}

Result<RangeLock::Guard> RangeLock::take(uint64_t offset, uint64_t length) {
  std::unique_lock lock(mutex_);
  const auto entry = entries_.insert(entries_.end(), {offset, offset + length});
  if (is_first(entry)) return Guard(*this, entry);
  ++waiting_;
  Status s = wait_until(released_, lock, [&] { return is_first(entry); });
  --waiting_;
  if (s) return Guard(*this, entry);
  entries_.erase(entry);
  released_.notify_all();
  return propagate(s);
}

void RangeLock::release(std::list<Entry>::iterator entry) noexcept {
  const std::lock_guard lock(mutex_);
  entries_.erase(entry);
  if (waiting_ != 0) released_.notify_all();
}

} // namespace qluks
