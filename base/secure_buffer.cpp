/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/secure_buffer.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>

#include "base/checked.hpp"
#include "base/secure_memory.hpp"

namespace qluks {

SecureBuffer::SecureBuffer(size_t size) : data_(size == 0 ? nullptr : allocate_secure(size)), size_(size) {}

SecureBuffer SecureBuffer::copy_of(std::span<const std::byte> bytes) {
  SecureBuffer copy(bytes.size());
  std::copy(bytes.begin(), bytes.end(), copy.data_);
  return copy;
}

SecureBuffer::SecureBuffer(SecureBuffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

SecureBuffer& SecureBuffer::operator=(SecureBuffer&& other) noexcept {
  if (this == &other) return *this;
  release();
  data_ = std::exchange(other.data_, nullptr);
  size_ = std::exchange(other.size_, 0);
  return *this;
}

void SecureBuffer::shrink(size_t size) noexcept {
  if (size >= size_) return;
  if (size == 0) return release();
  wipe(span().subspan(size));
  const size_t kept = *checked_align_up(size, secure_granule_bytes);
  if (kept < size_) free_secure(data_ + kept, size_ - kept);
  size_ = size;
}

void SecureBuffer::release() noexcept {
  if (data_ != nullptr) free_secure(data_, size_);
  data_ = nullptr;
  size_ = 0;
}

void wipe(std::span<std::byte> bytes) noexcept { explicit_bzero(bytes.data(), bytes.size()); }

bool equal_constant_time(std::span<const std::byte> a, std::span<const std::byte> b) noexcept {
  if (a.size() != b.size()) return false;
  volatile uint8_t difference = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference = static_cast<uint8_t>(difference | std::to_integer<uint8_t>(a[i] ^ b[i]));
  }
  return difference == 0;
}

} // namespace qluks
