/* SPDX-License-Identifier: BSD-3-Clause */
/* The GUID Partition Table, of which a disk has two copies:
 *
 *      | MBR | header | entries | partitions … | entries | header |
 *        LBA 0  LBA 1                                      last LBA
 *
 * The first copy is used if its checksums are right, else the last one.  An LBA has 512 or 4096 bytes, which nothing on
 * the disk says but the place of the header.
 */
#ifndef QLUKS_FORMATS_PARTITION_GPT_HPP
#define QLUKS_FORMATS_PARTITION_GPT_HPP

#include "formats/partition/table.hpp"

namespace qluks {

/* `expected`: the MBR says that there is one.  Nothing if there is none; an error if no copy can be used. */
Result<std::optional<PartitionTable>> read_gpt(BlockDevice& disk, bool expected);

} // namespace qluks

#endif
