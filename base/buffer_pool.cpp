/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/buffer_pool.hpp"

#include <algorithm>

namespace qluks {

BufferPool::BufferPool(size_t buffer_bytes, size_t out_max, size_t kept_max)
    : buffer_bytes_(buffer_bytes), out_max_(out_max) {
  kept_.reserve(kept_max);
}

BufferPool::Lease::~Lease() {
  if (pool_ != nullptr && buffer_ != nullptr) pool_->give_back(std::move(buffer_));
}

BufferPool::Lease BufferPool::borrow(size_t wanted) {
  if (wanted > small_bytes) {
    if (auto large = take_large()) return Lease(this, std::move(*large), buffer_bytes_);
  }
  const size_t length = std::min(wanted, small_bytes);
  return Lease(nullptr, make_page_buffer(length), length);
}

std::optional<PageBuffer> BufferPool::take_large() {
  {
    const std::lock_guard lock(mutex_);
    if (out_ == out_max_) return std::nullopt;
    ++out_;
    if (!kept_.empty()) {
      PageBuffer buffer = std::move(kept_.back());
      kept_.pop_back();
      return buffer;
    }
  }
  try {
    return make_page_buffer(buffer_bytes_);
  } catch (const std::bad_alloc&) {
    const std::lock_guard lock(mutex_);
    --out_;
    return std::nullopt;
  }
}

void BufferPool::give_back(PageBuffer buffer) noexcept {
  const std::lock_guard lock(mutex_);
  --out_;
  if (kept_.size() < kept_.capacity()) kept_.push_back(std::move(buffer));
}

} // namespace qluks
