/* SPDX-License-Identifier: BSD-3-Clause */
/* Large buffers that threads lend each other.
 *
 * A write is encrypted into a buffer of ours, and fresh pages from the system cost more than encrypting into them.  So
 * buffers are kept, up to a bound; what is out at the same time is bounded as well.  Nobody waits for a buffer: who
 * finds none does with a small one and makes more requests.
 */
#ifndef QLUKS_BASE_BUFFER_POOL_HPP
#define QLUKS_BASE_BUFFER_POOL_HPP

#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "base/page_buffer.hpp"

namespace qluks {

class BufferPool {
 public:
  /* `out_max` buffers of `buffer_bytes` at the same time, of which `kept_max` stay when they are given back. */
  BufferPool(size_t buffer_bytes, size_t out_max, size_t kept_max);

  /* A buffer, until it goes. */
  class Lease {
   public:
    Lease(Lease&& other) noexcept = default;
    Lease& operator=(Lease&&) = delete;
    ~Lease();

    std::span<std::byte> bytes() const noexcept { return bytes_; }

   private:
    friend class BufferPool;
    Lease(BufferPool* pool, PageBuffer buffer, size_t length) noexcept
        : pool_(pool), buffer_(std::move(buffer)), bytes_(buffer_.get(), length) {}

    BufferPool* pool_; /* null: it is not one of the pool's */
    PageBuffer buffer_;
    std::span<std::byte> bytes_;
  };

  /* At least min(`wanted`, `small_bytes`) bytes: a small buffer if that is enough, or if all large ones are out. */
  Lease borrow(size_t wanted);

  static constexpr size_t small_bytes = 64 * 1024;

 private:
  std::optional<PageBuffer> take_large();
  void give_back(PageBuffer buffer) noexcept;

  const size_t buffer_bytes_;
  const size_t out_max_;
  std::mutex mutex_;
  size_t out_ = 0;
  std::vector<PageBuffer> kept_; /* never grows beyond its reserve */
};

} // namespace qluks

#endif
