/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/secure_buffer.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <new>
#include <utility>

#include "base/checked.hpp"
#include "base/log.hpp"
#include "base/system_message.hpp"

namespace qluks {

namespace {

size_t page_bytes() noexcept {
  static const size_t bytes = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return bytes;
}

void warn_not_locked() {
  static std::atomic<bool> warned{false};
  if (warned.exchange(true)) return;
  log_warning("cannot lock keys in memory (" + system_message(errno) +
              "): they may reach swap; raise RLIMIT_MEMLOCK (ulimit -l)");
}

} // namespace

/* Delegating: from the first line on the destructor gives back what is there, whatever fails behind it. */
SecureBuffer::SecureBuffer(size_t size) : SecureBuffer() {
  if (size == 0) return;
  const size_t page = page_bytes();
  const auto rounded = checked_align_up(size, page);
  const auto with_guards = rounded ? checked_add(*rounded, 2 * page) : std::nullopt;
  if (!with_guards) throw std::bad_alloc();
  void* region = mmap(nullptr, *with_guards, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (region == MAP_FAILED) throw std::bad_alloc();
  std::byte* data = static_cast<std::byte*>(region) + page;
  if (mprotect(data, *rounded, PROT_READ | PROT_WRITE) != 0) {
    munmap(region, *with_guards);
    throw std::bad_alloc();
  }
  data_ = data;
  size_ = size;
  mapped_ = *rounded;
  madvise(data_, mapped_, MADV_DONTDUMP);
  if (mlock(data_, mapped_) != 0) warn_not_locked();
}

SecureBuffer SecureBuffer::copy_of(std::span<const std::byte> bytes) {
  SecureBuffer copy(bytes.size());
  std::copy(bytes.begin(), bytes.end(), copy.data_);
  return copy;
}

SecureBuffer::SecureBuffer(SecureBuffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      mapped_(std::exchange(other.mapped_, 0)) {}

SecureBuffer& SecureBuffer::operator=(SecureBuffer&& other) noexcept {
  if (this == &other) return *this;
  release();
  data_ = std::exchange(other.data_, nullptr);
  size_ = std::exchange(other.size_, 0);
  mapped_ = std::exchange(other.mapped_, 0);
  return *this;
}

void SecureBuffer::shrink(size_t size) noexcept {
  if (size >= size_) return;
  wipe(span().subspan(size));
  size_ = size;
}

void SecureBuffer::release() noexcept {
  if (data_ == nullptr) return;
  wipe({data_, mapped_});
  munmap(data_ - page_bytes(), mapped_ + 2 * page_bytes());
  data_ = nullptr;
  size_ = mapped_ = 0;
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
