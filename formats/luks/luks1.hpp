/* SPDX-License-Identifier: BSD-3-Clause */
/* LUKS version 1: from the bytes on the device to a LuksHeader.
 *
 * A header has to pass the rules of cryptsetup and those of QEMU, which differ: only cryptsetup asks that the key
 * material fits the device and stays in front of a detached payload; only QEMU asks for terminated strings, known
 * `active` words and iteration counts above zero.  Where the two contradict each other on geometry (cryptsetup 1.0
 * put its first key slot into sector 2 and packed the slots by the sector; QEMU wants 4 KiB units), we follow QEMU
 * inside of a qcow2, which nothing but QEMU writes, and cryptsetup everywhere else.
 */
#ifndef QLUKS_FORMATS_LUKS_LUKS1_HPP
#define QLUKS_FORMATS_LUKS_LUKS1_HPP

#include "formats/luks/header.hpp"

namespace qluks {

Result<LuksHeader> read_luks1(BlockDevice& device, HeaderPlace place);

} // namespace qluks

#endif
