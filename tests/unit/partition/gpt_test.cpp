/* SPDX-License-Identifier: BSD-3-Clause */
#include <gtest/gtest.h>

#include "formats/partition/layer.hpp"
#include "formats/partition/table.hpp"
#include "tests/support/memory_device.hpp"
#include "tests/support/partition_builder.hpp"

namespace qluks {
namespace {

using test::GptDisk;
using test::MemoryDevice;

constexpr uint64_t disk_sectors = 300;

GptDisk two_partitions(uint32_t sector_size = 512) {
  GptDisk disk(disk_sectors, sector_size);
  disk.set(1, 40, 99);
  disk.set(3, 100, 199);
  return disk;
}

std::vector<uint32_t> numbers(const PartitionTable& table) {
  std::vector<uint32_t> found;
  for (const PartitionEntry& entry : table.entries) found.push_back(entry.number);
  return found;
}

/* The table; fails the test if there is none. */
PartitionTable read_table(const GptDisk& disk) {
  MemoryDevice device(disk.bytes);
  auto table = read_partition_table(device);
  EXPECT_TRUE(table) << table.error().what;
  if (!table || !*table) {
    ADD_FAILURE() << "no table";
    return {};
  }
  return **table;
}

std::string refusal(const std::vector<std::byte>& bytes, uint32_t number = 1) {
  MemoryDevice device(bytes);
  const auto format = open_partition(device, number);
  EXPECT_FALSE(format);
  return format ? "" : format.error().what;
}

/* What the message of a disk says whose both headers have been changed, with checksums that fit. */
template <class ChangeFn>
std::string refusal_after(ChangeFn&& change) {
  GptDisk disk = two_partitions();
  for (const bool last : {false, true}) {
    change(disk.header(last));
    disk.header(last).header_crc32 = 0;
    const uint32_t size = std::min<uint32_t>(disk.header(last).header_size, 512);
    const auto* bytes = reinterpret_cast<const Bytef*>(&disk.header(last));
    disk.header(last).header_crc32 = static_cast<uint32_t>(crc32(0, bytes, size));
  }
  return refusal(disk.bytes);
}

TEST(Gpt, CountsEntriesFromOneAndSkipsUnusedOnes) {
  const PartitionTable table = read_table(two_partitions());
  EXPECT_EQ(table.scheme, PartitionScheme::gpt);
  EXPECT_EQ(numbers(table), (std::vector<uint32_t>{1, 3}));
  EXPECT_EQ(table.entries[1].first_lba, 100U);
  EXPECT_EQ(table.entries[1].last_lba, 199U);
}

TEST(Gpt, ServesThePartitionShifted) {
  for (const uint32_t sector : {512U, 4096U}) {
    const GptDisk disk = [&] {
      GptDisk d = two_partitions(sector);
      for (size_t i = 40 * sector; i < 200 * sector; ++i) d.bytes[i] = static_cast<std::byte>(i / sector);
      return d;
    }();
    MemoryDevice device(disk.bytes);
    const auto format = open_partition(device, 3);
    ASSERT_TRUE(format) << format.error().what;
    EXPECT_EQ((*format)->describe(), "partition 3");
    const auto layer = (*format)->stack_on(device);
    ASSERT_EQ(layer->size(), 100U * sector);
    std::vector<std::byte> bytes(layer->size());
    device.calls.clear();
    ASSERT_TRUE(layer->read(bytes, 0));
    EXPECT_EQ(device.calls, (std::vector<test::ReadCall>{{100 * sector, 100 * sector}}));
    EXPECT_EQ(bytes.front(), std::byte{100});
    EXPECT_EQ(bytes.back(), std::byte{199});
  }
}

TEST(Gpt, EntriesMayBeLargerAndMoreThanUsual) {
  GptDisk disk(disk_sectors, 512, 100, 256);
  disk.set(100, 120, 130);
  EXPECT_EQ(numbers(read_table(disk)), std::vector<uint32_t>{100});
}

TEST(Gpt, EitherCopyServesWhenTheOtherIsDamaged) {
  for (const uint32_t sector : {512U, 4096U}) {
    for (const bool damaged_last : {false, true}) {
      for (const size_t part : {0U, 1U, 2U}) {
        GptDisk disk = two_partitions(sector);
        if (part == 0) disk.header(damaged_last).signature[0] = 'X';
        if (part == 1) disk.header(damaged_last).revision = 5; // not what its checksum says
        if (part == 2) disk.entry(damaged_last, 1).starting_lba = 41;
        const PartitionTable table = read_table(disk);
        EXPECT_EQ(numbers(table), (std::vector<uint32_t>{1, 3}));
        EXPECT_EQ(table.entries[0].first_lba, 40U);
        EXPECT_EQ(table.sector_size, sector);
      }
    }
  }
}

TEST(Gpt, LastCopyIsFoundWithoutAnMbrAndWhereTheFirstSaysOnADiskThatHasGrown) {
  GptDisk wiped = two_partitions();
  std::fill_n(wiped.bytes.begin(), 34 * 512, std::byte{0});
  EXPECT_EQ(numbers(read_table(wiped)), (std::vector<uint32_t>{1, 3}));

  GptDisk grown = two_partitions();
  grown.entry(false, 1).starting_lba = 41;
  grown.bytes.resize(2 * grown.bytes.size());
  EXPECT_EQ(numbers(read_table(grown)), (std::vector<uint32_t>{1, 3}));
}

TEST(Gpt, FirstCopyIsWhatCounts) {
  GptDisk disk = two_partitions();
  disk.entry(true, 1).starting_lba = 77;
  disk.seal();
  EXPECT_EQ(read_table(disk).entries[0].first_lba, 40U);
}

TEST(Gpt, BothCopiesDamagedIsRefusedWithWhatIsWrong) {
  GptDisk disk = two_partitions();
  disk.header(false).revision = 5;
  disk.entry(true, 1).starting_lba = 41;
  const std::string what = refusal(disk.bytes);
  EXPECT_NE(what.find("GPT header at byte 512: header_crc32 0x"), std::string::npos) << what;
  EXPECT_NE(what.find("GPT header at byte 153088: partition_entry_array_crc32 0x"), std::string::npos) << what;

  std::fill_n(disk.bytes.begin() + 512, disk.bytes.size() - 512, std::byte{0});
  EXPECT_EQ(refusal(disk.bytes),
            "the MBR says that there is a GPT, but none starts at byte 512 or 4096, nor in the last sector of the "
            "disk, which has 153600 bytes");
}

TEST(Gpt, FieldsOutsideOfTheirLimitsAreNamed) {
  using Header = GptHeaderOnDisk;
  const auto expect = [](const std::string& what, const std::string& part) {
    EXPECT_NE(what.find(part), std::string::npos) << what;
  };
  expect(refusal_after([](Header& h) { h.header_size = 91; }), "header_size 91 is not between 92 and 512");
  expect(refusal_after([](Header& h) { h.header_size = 513; }), "header_size 513 is not between 92 and 512");
  expect(refusal_after([](Header& h) { h.header_size = UINT32_MAX; }), "header_size 4294967295 is not");
  expect(refusal_after([](Header& h) { h.my_lba = 7; }), "my_lba 7 is not 1");
  for (const uint32_t size : {0U, 1U, 64U, 127U, 129U, 8192U, UINT32_MAX}) {
    expect(refusal_after([&](Header& h) { h.size_of_partition_entry = size; }),
           "size_of_partition_entry " + std::to_string(size) + " is no power of two from 128 to 4096");
  }
  for (const uint32_t count : {8193U, 1U << 25, UINT32_MAX}) {
    expect(refusal_after([&](Header& h) { h.number_of_partition_entries = count; }),
           "number_of_partition_entries " + std::to_string(count) + " of 128 bytes is more than 1 MiB");
  }
  for (const uint64_t lba : {disk_sectors - 31, disk_sectors, uint64_t{1} << 55, UINT64_MAX}) {
    expect(refusal_after([&](Header& h) { h.partition_entry_lba = lba; }),
           "partition_entry_lba " + std::to_string(lba) + ": the entries end behind the disk, which has 153600 bytes");
  }
}

TEST(Gpt, PartitionsThatDoNotLieOnTheDiskAreRefusedByName) {
  const auto message = [](uint64_t first, uint64_t last) {
    GptDisk disk = two_partitions();
    disk.set(1, first, last);
    return refusal(disk.bytes);
  };
  EXPECT_EQ(message(40, 300),
            "partition 1: it ends at byte 154112, behind the disk, which has 153600 bytes: is the image cut short?");
  EXPECT_EQ(message(50, 49), "partition 1: its last LBA 49 lies in front of its first, 50");
  EXPECT_EQ(message(40, UINT64_MAX),
            "partition 1: its last LBA 18446744073709551615 lies behind the disk, which has 153600 bytes");
  EXPECT_EQ(message(40, uint64_t{1} << 55),
            "partition 1: its last LBA 36028797018963968 lies behind the disk, which has 153600 bytes");
  EXPECT_EQ(message(UINT64_MAX, UINT64_MAX - 1),
            "partition 1: its last LBA 18446744073709551614 lies in front of its first, 18446744073709551615");
}

TEST(Gpt, DiskThatIsCutShortServesThePartitionsThatAreThere) {
  GptDisk disk = two_partitions();
  disk.bytes.resize(150 * 512);
  MemoryDevice device(disk.bytes);
  EXPECT_TRUE(open_partition(device, 1));
  EXPECT_EQ(refusal(disk.bytes, 3),
            "partition 3: it ends at byte 102400, behind the disk, which has 76800 bytes: is the image cut short?");
}

TEST(Gpt, PartitionThatIsNotThereIsToldWithThoseThatAre) {
  EXPECT_EQ(refusal(two_partitions().bytes, 2), "there is no partition 2: the GPT has 1, 3");
  EXPECT_EQ(refusal(GptDisk(disk_sectors).bytes, 1), "there is no partition 1: the GPT has none");
}

TEST(Gpt, MbrThatWasWrittenOverItIsWhatCounts) {
  GptDisk disk = two_partitions();
  auto& mbr = test::at<MbrOnDisk>(disk.bytes, 0);
  mbr.entries[0].os_type = 0x83;
  mbr.entries[0].starting_lba = 50;
  mbr.entries[0].size_in_lba = 10;
  const PartitionTable table = read_table(disk);
  EXPECT_EQ(table.scheme, PartitionScheme::mbr);
  EXPECT_EQ(table.entries[0].first_lba, 50U);
}

/* Storage that fails is not a damaged copy. */
TEST(Gpt, FailureOfEveryReadIsAnError) {
  const GptDisk disk = two_partitions();
  MemoryDevice counting(disk.bytes);
  ASSERT_TRUE(open_partition(counting, 1));
  for (size_t call = 1; call <= counting.calls.size(); ++call) {
    MemoryDevice device(disk.bytes);
    device.fail_call = call;
    const auto format = open_partition(device, 1);
    ASSERT_FALSE(format);
    EXPECT_EQ(format.error().code, Errc::io);
  }
}

} // namespace
} // namespace qluks
