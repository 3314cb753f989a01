/* SPDX-License-Identifier: BSD-3-Clause */
#include <gtest/gtest.h>

#include "formats/partition/layer.hpp"
#include "formats/partition/table.hpp"
#include "tests/support/memory_device.hpp"
#include "tests/support/partition_builder.hpp"

namespace qluks {
namespace {

using test::MbrDisk;
using test::MemoryDevice;

struct Found {
  uint32_t number;
  uint64_t first;
  uint64_t last;
  bool operator==(const Found&) const = default;
};

Result<std::optional<PartitionTable>> read_table(const MbrDisk& disk) {
  MemoryDevice device(disk.bytes);
  return read_partition_table(device);
}

std::vector<Found> partitions(const MbrDisk& disk) {
  const auto table = read_table(disk);
  EXPECT_TRUE(table) << table.error().what;
  std::vector<Found> found;
  if (!table || !*table) return found;
  for (const PartitionEntry& e : (*table)->entries) {
    if (!e.extended) found.push_back({e.number, e.first_lba, e.last_lba});
  }
  return found;
}

std::string refusal(const MbrDisk& disk, uint32_t number) {
  MemoryDevice device(disk.bytes);
  const auto format = open_partition(device, number);
  EXPECT_FALSE(format);
  return format ? "" : format.error().what;
}

/* A primary partition and an extended one of sectors 100 to 899. */
MbrDisk with_extended(uint8_t type = 0x05) {
  MbrDisk disk(1000);
  disk.set(0, 0, 0x83, 10, 20);
  disk.set(0, 2, type, 100, 800);
  return disk;
}

/* Logical partitions at 110, 310 and 510, of 100 sectors each. */
MbrDisk with_logical(uint8_t type = 0x05) {
  MbrDisk disk = with_extended(type);
  for (const uint32_t at : {0U, 200U, 400U}) {
    disk.set(100 + at, 0, 0x83, 10, 100);
    if (at != 400) disk.set(100 + at, 1, 0x05, at + 200, 200);
  }
  return disk;
}

TEST(Mbr, PrimaryPartitionsKeepTheNumberOfTheirEntry) {
  MbrDisk disk(100);
  disk.set(0, 1, 0x83, 10, 20);
  disk.set(0, 3, 0x07, 50, 50);
  EXPECT_EQ(partitions(disk), (std::vector<Found>{{2, 10, 29}, {4, 50, 99}}));
  EXPECT_EQ(refusal(disk, 1), "there is no partition 1: the MBR has 2, 4");
}

TEST(Mbr, LogicalPartitionsCountFromFive) {
  for (const uint8_t type : {uint8_t{0x05}, uint8_t{0x0f}, uint8_t{0x85}}) {
    const std::vector<Found> expected = {{1, 10, 29}, {5, 110, 209}, {6, 310, 409}, {7, 510, 609}};
    EXPECT_EQ(partitions(with_logical(type)), expected);
  }
  EXPECT_EQ(refusal(with_logical(), 3), "partition 3: it is an extended partition: those inside of it count from 5");
  EXPECT_EQ(refusal(with_logical(), 8), "there is no partition 8: the MBR has 1, 3, 5, 6, 7");
}

TEST(Mbr, LinksMayGoBackwardAndEmptyOnesAreNotCounted) {
  MbrDisk disk = with_extended();
  disk.set(100, 1, 0x05, 400, 200);
  disk.set(500, 0, 0x83, 10, 100);
  disk.set(500, 1, 0x05, 200, 200);
  disk.set(300, 0, 0x83, 10, 100);
  EXPECT_EQ(partitions(disk), (std::vector<Found>{{1, 10, 29}, {5, 510, 609}, {6, 310, 409}}));
}

TEST(Mbr, GarbageInTheLastEntriesOfAnEbrIsNoPartition) {
  MbrDisk disk = with_extended();
  disk.set(100, 0, 0x83, 10, 100);
  disk.set(100, 2, 0x83, 700, 200); // ends behind the extended partition
  disk.set(100, 3, 0x83, 200, 100); // does not
  EXPECT_EQ(partitions(disk), (std::vector<Found>{{1, 10, 29}, {5, 110, 209}, {6, 300, 399}}));
}

TEST(Mbr, LoopIsRefused) {
  MbrDisk disk = with_logical();
  disk.set(500, 1, 0x05, 200, 200);
  EXPECT_EQ(refusal(disk, 5), "MBR: the chain of logical partitions comes back to the EBR at sector 300");
  disk.set(100, 1, 0x05, 0, 200);
  EXPECT_EQ(refusal(disk, 5), "MBR: the chain of logical partitions comes back to the EBR at sector 100");
}

TEST(Mbr, EndlessChainIsRefused) {
  MbrDisk disk(2000);
  disk.set(0, 0, 0x05, 100, 1900);
  for (uint32_t i = 0; i < 300; ++i) {
    disk.set(100 + i, 0, 0x83, 500, 1);
    disk.set(100 + i, 1, 0x05, i + 1, 1);
  }
  EXPECT_EQ(refusal(disk, 5), "MBR: the chain of logical partitions has more than 256 EBRs");
}

TEST(Mbr, DamagedEndOfTheChainLeavesThePartitionsInFrontOfIt) {
  MbrDisk disk = with_logical();
  disk.record(500).signature = 0;
  EXPECT_EQ(partitions(disk), (std::vector<Found>{{1, 10, 29}, {5, 110, 209}, {6, 310, 409}}));
  EXPECT_EQ(refusal(disk, 7),
            "there is no partition 7: the MBR has 1, 3, 5, 6; the EBR at sector 500 does not end in "
            "the signature 55 aa");
  disk.set(300, 1, 0x05, UINT32_MAX, 200);
  EXPECT_EQ(refusal(disk, 7),
            "there is no partition 7: the MBR has 1, 3, 5, 6; the EBR at sector 4294967395 lies "
            "behind the disk");
}

TEST(Mbr, PartitionBehindTheDiskIsRefusedWithBothSizes) {
  MbrDisk disk(100);
  disk.set(0, 0, 0x83, 50, 51);
  disk.set(0, 1, 0x83, UINT32_MAX, UINT32_MAX);
  EXPECT_EQ(refusal(disk, 1),
            "partition 1: it ends at byte 51712, behind the disk, which has 51200 bytes: is the image cut short?");
  EXPECT_EQ(refusal(disk, 2),
            "partition 2: it ends at byte 4398046510080, behind the disk, which has 51200 bytes: is "
            "the image cut short?");
}

TEST(Mbr, BootSectorsOfFileSystemsAreNoTables) {
  MbrDisk disk(100);
  disk.set(0, 0, 0x83, 10, 10);
  disk.record(0).entries[2].boot_indicator = 0x20;
  const auto table = read_table(disk);
  ASSERT_TRUE(table);
  EXPECT_FALSE(table->has_value());
  EXPECT_EQ(refusal(disk, 1), "there is no partition 1: the disk has no partition table (GPT or MBR)");
}

TEST(Mbr, TinyDisksHaveNoTable) {
  for (const size_t size : {0U, 1U, 511U, 512U, 1024U, 4096U}) {
    MemoryDevice device(std::vector<std::byte>(size, std::byte{0xff}));
    const auto table = read_partition_table(device);
    ASSERT_TRUE(table);
    EXPECT_FALSE(table->has_value());
  }
}

} // namespace
} // namespace qluks
