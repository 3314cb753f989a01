/* SPDX-License-Identifier: BSD-3-Clause */
#include <gtest/gtest.h>

#include <functional>
#include <utility>

#include "formats/luks/keyring.hpp"
#include "formats/qcow2/layer.hpp"
#include "tests/support/qcow2_image.hpp"
#include "tests/support/writable_device.hpp"

namespace qluks {
namespace {

using test::Qcow2Image;
using test::WritableDevice;
using test::WriteCall;
using Kind = WriteCall::Kind;

constexpr uint64_t cluster = 65536;
constexpr uint64_t l1_at = 2 * cluster;
constexpr uint64_t first_free = 4 * cluster; /* behind header, refcount table, L1 table and refcount block */

/* Flushes and writes fail from the moment when they are told to. */
class Storage : public WritableDevice {
 public:
  using WritableDevice::WritableDevice;

  Status write(std::span<const std::byte> src, uint64_t offset, Fua fua) override {
    return fails ? fail(Errc::io, "injected failure", EIO) : WritableDevice::write(src, offset, fua);
  }
  Status flush() override { return fails ? fail(Errc::io, "injected failure", EIO) : WritableDevice::flush(); }

  size_t count(Kind kind) const {
    return static_cast<size_t>(
        std::count_if(calls.begin(), calls.end(), [&](const WriteCall& c) { return c.kind == kind; }));
  }

  /* What others do while the next read is under way. */
  Status read(std::span<std::byte> dst, uint64_t offset) override {
    if (auto others = std::exchange(meanwhile, nullptr)) others();
    return WritableDevice::read(dst, offset);
  }

  bool fails = false;
  std::function<void()> meanwhile;
};

class Qcow2Write : public testing::Test {
 protected:
  Qcow2Write() : Qcow2Write(40) {}
  explicit Qcow2Write(uint64_t free_clusters) : Qcow2Write(Qcow2Image({.size = 64 * cluster}), free_clusters) {}
  Qcow2Write(Qcow2Image image, uint64_t free_clusters) : storage(writable(std::move(image), free_clusters)) { open(); }

  static std::vector<std::byte> writable(Qcow2Image image, uint64_t free_clusters) {
    image.make_writable(free_clusters);
    return std::move(image.bytes());
  }

  void open(const Qcow2Options& options = {}) {
    disk.reset();
    Keyring keyring;
    auto opened = open_qcow2(storage, keyring, options);
    ASSERT_TRUE(opened);
    ASSERT_EQ((*opened)->why_read_only(), "");
    format = std::move(*opened);
    disk = format->stack_on(storage);
    storage.calls.clear();
  }

  static std::vector<std::byte> filled(size_t length, uint8_t fill) { return std::vector(length, std::byte{fill}); }

  void write(uint64_t offset, size_t length, uint8_t fill, Fua fua = Fua::no) {
    ASSERT_TRUE(disk->write(filled(length, fill), offset, fua));
  }

  std::vector<std::byte> read(uint64_t offset, size_t length) {
    std::vector<std::byte> bytes(length);
    EXPECT_TRUE(disk->read(bytes, offset));
    return bytes;
  }

  Storage storage;
  std::unique_ptr<Qcow2Format> format;
  std::unique_ptr<BlockDevice> disk;
};

TEST_F(Qcow2Write, CopyCostsOneWriteForEachRequest) {
  for (uint64_t i = 0; i < 16; ++i) write(i * 2 * cluster, 2 * cluster, static_cast<uint8_t>(i + 1));
  ASSERT_EQ(storage.calls.size(), 16U);
  for (uint64_t i = 0; i < 16; ++i) EXPECT_EQ(storage.calls[i].length, 2 * cluster);
  EXPECT_EQ(read(31 * cluster, cluster), filled(cluster, 16));
}

TEST_F(Qcow2Write, FlushIsTwoAfterAllocatingAndOneElse) {
  write(0, cluster, 1);
  ASSERT_TRUE(disk->flush());
  EXPECT_EQ(storage.count(Kind::flush), 2U);
  storage.calls.clear();
  write(100, 5000, 2);
  ASSERT_TRUE(disk->flush());
  EXPECT_EQ(storage.count(Kind::write), 1U);
  EXPECT_EQ(storage.count(Kind::flush), 1U);
  storage.calls.clear();
  ASSERT_TRUE(disk->zero(0, cluster, ZeroMode::may_trim, Fua::no));
  ASSERT_TRUE(disk->flush());
  EXPECT_EQ(storage.count(Kind::flush), 1U); /* the entry leads nowhere new */
}

/* Data, refcounts and the new L2 table, flush, L1 entry, flush. */
TEST_F(Qcow2Write, NothingStableLeadsToWhatIsNot) {
  write(0, cluster, 1);
  ASSERT_TRUE(disk->flush());
  const auto& calls = storage.calls;
  ASSERT_GE(calls.size(), 5U);
  size_t first_flush = 0;
  while (calls[first_flush].kind != Kind::flush) ++first_flush;
  const auto writes = [&](size_t from, size_t to, uint64_t at) {
    return std::any_of(calls.begin() + static_cast<ptrdiff_t>(from), calls.begin() + static_cast<ptrdiff_t>(to),
                       [&](const WriteCall& c) { return c.kind == Kind::write && c.offset / cluster == at / cluster; });
  };
  EXPECT_TRUE(writes(0, first_flush, 3 * cluster));          /* refcount block */
  EXPECT_TRUE(writes(0, first_flush, first_free));           /* the L2 table */
  EXPECT_TRUE(writes(0, first_flush, first_free + cluster)); /* the data */
  EXPECT_FALSE(writes(0, first_flush, l1_at));
  EXPECT_TRUE(writes(first_flush, calls.size(), l1_at));
  EXPECT_EQ(calls.back().kind, Kind::flush);
}

TEST_F(Qcow2Write, RestOfANewClusterIsZeroesWhateverLiesThere) {
  write(5 * cluster + 1000, 10, 7);
  auto expected = filled(cluster, 0);
  std::fill_n(expected.begin() + 1000, 10, std::byte{7});
  EXPECT_EQ(read(5 * cluster, cluster), expected);
  ASSERT_TRUE(disk->flush());
  open();
  EXPECT_EQ(read(5 * cluster, cluster), expected);
}

/* But for what storage says of it: then nothing is written but the request. */
TEST_F(Qcow2Write, RestOfANewClusterIsNotWrittenWhereStorageHasZeroes) {
  std::fill(storage.bytes.begin() + first_free, storage.bytes.end(), std::byte{0});
  open();
  write(5 * cluster + 1000, 10, 7);
  write(6 * cluster + 1000, cluster, 8);
  ASSERT_EQ(storage.calls.size(), 2U);
  EXPECT_EQ(storage.calls[0].length, 10U);
  EXPECT_EQ(storage.calls[1].length, cluster);
  auto expected = filled(3 * cluster, 0);
  std::fill_n(expected.begin() + 1000, 10, std::byte{7});
  std::fill_n(expected.begin() + cluster + 1000, cluster, std::byte{8});
  EXPECT_EQ(read(5 * cluster, 3 * cluster), expected);
  ASSERT_TRUE(disk->flush());
  open();
  EXPECT_EQ(read(5 * cluster, 3 * cluster), expected);
}

/* What storage said of a cluster before it was used is no longer true, whoever used it. */
TEST_F(Qcow2Write, ClusterThatWasUsedIsNotBlank) {
  storage.abilities.trim = false;
  write(30 * cluster, 2 * cluster, 1);
  write(0, 2 * cluster, 1);
  ASSERT_TRUE(disk->trim(30 * cluster, 2 * cluster, Fua::no));
  ASSERT_TRUE(disk->flush());
  /* Now there are two free clusters, two that the guest has, and free ones again; all of them hold zeroes. */
  std::fill(storage.bytes.begin() + first_free + cluster, storage.bytes.end(), std::byte{0});
  open();
  write(40 * cluster, 10, 1); /* asks storage */
  write(0, 2 * cluster, 2);
  ASSERT_TRUE(disk->trim(0, 2 * cluster, Fua::no));
  ASSERT_TRUE(disk->trim(40 * cluster, cluster, Fua::no));
  ASSERT_TRUE(disk->flush());
  for (uint64_t i = 50; i < 55; ++i) write(i * cluster + 50, 10, 3);
  for (uint64_t i = 50; i < 55; ++i) {
    auto expected = filled(cluster, 0);
    std::fill_n(expected.begin() + 50, 10, std::byte{3});
    EXPECT_EQ(read(i * cluster, cluster), expected) << i;
  }
}

TEST_F(Qcow2Write, FuaGoesDownWhenTheTablesAreStable) {
  write(0, 512, 1, Fua::yes);
  EXPECT_EQ(storage.count(Kind::flush), 2U);
  storage.calls.clear();
  write(0, 512, 2, Fua::yes);
  ASSERT_EQ(storage.calls.size(), 1U);
  EXPECT_EQ(storage.calls[0].fua, Fua::yes);
  write(cluster, 512, 3);
  storage.calls.clear();
  write(cluster, 512, 4, Fua::yes); /* its L2 entry is not stable yet */
  EXPECT_GE(storage.count(Kind::flush), 1U);
}

TEST_F(Qcow2Write, FreedClusterIsUsedAgainOnlyWhenItsReleaseIsStable) {
  write(0, cluster, 1);
  ASSERT_TRUE(disk->flush());
  const uint64_t data = first_free + cluster;
  ASSERT_TRUE(disk->trim(0, cluster, Fua::no));
  storage.calls.clear();
  write(cluster, cluster, 2);
  EXPECT_EQ(storage.calls[0].offset, data + cluster);
  ASSERT_TRUE(disk->flush());
  EXPECT_EQ(storage.count(Kind::trim), 1U);
  storage.calls.clear();
  write(2 * cluster, cluster, 3);
  EXPECT_EQ(storage.calls[0].offset, data);
  EXPECT_EQ(read(0, cluster), filled(cluster, 0));
}

/* The reader has looked up where the cluster is, and waits for storage. */
TEST_F(Qcow2Write, FreedClusterIsNotGivenAwayUnderAReader) {
  write(0, cluster, 1);
  ASSERT_TRUE(disk->flush());
  const auto reader = format->stack_on(storage);
  storage.meanwhile = [&] {
    ASSERT_TRUE(disk->trim(0, cluster, Fua::no));
    ASSERT_TRUE(disk->flush());
    for (uint64_t i = 1; i < 30; ++i) write(i * cluster, cluster, 2);
    ASSERT_TRUE(disk->flush());
  };
  std::vector<std::byte> bytes(cluster);
  ASSERT_TRUE(reader->read(bytes, 0));
  ASSERT_FALSE(storage.meanwhile);
  for (const std::byte b : bytes) ASSERT_NE(b, std::byte{2}); /* as it was, or trimmed */
}

TEST_F(Qcow2Write, FailedWriteChangesNothing) {
  storage.fails = true;
  EXPECT_FALSE(disk->write(filled(cluster, 1), 0, Fua::no));
  storage.fails = false;
  EXPECT_EQ(read(0, cluster), filled(cluster, 0));
  write(0, cluster, 2);
  EXPECT_EQ(storage.calls[0].offset, first_free + cluster); /* given back, and taken again */
}

TEST_F(Qcow2Write, FailedWriteBackEndsWritingAndNotReading) {
  write(0, cluster, 1);
  storage.fails = true;
  EXPECT_FALSE(disk->flush());
  storage.fails = false;
  const Status written = disk->write(filled(cluster, 1), cluster, Fua::no);
  ASSERT_FALSE(written);
  EXPECT_EQ(written.error().sys, EIO);
  EXPECT_FALSE(disk->flush());
  EXPECT_EQ(read(0, cluster), filled(cluster, 1));
  EXPECT_EQ(storage.bytes[l1_at + 6], std::byte{0});
}

/* Beyond the disk the L1 table leads to a table in a cluster that is counted as free. */
TEST(Qcow2ReadOnly, L1EntriesBehindTheDiskCountAsWell) {
  Qcow2Image image({.size = 4 * cluster});
  image.header().l1_size = 8;
  image.set_l1(5, (8 * cluster) | uint64_t{1} << 63);
  image.make_writable(40);
  WritableDevice storage(image.bytes());
  Keyring keyring;
  const auto opened = open_qcow2(storage, keyring, {});
  ASSERT_TRUE(opened);
  EXPECT_EQ((*opened)->why_read_only(), "qcow2: L2 table at 0x80000 has refcount 0");
}

class Qcow2ManyTables : public Qcow2Write {
 protected:
  static constexpr uint64_t small = 512;
  static constexpr uint64_t per_table = 64 * small;
  Qcow2ManyTables() : Qcow2Write(Qcow2Image({.size = 32 * per_table, .cluster_bits = 9}), 3000) {}
};

/* Also with a cache that keeps next to nothing. */
TEST_F(Qcow2ManyTables, FailedWriteBackLeavesWhatWasAcknowledgedToReaders) {
  for (uint64_t at = 0; at < 32 * per_table; at += per_table) write(at, 2 * small, 1);
  ASSERT_TRUE(disk->flush());
  open({.cache_bytes = 4096});
  ASSERT_TRUE(disk->trim(0, small, Fua::no));
  write(9 * small, small, 3);
  storage.fails = true;
  EXPECT_FALSE(disk->flush());
  for (uint64_t at = 0; at < 32 * per_table; at += per_table) read(at, 1); /* what may push tables out */
  EXPECT_EQ(read(0, small), filled(small, 0));
  EXPECT_EQ(read(9 * small, small), filled(small, 3));
}

TEST_F(Qcow2Write, ClientsBufferIsLeftAlone) {
  auto bytes = filled(3 * cluster, 5);
  ASSERT_TRUE(disk->write(bytes, 777, Fua::no));
  EXPECT_EQ(bytes, filled(3 * cluster, 5));
}

class Qcow2NoRoom : public Qcow2Write {
 protected:
  Qcow2NoRoom() : Qcow2Write(3) {} /* one of them is for the L2 table */
};

TEST_F(Qcow2NoRoom, SaysSoAndStaysClean) {
  write(0, 2 * cluster, 1);
  const Status s = disk->write(filled(cluster, 2), 8 * cluster, Fua::no);
  ASSERT_FALSE(s);
  EXPECT_EQ(s.error().sys, ENOSPC);
  EXPECT_NE(s.error().what.find("qluks-grow="), std::string::npos);
  ASSERT_TRUE(disk->trim(0, cluster, Fua::no));
  write(8 * cluster, cluster, 3); /* flushes, and takes what was freed */
  EXPECT_EQ(read(8 * cluster, cluster), filled(cluster, 3));
  EXPECT_EQ(read(cluster, cluster), filled(cluster, 1));
}

/* Two entries of a guest disk lead to one cluster, of which one has it for itself; and its refcount is 1. */
class Qcow2OneClusterTwice : public Qcow2Write {
 protected:
  Qcow2OneClusterTwice() : Qcow2Write(image(), 8) {}

  static Qcow2Image image() {
    Qcow2Image image({.size = 64 * cluster});
    const uint64_t data = image.add_cluster(0x11);
    image.set_l2(0, data | uint64_t{1} << 63);
    image.set_l2(1, data);
    return image;
  }
};

TEST_F(Qcow2OneClusterTwice, IsNotFreedByTheOtherEntry) {
  write(cluster, 100, 2);
  ASSERT_TRUE(disk->flush());
  for (uint64_t i = 2; i < 10; ++i) static_cast<void>(disk->write(filled(100, 2), i * cluster, Fua::no));
  EXPECT_EQ(read(0, cluster), filled(cluster, 0x11));
}

class Qcow2EntryToAFreeCluster : public Qcow2Write {
 protected:
  Qcow2EntryToAFreeCluster() : Qcow2Write(image(), 8) {}

  static Qcow2Image image() {
    Qcow2Image image({.size = 16384 * cluster});
    image.set_l2(8192, 6 * cluster); /* the second free one, in another table than what is written */
    return image;
  }
};

TEST_F(Qcow2EntryToAFreeCluster, IsFoundBeforeTheFirstChange) {
  const auto written = disk->write(filled(cluster, 1), 0, Fua::no);
  ASSERT_FALSE(written);
  EXPECT_EQ(written.error().what, "qcow2: the L2 entry 0x60000 leads to a cluster of refcount 0");
  EXPECT_TRUE(storage.calls.empty());
}

TEST(Qcow2ReadOnly, OnlyOneConnectionWritesWhereTheyDoNotSeeEachOther) {
  Qcow2Image image({.size = 64 * cluster});
  image.make_writable(8);
  Storage storage(image.bytes());
  storage.abilities.multi_conn = false;
  Keyring keyring;
  const auto format = open_qcow2(storage, keyring, {});
  ASSERT_TRUE(format);
  auto first = (*format)->stack_on(storage);
  EXPECT_TRUE(first->write_abilities().write);
  EXPECT_FALSE((*format)->stack_on(storage)->write_abilities().write);
  first.reset();
  EXPECT_TRUE((*format)->stack_on(storage)->write_abilities().write);
}

} // namespace
} // namespace qluks
