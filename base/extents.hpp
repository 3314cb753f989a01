/* SPDX-License-Identifier: BSD-3-Clause */
/* Extents are a promise: what is called zero reads as zeroes, and a hole has nothing to copy.  Clients drop what they
 * are told is zero without ever reading it.
 *
 * Storage behind a server or a plugin may be older than what is said of it: a file that was cut short is told as a hole
 * up to its old end, but cannot be read there.
 */
#ifndef QLUKS_BASE_EXTENTS_HPP
#define QLUKS_BASE_EXTENTS_HPP

#include "base/block_device.hpp"

namespace qluks {

/* What may be told of the extent at `offset` that storage claims to have.  Its last byte is read from `device`: if
 * that fails, nothing is promised; if it is not zero, the extent is data.  A hole that is not said to read as zeroes is
 * data as well: some clients take any hole for zeroes. */
Result<Extent> confirmed(BlockDevice& device, uint64_t offset, const Extent& claimed);

} // namespace qluks

#endif
