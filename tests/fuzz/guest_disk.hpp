/* SPDX-License-Identifier: BSD-3-Clause */
/* The requests of a script, made to the disk that an image holds. */
#ifndef QLUKS_TESTS_FUZZ_GUEST_DISK_HPP
#define QLUKS_TESTS_FUZZ_GUEST_DISK_HPP

#include "base/block_device.hpp"
#include "formats/format.hpp"
#include "tests/fuzz/fuzz_case.hpp"

namespace qluks::fuzz {

/* Check what the disk answers: that a part of a range reads like the range, that extents are not longer than asked for,
 * and that what is said to be zero is. */
void make_requests(BlockDevice& disk, const ScriptOnDisk& script);

/* The same to what an opened image shows of `below`. */
void use_format(Format& format, BlockDevice& below, const ScriptOnDisk& script);

} // namespace qluks::fuzz

#endif
