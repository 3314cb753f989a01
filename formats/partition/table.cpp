/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/partition/table.hpp"

#include "base/checked.hpp"
#include "base/window.hpp"
#include "formats/partition/gpt.hpp"
#include "formats/partition/mbr.hpp"

namespace qluks {

namespace {

tl::unexpected<Error> invalid(const PartitionEntry& entry, const std::string& what) {
  return fail(Errc::invalid_format, "partition " + std::to_string(entry.number) + ": " + what, EINVAL);
}

} // namespace

/* As Linux: an MBR without an entry that stands for the GPT was written over it and is what counts. */
Result<std::optional<PartitionTable>> read_partition_table(BlockDevice& disk) {
  std::array<std::byte, sizeof(MbrOnDisk)> bytes;
  if (Status s = read_zero_padded(disk, bytes, 0); !s) return propagate(s);
  const auto mbr = load_on_disk<MbrOnDisk>(bytes);
  if (!is_mbr(mbr) || protects_gpt(mbr)) return read_gpt(disk, is_mbr(mbr));
  auto table = read_mbr_partitions(disk, mbr);
  if (!table) return propagate(table);
  return std::move(*table);
}

Result<PartitionRange> locate_partition(const PartitionTable& table, const PartitionEntry& entry, uint64_t disk_bytes) {
  if (entry.extended) return invalid(entry, "it is an extended partition: those inside of it count from 5");
  if (entry.last_lba < entry.first_lba) {
    return invalid(entry, "its last LBA " + std::to_string(entry.last_lba) + " lies in front of its first, " +
                              std::to_string(entry.first_lba));
  }
  const auto sectors = checked_add<uint64_t>(entry.last_lba, 1);
  const auto end = sectors ? checked_mul<uint64_t>(*sectors, table.sector_size) : std::nullopt;
  if (!end) {
    return invalid(entry, "its last LBA " + std::to_string(entry.last_lba) + " lies behind the disk, which has " +
                              std::to_string(disk_bytes) + " bytes");
  }
  if (*end > disk_bytes) {
    return invalid(entry, "it ends at byte " + std::to_string(*end) + ", behind the disk, which has " +
                              std::to_string(disk_bytes) + " bytes: is the image cut short?");
  }
  const uint64_t offset = entry.first_lba * table.sector_size;
  return PartitionRange{offset, *end - offset};
}

} // namespace qluks
