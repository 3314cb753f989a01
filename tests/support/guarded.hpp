/* SPDX-License-Identifier: BSD-3-Clause */
/* Memory between two pages that cannot be touched: a byte read or written outside of it ends the program. */
#ifndef QLUKS_TESTS_SUPPORT_GUARDED_HPP
#define QLUKS_TESTS_SUPPORT_GUARDED_HPP

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <new>
#include <span>

namespace qluks::test {

class Guarded {
 public:
  explicit Guarded(size_t size_max) {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    bytes_ = (size_max + page - 1) / page * page;
    mapped_ = bytes_ + 2 * page;
    void* region = mmap(nullptr, mapped_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (region == MAP_FAILED) throw std::bad_alloc();
    region_ = static_cast<std::byte*>(region);
    data_ = region_ + page;
    if (mprotect(data_, bytes_, PROT_READ | PROT_WRITE) != 0) throw std::bad_alloc();
  }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;
  ~Guarded() { munmap(region_, mapped_); }

  /* `size` bytes right behind the first guard page, and right before the second. */
  std::span<std::byte> at_start(size_t size) { return {data_, size}; }
  std::span<std::byte> at_end(size_t size) { return {data_ + bytes_ - size, size}; }

 private:
  std::byte* region_;
  std::byte* data_;
  size_t bytes_;
  size_t mapped_;
};

} // namespace qluks::test

#endif
