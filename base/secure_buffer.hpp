/* SPDX-License-Identifier: BSD-3-Clause */
/* Bytes of passphrases, derived keys, volume keys and key schedules.
 *
 * They are in locked memory that is left out of core dumps (secure_memory.hpp), are wiped when the buffer goes, on
 * error paths too, and leave no copy behind when it is moved.  Argon2's arena is too large to belong here.
 */
#ifndef QLUKS_BASE_SECURE_BUFFER_HPP
#define QLUKS_BASE_SECURE_BUFFER_HPP

#include <cstddef>
#include <span>
#include <string_view>

namespace qluks {

class SecureBuffer {
 public:
  SecureBuffer() = default;
  /* `size` zero bytes, aligned to a cache line.  Throws std::bad_alloc. */
  explicit SecureBuffer(size_t size);
  /* A private copy of `bytes`; the caller wipes its own. */
  static SecureBuffer copy_of(std::span<const std::byte> bytes);

  SecureBuffer(SecureBuffer&& other) noexcept;
  SecureBuffer& operator=(SecureBuffer&& other) noexcept;
  SecureBuffer(const SecureBuffer&) = delete;
  SecureBuffer& operator=(const SecureBuffer&) = delete;
  ~SecureBuffer() { release(); }

  std::byte* data() noexcept { return data_; }
  const std::byte* data() const noexcept { return data_; }
  size_t size() const noexcept { return size_; }
  bool empty() const noexcept { return size_ == 0; }
  std::span<std::byte> span() noexcept { return {data_, size_}; }
  std::span<const std::byte> span() const noexcept { return {data_, size_}; }

  /* Forget the bytes past `size`, wiping them.  Never grows. */
  void shrink(size_t size) noexcept;

 private:
  void release() noexcept;

  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

/* Overwrite in a way that the compiler does not remove. */
void wipe(std::span<std::byte> bytes) noexcept;

/* A value on the stack that is wiped when it goes. */
template <class T>
struct Wiped {
  T value{};
  ~Wiped() { wipe(std::as_writable_bytes(std::span(&value, 1))); }
};

/* Equality in time that depends on the lengths alone. */
bool equal_constant_time(std::span<const std::byte> a, std::span<const std::byte> b) noexcept;

} // namespace qluks

#endif
