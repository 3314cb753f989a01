/* SPDX-License-Identifier: BSD-3-Clause */
/* How long the container of a qcow2 is used, and how long it may have to be. */
#ifndef QLUKS_FORMATS_QCOW2_ROOM_HPP
#define QLUKS_FORMATS_QCOW2_ROOM_HPP

#include "base/block_device.hpp"
#include "formats/qcow2/header.hpp"

namespace qluks {

/* The end of the last cluster whose refcount is not 0. */
Result<uint64_t> qcow2_used_end(BlockDevice& container, const Qcow2Header& header);

/* A container that is used up to there, and in which the whole disk is written once more: data, L2 tables, and
 * refcounts for all of them.  Nothing if no file can be so long. */
std::optional<uint64_t> qcow2_room_needed(const Qcow2Header& header, uint64_t used_end) noexcept;

} // namespace qluks

#endif
