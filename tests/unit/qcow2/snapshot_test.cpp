/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/qcow2/snapshot.hpp"
#include "formats/luks/keyring.hpp"

#include <gtest/gtest.h>

#include "formats/qcow2/layer.hpp"
#include "tests/support/qcow2_image.hpp"

namespace qluks {
namespace {

using test::Qcow2Image;

constexpr uint64_t cluster = 65536;

/* An image of 1 MiB whose snapshot table has one entry, "before" with ID 7. */
struct SnapshotImage {
  struct Shape {
    uint64_t l1_offset = 2 * cluster;
    uint32_t l1_size = 1;
    uint32_t extra_bytes = 16;
    uint64_t disk_size = 512 * 1024;
    uint16_t name_bytes = 6;
  };

  explicit SnapshotImage(const Shape& shape) : image({}) {
    table = image.add_cluster(0);
    image.header().nb_snapshots = 1;
    image.header().snapshots_offset = table;
    Qcow2SnapshotOnDisk disk{};
    disk.l1_table_offset = shape.l1_offset;
    disk.l1_size = shape.l1_size;
    disk.id_size = 1;
    disk.name_size = shape.name_bytes;
    disk.extra_data_size = shape.extra_bytes;
    std::memcpy(&image.bytes()[table], &disk, sizeof disk);
    if (shape.extra_bytes >= 16) image.put_u64(table + sizeof disk + 8, shape.disk_size);
    if (shape.extra_bytes <= 1024) std::memcpy(&image.bytes()[table + sizeof disk + shape.extra_bytes], "7before", 7);
  }

  Result<Qcow2Snapshot> find(const std::string& wanted) {
    auto device = image.device();
    auto header = read_qcow2_header(device);
    if (!header) return propagate(header);
    return find_qcow2_snapshot(device, *header, wanted);
  }

  std::string refusal(const std::string& wanted = "before") {
    const auto found = find(wanted);
    return found ? "not refused" : found.error().what;
  }

  Qcow2Image image;
  uint64_t table;
};

TEST(Qcow2Snapshot, IsFoundByIdAndByName) {
  SnapshotImage snapshots({});
  for (const char* wanted : {"7", "before"}) {
    const auto found = snapshots.find(wanted);
    ASSERT_TRUE(found);
    EXPECT_EQ(found->disk_size, 512U * 1024);
    EXPECT_EQ(found->l1_offset, HostOffset{2 * cluster});
  }
}

TEST(Qcow2Snapshot, WithoutExtraDataItHasTheSizeOfTheDisk) {
  SnapshotImage snapshots({.extra_bytes = 8});
  const auto found = snapshots.find("7");
  ASSERT_TRUE(found);
  EXPECT_EQ(found->disk_size, 1U << 20);
}

TEST(Qcow2Snapshot, DiskLargerThanItsTableIsRefused) {
  EXPECT_EQ(SnapshotImage({.disk_size = 1ULL << 40}).refusal(),
            "qcow2 snapshot: l1_size 1 is less than the 2048 entries that disk_size 1099511627776 needs");
  EXPECT_EQ(SnapshotImage({.disk_size = 512ULL << 20}).refusal(), "not refused"); /* all that one entry maps */
  EXPECT_NE(SnapshotImage({.disk_size = (512ULL << 20) + 512}).refusal().find("l1_size 1 is less"), std::string::npos);
}

TEST(Qcow2Snapshot, TablePastTheEndOfTheFileIsRefused) {
  for (const uint64_t offset : {uint64_t{0x100000}, uint64_t{0x7fffffffff000000}}) {
    SnapshotImage snapshots({.l1_offset = offset});
    auto device = snapshots.image.device();
    Keyring keyring;
    const auto format = open_qcow2(device, keyring, {.snapshot = "7"});
    ASSERT_FALSE(format);
    EXPECT_NE(format.error().what.find(" go past the end, which is at 262144"), std::string::npos)
        << format.error().what;
  }
}

/* It does not say how large the disk was then, which may have grown since. */
TEST(Qcow2Snapshot, TableShorterThanTheDiskOfNowLeavesTheRestUnallocated) {
  SnapshotImage snapshots({.extra_bytes = 8});
  snapshots.image.header().size = 1ULL << 40;
  snapshots.image.header().l1_size = 2048;
  auto device = snapshots.image.device();
  Keyring keyring;
  const auto format = open_qcow2(device, keyring, {.snapshot = "7"});
  ASSERT_TRUE(format);
  const auto disk = (*format)->stack_on(device);
  EXPECT_EQ(disk->size(), 1ULL << 40);
  const auto extent = disk->extent(0, 1ULL << 40);
  ASSERT_TRUE(extent);
  EXPECT_EQ(extent->length, 1ULL << 40);
  EXPECT_TRUE(extent->hole && extent->zero);
}

TEST(Qcow2Snapshot, DefectsAreRefusedByName) {
  EXPECT_EQ(SnapshotImage({.extra_bytes = 1025}).refusal(),
            "qcow2 snapshot: extra data of 1025 bytes is longer than 1024");
  EXPECT_NE(SnapshotImage({.l1_offset = 512}).refusal().find("l1_table of the snapshot offset 0x200"),
            std::string::npos);
  EXPECT_NE(SnapshotImage({.l1_size = (4 << 20) + 1}).refusal().find("33554440 bytes is longer"), std::string::npos);
  EXPECT_NE(SnapshotImage({.disk_size = ~0ULL}).refusal().find("disk_size"), std::string::npos);
  EXPECT_EQ(
      SnapshotImage({.name_bytes = 65535}).refusal(),
      "qcow2 snapshot: table at 0x30000: 65535 bytes at offset 196665 go past the end, which is at 262144: is the "
      "file cut short?");
}

TEST(Qcow2Snapshot, TableHasAtMost64MiB) {
  constexpr size_t entry_bytes = 128 * 1024;
  constexpr size_t entries = 512; /* 64 MiB */
  Qcow2SnapshotOnDisk entry{};
  entry.extra_data_size = 1024;
  entry.id_size = 65535;
  entry.name_size = entry_bytes - sizeof entry - 1024 - 65535;
  SnapshotImage snapshots({});
  snapshots.image.bytes().resize(snapshots.table + (entries + 1) * entry_bytes);
  for (size_t i = 0; i <= entries; ++i) {
    std::memcpy(&snapshots.image.bytes()[snapshots.table + i * entry_bytes], &entry, sizeof entry);
  }
  snapshots.image.header().nb_snapshots = entries;
  EXPECT_NE(snapshots.refusal().find("no snapshot \"before\""), std::string::npos) << snapshots.refusal();
  snapshots.image.header().nb_snapshots = entries + 1;
  EXPECT_EQ(snapshots.refusal(), "qcow2 snapshot: the table is longer than 67108864 bytes");
}

TEST(Qcow2Snapshot, TableBeyondTheEndOfTheFileIsRefused) {
  SnapshotImage snapshots({});
  snapshots.image.header().snapshots_offset = 0x7f0000000000;
  snapshots.image.header().nb_snapshots = 65536;
  EXPECT_EQ(snapshots.refusal(),
            "qcow2 snapshot: table at 0x7f0000000000: 40 bytes at offset 139637976727552 go past the end, which is at "
            "262144: is the file cut short?");
}

TEST(Qcow2Snapshot, ADamagedTableDoesNotHideTheDisk) {
  SnapshotImage snapshots({.extra_bytes = 1025});
  auto device = snapshots.image.device();
  Keyring keyring;
  EXPECT_TRUE(open_qcow2(device, keyring, {}));
}

/* QEMU pads an entry only when another one follows. */
TEST(Qcow2Snapshot, TableMayEndWithTheNameOfTheLastSnapshot) {
  SnapshotImage snapshots({});
  const uint64_t end = snapshots.table + sizeof(Qcow2SnapshotOnDisk) + 16 + std::strlen("7before");
  ASSERT_NE(end % 8, 0U);
  snapshots.image.bytes().resize(end);
  EXPECT_TRUE(snapshots.find("before"));
  snapshots.image.bytes().resize(end - 1);
  EXPECT_NE(snapshots.refusal().find("is the file cut short?"), std::string::npos);
}

/* The third piece of the table begins in the padding behind its second entry. */
TEST(Qcow2Snapshot, FailureInThePaddingIsNotOverlooked) {
  Qcow2Image image({});
  const uint64_t table = image.add_cluster(0);
  image.add_cluster(0);
  image.add_cluster(0);
  uint64_t at = table;
  const auto add = [&](uint32_t extra_bytes, uint16_t id_bytes, uint16_t name_bytes) {
    Qcow2SnapshotOnDisk disk{};
    disk.l1_table_offset = 2 * cluster;
    disk.l1_size = 1;
    disk.extra_data_size = extra_bytes;
    disk.id_size = id_bytes;
    disk.name_size = name_bytes;
    std::memcpy(&image.bytes()[at], &disk, sizeof disk);
    at += sizeof disk + extra_bytes;
    std::memset(&image.bytes()[at], 'a' + static_cast<int>(image.header().nb_snapshots), size_t{id_bytes} + name_bytes);
    at = align_down<uint64_t>(at + id_bytes + name_bytes + 7, 8);
    image.header().nb_snapshots = image.header().nb_snapshots + 1;
  };
  add(16, 1, 65000);
  add(1, 1000, 64536);
  add(0, 1, 1);
  image.header().snapshots_offset = table;
  auto device = image.device();
  const auto header = read_qcow2_header(device);
  ASSERT_TRUE(header);
  EXPECT_TRUE(find_qcow2_snapshot(device, *header, "c"));
  const size_t calls = device.calls.size();
  EXPECT_EQ(calls, 4U);
  device.fail_call = calls + 3;
  const auto found = find_qcow2_snapshot(device, *header, "c");
  ASSERT_FALSE(found);
  EXPECT_EQ(found.error().code, Errc::io) << found.error().what;
}

} // namespace
} // namespace qluks
