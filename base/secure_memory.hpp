/* SPDX-License-Identifier: BSD-3-Clause */
/* Where the bytes of every SecureBuffer are: one region of memory, and more of its kind when it is full.
 *
 *      | guard page | 64 KiB in granules of 64 bytes: locked (best effort), not dumped | guard page |
 *
 * 64 KiB can be locked under every limit that is in use.  What does not fit gets a region of its own: that is the key
 * material of one slot, a quarter of a MiB while it is being worked on, or a large key file.  A region other than the
 * first goes when nothing is left in it.  What is free is zero.
 *
 * Locks are not inherited by a child process, but the memory is.  nbdkit reads secrets while it still has the
 * terminal and then forks; the child is told by keep_secure_memory_here() to lock again what it inherited.  From then
 * on whoever is forked, such as a script that a plugin runs, finds zeroes instead.  A program that posix_spawn starts
 * sees nothing: it never has a copy.
 */
#ifndef QLUKS_BASE_SECURE_MEMORY_HPP
#define QLUKS_BASE_SECURE_MEMORY_HPP

#include <cstddef>

namespace qluks {

/* A cache line, which is how key schedules want to be aligned. */
inline constexpr size_t secure_granule_bytes = 64;

/* `size` zero bytes, more than none, aligned to a granule.  Throws std::bad_alloc.  A warning is logged, once, when
 * they cannot be locked. */
std::byte* allocate_secure(size_t size);

/* Wipes bytes and takes them back: all that were allocated, or those from a multiple of granules on. */
void free_secure(std::byte* bytes, size_t size) noexcept;

/* This is the process that serves: lock what was allocated before it was forked, and leave nothing to its children. */
void keep_secure_memory_here();

} // namespace qluks

#endif
