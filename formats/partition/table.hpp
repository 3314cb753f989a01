/* SPDX-License-Identifier: BSD-3-Clause */
/* The partition table of a disk, of either kind, decoded into one structure.
 *
 *      GPT:   entry n of the array is partition n, counted from 1
 *      MBR:   1 to 4 are the entries of the MBR, logical partitions count from 5 in the order of their chain
 *
 * That is how Linux and nbdkit's partition filter count.  Where these two differ (an empty link in the chain, links
 * that go backward, a GPT without an entry for it in the MBR), we do as Linux does: that is what the disk's owner saw.
 */
#ifndef QLUKS_FORMATS_PARTITION_TABLE_HPP
#define QLUKS_FORMATS_PARTITION_TABLE_HPP

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/block_device.hpp"

namespace qluks {

enum class PartitionScheme : uint8_t { gpt, mbr };

/* As it stands in the table: not yet held against the disk. */
struct PartitionEntry {
  uint32_t number = 0;
  uint64_t first_lba = 0;
  uint64_t last_lba = 0;
  bool extended = false; /* of an MBR: holds logical partitions, and is none itself */
};

struct PartitionTable {
  PartitionScheme scheme = PartitionScheme::mbr;
  uint32_t sector_size = 512; /* bytes of an LBA */
  std::vector<PartitionEntry> entries;
  std::string damage; /* why there may be more partitions than these; empty: there are not */

  const char* name() const noexcept { return scheme == PartitionScheme::gpt ? "GPT" : "MBR"; }
};

/* Bytes of the disk. */
struct PartitionRange {
  uint64_t offset = 0;
  uint64_t length = 0;
};

/* Nothing if the disk has no partition table; an error if it has one that cannot be used. */
Result<std::optional<PartitionTable>> read_partition_table(BlockDevice& disk);

/* Where a partition lies on a disk of that size; refused if it does not lie on it. */
Result<PartitionRange> locate_partition(const PartitionTable& table, const PartitionEntry& entry, uint64_t disk_bytes);

} // namespace qluks

#endif
