/* SPDX-License-Identifier: BSD-3-Clause */
/* The MBR's four partitions, and the logical ones in an extended partition:
 *
 *      MBR ─▶ extended partition: EBR ─▶ EBR ─▶ EBR …     each: one logical partition and a link to the next
 *
 * Logical partitions count their sectors from their own EBR, links count from the start of the extended partition.
 * Sectors have 512 bytes: an MBR does not say so, but on disks of 4096 there are GPTs.
 */
#ifndef QLUKS_FORMATS_PARTITION_MBR_HPP
#define QLUKS_FORMATS_PARTITION_MBR_HPP

#include "formats/partition/ondisk.hpp"
#include "formats/partition/table.hpp"

namespace qluks {

/* Is it an MBR, and not the boot sector of a file system, which ends in the same signature? */
bool is_mbr(const MbrOnDisk& mbr) noexcept;

/* Does one of its entries stand for a GPT? */
bool protects_gpt(const MbrOnDisk& mbr) noexcept;

/* A chain of EBRs that comes back to where it was is refused; one that ends in damage gives the partitions up to there.
 */
Result<PartitionTable> read_mbr_partitions(BlockDevice& disk, const MbrOnDisk& mbr);

} // namespace qluks

#endif
