/* SPDX-License-Identifier: BSD-3-Clause */
/* Memory that runs out: a program that links failing_memory.cpp has allocators that fail at the n-th call.
 *
 * It replaces malloc and its kin, mmap, mprotect, mlock and pthread_create, so the libraries that we call are in it as
 * well.  Sanitizers have allocators of their own; with them operator new is all that fails. */
#ifndef QLUKS_TESTS_SUPPORT_FAILING_MEMORY_HPP
#define QLUKS_TESTS_SUPPORT_FAILING_MEMORY_HPP

#include <cstddef>

namespace qluks::test {

/* From now on the n-th call fails (from 1; 0: none), or all from the n-th on. */
void fail_memory_at(size_t nth, bool always) noexcept;

/* Stop failing and counting for a while; true: go on. */
void count_memory(bool on) noexcept;

/* Calls since fail_memory_at, and how many of them have failed. */
size_t memory_calls() noexcept;
size_t memory_failures() noexcept;

/* Blocks and mapped bytes that are in use now, by everything in this program. */
struct MemoryInUse {
  size_t blocks;
  size_t mapped_bytes;
  bool operator==(const MemoryInUse&) const = default;
};
MemoryInUse memory_in_use() noexcept;

} // namespace qluks::test

#endif
