/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/qcow2/map.hpp"

#include <gtest/gtest.h>

#include "formats/text.hpp"
#include "tests/support/qcow2_image.hpp"

namespace qluks {
namespace {

using test::Qcow2Image;

constexpr uint64_t kib = 1024;
constexpr uint64_t cluster = 64 * kib;

Qcow2Geometry geometry(unsigned cluster_bits, uint64_t incompatible = 0, uint32_t version = 3) {
  Qcow2Header header;
  header.version = version;
  header.cluster_bits = cluster_bits;
  header.incompatible = incompatible;
  return Qcow2Geometry(header);
}

/* ---- entries ---- */

Mapping mapping_of(L2Entry entry, const Qcow2Geometry& g, uint64_t at = 0) {
  const auto run = decode_l2(entry, {at}, g);
  EXPECT_TRUE(run) << (run ? "" : run.error().what);
  return run ? run->mapping : Mapping(Unallocated{});
}

std::string refusal_of(L2Entry entry, const Qcow2Geometry& g, uint64_t at = 0) {
  const auto run = decode_l2(entry, {at}, g);
  if (run) return "not refused";
  EXPECT_EQ(run.error().code, Errc::corrupt);
  return run.error().what;
}

TEST(Qcow2Entry, KindsOfClusters) {
  const auto g = geometry(16);
  EXPECT_EQ(mapping_of({0}, g), Mapping(Unallocated{}));
  EXPECT_EQ(mapping_of({1}, g), Mapping(Zero{false}));
  EXPECT_EQ(mapping_of({0x50001}, g), Mapping(Zero{true}));
  EXPECT_EQ(mapping_of({0x50000}, g), Mapping(Data{{0x50000}}));
  EXPECT_EQ(mapping_of({0x8000000000050000}, g, 0x12345), Mapping(Data{{0x52345}}));
}

TEST(Qcow2Entry, RunEndsWithTheCluster) {
  const auto run = decode_l2({0x50000}, {3 * cluster + 100}, geometry(16));
  ASSERT_TRUE(run);
  EXPECT_EQ(run->length, cluster - 100);
}

TEST(Qcow2Entry, ReservedBitsAreNotLookedAt) {
  const auto g = geometry(16);
  EXPECT_EQ(mapping_of({0x3f000000000501fe}, g), Mapping(Data{{0x50000}}));
  EXPECT_EQ(mapping_of({0x3f000000000001fe}, g), Mapping(Unallocated{}));
}

/* The widths of offset and count change with the cluster size. */
TEST(Qcow2Entry, CompressedDescriptor) {
  const uint64_t flag = Qcow2Image::compressed_flag;
  /* 64 KiB: 54 bits of offset, 8 bits of count. */
  EXPECT_EQ(mapping_of({flag | (3ULL << 54) | 0x12345}, geometry(16)), Mapping(Compressed{{0x12345}, 4 * 512 - 0x145}));
  /* 512 bytes: 61 and 1. */
  EXPECT_EQ(mapping_of({flag | (1ULL << 61) | 0x201}, geometry(9)), Mapping(Compressed{{0x201}, 1023}));
  /* 2 MiB: 49 and 13. */
  EXPECT_EQ(mapping_of({flag | (0x1fffULL << 49) | ((1ULL << 49) - 1)}, geometry(21)),
            Mapping(Compressed{{(1ULL << 49) - 1}, 8192 * 512 - 511}));
}

TEST(Qcow2Entry, DamagedEntriesAreRefused) {
  EXPECT_NE(refusal_of({0x50200}, geometry(16)).find("cluster offset 0x50200"), std::string::npos);
  EXPECT_NE(refusal_of({0x50201}, geometry(16)).find("cluster offset 0x50200"), std::string::npos);
  EXPECT_EQ(refusal_of({1}, geometry(16, 0, 2)), "zero cluster in an image of version 2");
  const auto l1 = decode_l1(0x50200, geometry(16));
  ASSERT_FALSE(l1);
  EXPECT_NE(l1.error().what.find("L2 table offset 0x50200"), std::string::npos);
}

TEST(Qcow2Entry, ExternalDataFileHoldsEachClusterAtItsGuestOffset) {
  const auto g = geometry(16, 1 << qcow2_data_file_bit);
  const uint64_t copied = 1ULL << 63;
  EXPECT_EQ(mapping_of({0}, g), Mapping(Unallocated{}));
  EXPECT_EQ(mapping_of({copied}, g, 5), Mapping(Data{{5}}));
  EXPECT_EQ(mapping_of({copied | 0x10000}, g, 0x10005), Mapping(Data{{0x10005}}));
  EXPECT_NE(refusal_of({copied | 0x20000}, g, 0x10000).find("is not the guest offset 0x10000"), std::string::npos);
  EXPECT_NE(refusal_of({Qcow2Image::compressed_flag}, g).find("compressed cluster"), std::string::npos);
}

TEST(Qcow2Entry, SubclustersInEveryMix) {
  const auto g = geometry(16, 1 << qcow2_extended_l2_bit); /* subclusters of 2 KiB */
  /* 0-3 data, 4-5 unallocated, 6 zero, the rest unallocated */
  const L2Entry entry{0x50000, (0x40ULL << 32) | 0xf};
  const auto expect = [&](uint64_t at, uint64_t length, const Mapping& mapping) {
    const auto run = decode_l2(entry, {at}, g);
    ASSERT_TRUE(run);
    EXPECT_EQ(run->length, length) << at;
    EXPECT_EQ(run->mapping, mapping) << at;
  };
  expect(0, 8 * kib, Data{{0x50000}});
  expect(3 * kib, 5 * kib, Data{{0x50000 + 3 * kib}});
  expect(8 * kib, 4 * kib, Unallocated{});
  expect(12 * kib + 1, 2 * kib - 1, Zero{true});
  expect(14 * kib, 50 * kib, Unallocated{});
  EXPECT_EQ(mapping_of({0, 0xffffffff00000000}, g), Mapping(Zero{false}));
  EXPECT_EQ(mapping_of({0x50000, 0xffffffff}, g, 63 * kib), Mapping(Data{{0x50000 + 63 * kib}}));
  EXPECT_EQ(mapping_of({0x50001, 0}, g), Mapping(Unallocated{})); /* bit 0 means nothing here */
}

TEST(Qcow2Entry, SubclusterBitmapsThatContradictThemselvesAreRefused) {
  const auto g = geometry(16, 1 << qcow2_extended_l2_bit);
  EXPECT_NE(refusal_of({0x50000, 0x100000001}, g, 32 * kib).find("bitmap 0x100000001"), std::string::npos);
  EXPECT_NE(refusal_of({0, 1}, g, 32 * kib).find("bitmap 0x1"), std::string::npos);
}

/* Of pairs of neighbours that are nearly alike, joining without decoding is never more than decoding joins. */
TEST(Qcow2Entry, JoiningWithoutDecodingJoinsNothingElse) {
  const uint64_t offsets[] = {
      0, cluster, 5 * cluster, 6 * cluster, 7 * cluster, 0x00fffffffffe0000, 0x00ffffffffff0000};
  const uint64_t flags[] = {0, 1, 1ULL << 63, 1ULL << 62, 1ULL << 56, 0x200};
  const uint64_t bitmaps[] = {0, 0xffffffff, 0xffffffff00000000, 0xffff0000ffff, 0x00000001fffffffe, 1};
  const Qcow2Geometry geometries[] = {geometry(16), geometry(16, 0, 2), geometry(16, 1 << qcow2_extended_l2_bit),
                                      geometry(16, 1 << qcow2_data_file_bit)};
  std::vector<L2Entry> plain;
  std::vector<L2Entry> extended;
  for (const uint64_t offset : offsets) {
    for (const uint64_t flag : flags) {
      plain.push_back({offset | flag});
      for (const uint64_t bitmap : bitmaps) extended.push_back({offset | flag, bitmap});
    }
  }
  size_t joined = 0;
  for (const Qcow2Geometry& g : geometries) {
    const auto& entries = g.extended_l2 ? extended : plain;
    for (const L2Entry a : entries) {
      const auto run = decode_l2(a, {5 * cluster}, g);
      if (!run) continue;
      for (const L2Entry b : entries) {
        if (!is_followed_by(a, b, g)) continue;
        const auto next = decode_l2(b, {6 * cluster}, g);
        ASSERT_TRUE(next) << std::hex << a.word << " " << b.word;
        EXPECT_TRUE(continues(*run, *next)) << std::hex << a.word << " " << b.word;
        EXPECT_EQ(run->length, cluster);
        EXPECT_EQ(next->length, cluster);
        ++joined;
      }
    }
  }
  EXPECT_GT(joined, 40U);
}

/* ---- runs ---- */

struct Mapped {
  uint64_t at;
  uint64_t length;
  Mapping mapping;
  bool operator==(const Mapped&) const = default;
};

std::ostream& operator<<(std::ostream& out, const Mapped& m) {
  return out << m.at << "+" << m.length << " kind " << m.mapping.index();
}

Result<Qcow2Map> load(test::MemoryDevice& device) {
  auto header = read_qcow2_header(device);
  if (!header) return propagate(header);
  return Qcow2Map::load(device, Qcow2Geometry(*header), header->l1_offset, header->l1_entries,
                        std::make_shared<Qcow2Cache>(1 << 20));
}

std::vector<Mapped> runs(const Qcow2Map& map, test::MemoryDevice& device, uint64_t at, uint64_t length) {
  std::vector<Mapped> out;
  while (length > 0) {
    const auto run = map.run_at(device, {at}, length);
    EXPECT_TRUE(run) << (run ? "" : run.error().what);
    if (!run) break;
    out.push_back({at, run->length, run->mapping});
    at += run->length;
    length -= run->length;
  }
  return out;
}

TEST(Qcow2Map, NeighboursInTheFileAreOneRun) {
  Qcow2Image image({});
  const uint64_t first = 0x100000;
  for (uint64_t i = 0; i < 4; ++i) image.set_l2(i, first + i * cluster);
  image.set_l2(4, first + 5 * cluster);
  image.set_l2(5, first + 4 * cluster);
  image.set_l2(6, Qcow2Image::zero_flag);
  image.set_l2(7, Qcow2Image::zero_flag);
  image.set_l2(8, 0x90000 | Qcow2Image::zero_flag);
  auto device = image.device();
  const auto map = load(device);
  ASSERT_TRUE(map);
  EXPECT_EQ(runs(*map, device, 100, 1 << 19), (std::vector<Mapped>{{100, 4 * cluster - 100, Data{{first + 100}}},
                                                                   {4 * cluster, cluster, Data{{first + 5 * cluster}}},
                                                                   {5 * cluster, cluster, Data{{first + 4 * cluster}}},
                                                                   {6 * cluster, 2 * cluster, Zero{false}},
                                                                   {8 * cluster, 100, Zero{true}}}));
}

TEST(Qcow2Map, CompressedClustersAreNotJoined) {
  Qcow2Image image({});
  image.set_l2(0, Qcow2Image::compressed_flag | 0x30000);
  image.set_l2(1, Qcow2Image::compressed_flag | 0x30000);
  auto device = image.device();
  const auto map = load(device);
  ASSERT_TRUE(map);
  EXPECT_EQ(runs(*map, device, 0, 2 * cluster).size(), 2U);
}

TEST(Qcow2Map, RunsGoOnOverTables) {
  Qcow2Image image({.size = 1 << 20, .cluster_bits = 9}); /* one table maps 32 KiB */
  for (uint64_t i = 60; i < 70; ++i) image.set_l2(i, 0x100000 + i * 512);
  auto device = image.device();
  const auto map = load(device);
  ASSERT_TRUE(map);
  EXPECT_EQ(runs(*map, device, 0, 1 << 20), (std::vector<Mapped>{{0, 60 * 512, Unallocated{}},
                                                                 {60 * 512, 10 * 512, Data{{0x100000 + 60 * 512}}},
                                                                 {70 * 512, (1 << 20) - 70 * 512, Unallocated{}}}));
}

TEST(Qcow2Map, EmptyTebibyteIsOneRunWithoutAnyRead) {
  Qcow2Image image({.size = 1ULL << 40});
  auto device = image.device();
  const auto map = load(device);
  ASSERT_TRUE(map);
  device.calls.clear();
  EXPECT_EQ(runs(*map, device, 12345, 1ULL << 39), (std::vector<Mapped>{{12345, 1ULL << 39, Unallocated{}}}));
  EXPECT_TRUE(device.calls.empty());
}

TEST(Qcow2Map, TablesOfLargeClustersAreReadInSlices) {
  Qcow2Image image({.size = 1ULL << 36, .cluster_bits = 21});
  image.set_l2(0, 0x600000);
  image.set_l2(8192, 0x800000);
  auto device = image.device();
  const auto map = load(device);
  ASSERT_TRUE(map);
  device.calls.clear();
  const uint64_t table = 0x600000;
  ASSERT_TRUE(map->run_at(device, {0}, 4096));
  ASSERT_TRUE(map->run_at(device, {4096}, 4096));
  ASSERT_TRUE(map->run_at(device, {8192ULL << 21}, 4096));
  EXPECT_EQ(device.calls, (std::vector<test::ReadCall>{{table, 65536}, {table + 65536, 65536}}));
}

std::string failure(const Qcow2Map& map, test::MemoryDevice& device, uint64_t at) {
  const auto run = map.run_at(device, {at}, 1);
  return run ? "mapped" : run.error().what;
}

TEST(Qcow2Map, TablesBeyondTheEndOfTheFileAreMissed) {
  for (const uint64_t table : {0x30000ULL, 0x7f0000000000ULL, 0xffffffffff0000ULL}) {
    Qcow2Image image({});
    image.set_l1(0, table);
    auto device = image.device();
    const auto map = load(device);
    ASSERT_TRUE(map);
    EXPECT_EQ(failure(*map, device, 0x20000), "guest offset 0x20000: L2 table at " + hex(table) +
                                                  ": 8 bytes at offset " + std::to_string(table + 16) +
                                                  " go past the end, which is at 196608: is the file cut short?");
  }
}

TEST(Qcow2Map, TableCutShortByTheEndOfTheFileMapsWhatItHas) {
  Qcow2Image image({});
  image.set_l2(0, 0x100000);
  image.set_l2(1, 0x110000);
  auto device = image.device();
  device.bytes.resize(device.bytes.size() - cluster + 23); /* two entries and a part of the third */
  const auto map = load(device);
  ASSERT_TRUE(map);
  EXPECT_EQ(runs(*map, device, 0, 2 * cluster), (std::vector<Mapped>{{0, 2 * cluster, Data{{0x100000}}}}));
  const auto run = map->run_at(device, {cluster}, 5 * cluster);
  ASSERT_TRUE(run);
  EXPECT_EQ(run->length, cluster);
  EXPECT_EQ(failure(*map, device, 2 * cluster),
            "guest offset 0x20000: L2 table at 0x30000: 8 bytes at offset 196624 go past the end, which is at 196631: "
            "is the file cut short?");
}

/* Nothing that is not there may pass for a hole that goes on. */
TEST(Qcow2Map, HolesEndWhereTheTableIsCut) {
  Qcow2Image image({});
  image.set_l2(7, 0x100000);
  auto device = image.device();
  device.bytes.resize(device.bytes.size() - cluster + 16);
  const auto map = load(device);
  ASSERT_TRUE(map);
  EXPECT_EQ(runs(*map, device, 0, 2 * cluster), (std::vector<Mapped>{{0, 2 * cluster, Unallocated{}}}));
  EXPECT_EQ(map->run_at(device, {0}, 16 * cluster)->length, 2 * cluster);
}

TEST(Qcow2Map, L1PastTheEndOfTheFileIsRefusedAndTakesNoMemory) {
  for (const uint64_t offset : {uint64_t{0x30000}, uint64_t{0x7f0000000000}, uint64_t{0x7fffffffff000000}}) {
    Qcow2Image image({.size = 1ULL << 40});
    image.header().l1_table_offset = offset;
    auto device = image.device();
    const auto map = load(device);
    ASSERT_FALSE(map);
    EXPECT_EQ(map.error().what, "L1 table at " + hex(offset) + ": 16392 bytes at offset " + std::to_string(offset) +
                                    " go past the end, which is at 196608: is the file cut short?");
  }
}

TEST(Qcow2Map, L1CutShortIsRefused) {
  Qcow2Image image({});
  auto device = image.device();
  device.bytes.resize(image.l1_offset() + 7);
  EXPECT_FALSE(load(device));
  device.bytes.resize(image.l1_offset() + 8); /* as QEMU leaves an image without data */
  EXPECT_TRUE(load(device));
}

TEST(Qcow2Map, DamagedEntryEndsTheRunBeforeItAndThenFails) {
  Qcow2Image image({});
  image.set_l2(0, 0x100000);
  image.set_l2(1, 0x110200);
  auto device = image.device();
  const auto map = load(device);
  ASSERT_TRUE(map);
  const auto run = map->run_at(device, {0}, 2 * cluster);
  ASSERT_TRUE(run);
  EXPECT_EQ(run->length, cluster);
  const auto damaged = map->run_at(device, {cluster}, cluster);
  ASSERT_FALSE(damaged);
  EXPECT_EQ(damaged.error().what,
            "guest offset 0x10000: cluster offset 0x110200 is not a multiple of the cluster size (0x10000)");
}

TEST(Qcow2Map, FailedReadOfATableIsTriedAgain) {
  Qcow2Image image({});
  image.set_l2(0, 0x100000);
  auto device = image.device();
  const auto map = load(device);
  ASSERT_TRUE(map);
  device.fail_call = device.calls.size() + 1;
  const auto failed = map->run_at(device, {0}, 512);
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code, Errc::io);
  EXPECT_NE(failed.error().what.find("L2 table at 0x30000: injected"), std::string::npos) << failed.error().what;
  EXPECT_TRUE(map->run_at(device, {0}, 512));
}

} // namespace
} // namespace qluks
