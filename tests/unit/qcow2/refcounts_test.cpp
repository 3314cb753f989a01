/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/qcow2/refcounts.hpp"

#include <gtest/gtest.h>

#include "formats/qcow2/overlap.hpp"
#include "formats/qcow2/quiescence.hpp"

namespace qluks {
namespace {

using Next = Qcow2Refcounts::Search::Next;

constexpr unsigned cluster_bits = 9;

/* One table cluster at 1, so 64 blocks, of which only the first one exists, at 2. */
Qcow2Refcounts one_block(unsigned order) {
  Qcow2Header header;
  header.cluster_bits = cluster_bits;
  header.refcount_order = order;
  header.refcount_table_offset = {512};
  header.refcount_table_clusters = 1;
  std::vector<be64> table(64, be64(0));
  table[0] = 1024;
  Qcow2Refcounts counts(header, table);
  PageBuffer zeroes = make_page_buffer(512);
  std::fill_n(zeroes.get(), 512, std::byte{0});
  counts.insert(0, std::move(zeroes));
  return counts;
}

class Widths : public testing::TestWithParam<unsigned> {};

TEST_P(Widths, CountsDoNotTouchTheirNeighbours) {
  Qcow2Refcounts counts = one_block(GetParam());
  const uint64_t per_block = uint64_t{4096} >> GetParam();
  ASSERT_EQ(counts.clusters_per_block(), per_block);
  for (const uint64_t cluster : {uint64_t{0}, uint64_t{3}, uint64_t{8}, uint64_t{9}, per_block - 1})
    counts.set(cluster, 1);
  for (uint64_t i = 0; i < per_block; ++i) {
    EXPECT_EQ(counts.get(i), i == 0 || i == 3 || i == 8 || i == 9 || i == per_block - 1 ? 1U : 0U) << i;
  }
  counts.set(8, 0);
  EXPECT_EQ(counts.get(8), 0U);
  EXPECT_EQ(counts.get(9), 1U);
}

TEST_P(Widths, LowestFreeNeighboursFirst) {
  Qcow2Refcounts counts = one_block(GetParam());
  counts.set(0, 1);
  counts.set(1, 1);
  counts.set(5, 1);
  auto search = counts.find_free(8, 1000);
  ASSERT_EQ(search.next, Next::take);
  EXPECT_EQ(search.clusters.first, 2U);
  EXPECT_EQ(search.clusters.count, 3U);
  for (uint64_t i = 2; i < 5; ++i) counts.set(i, 1);
  search = counts.find_free(2, 7);
  EXPECT_EQ(search.clusters.first, 6U);
  EXPECT_EQ(search.clusters.count, 1U); /* the container ends */
  counts.set(6, 1);
  EXPECT_EQ(counts.find_free(1, 7).next, Next::no_room);
  counts.set(3, 0);
  EXPECT_EQ(counts.find_free(1, 7).clusters.first, 3U);
}

INSTANTIATE_TEST_SUITE_P(Qcow2Refcounts, Widths, testing::Range(0U, 7U));

TEST(Qcow2Refcounts, SaysWhatIsMissing) {
  Qcow2Refcounts counts = one_block(4);
  for (uint64_t i = 0; i < 256; ++i) counts.set(i, 1);
  const auto search = counts.find_free(1, 1000);
  EXPECT_EQ(search.next, Next::make_block);
  EXPECT_EQ(search.block, 1U);
  counts.make_block(1);
  EXPECT_EQ(counts.find_free(1, 1000).clusters.first, 257U);
  counts.collected();
  Qcow2Header header;
  header.cluster_bits = cluster_bits;
  header.refcount_table_clusters = 1;
  std::vector<be64> table(64, be64(0));
  table[0] = 1024;
  EXPECT_EQ(Qcow2Refcounts(header, table).find_free(1, 1000).next, Next::load);
}

TEST(Qcow2Refcounts, NewBlockIsWrittenBeforeTheEntryThatLeadsToIt) {
  Qcow2Refcounts counts = one_block(4);
  counts.make_block(2);
  std::vector<TableWrite> blocks;
  std::vector<TableWrite> links;
  counts.collect(blocks, links);
  ASSERT_EQ(blocks.size(), 1U);
  EXPECT_EQ(blocks[0].at.bytes, 2 * 256 * 512U);
  EXPECT_EQ(blocks[0].bytes.size(), 512U);
  ASSERT_EQ(links.size(), 1U);
  EXPECT_EQ(links[0].at.bytes, 512U + 2 * 8);
  EXPECT_EQ(uint64_t{load_on_disk<be64>(links[0].bytes)}, 2 * 256 * 512U);
  counts.collected();
  EXPECT_FALSE(counts.is_changed());
}

TEST(Qcow2Refcounts, LongerTableCountsItself) {
  Qcow2Refcounts counts = one_block(6); /* 64 clusters a block, 64 blocks */
  Qcow2Header header;
  header.cluster_bits = cluster_bits;
  for (uint64_t block = 0; block < 64; ++block) {
    if (block != 0) counts.make_block(block);
    for (uint64_t i = 0; i < 64; ++i) counts.set(block * 64 + i, 1);
  }
  ASSERT_EQ(counts.find_free(1, 1 << 20).next, Next::grow_table);
  const auto taken = counts.longer_table_clusters(header);
  ASSERT_TRUE(taken);
  EXPECT_EQ(taken->first, 64 * 64U);
  counts.collected();
  counts.grow_table(*taken);
  EXPECT_EQ(counts.blocks(), 128U);
  EXPECT_TRUE(counts.has_moved());
  for (uint64_t i = 0; i < taken->count; ++i) EXPECT_EQ(counts.get(taken->first + i), 1U);
  EXPECT_EQ(counts.table_clusters().first, taken->first + taken->count - 2);
  std::vector<TableWrite> contents;
  std::vector<TableWrite> links;
  counts.collect(contents, links);
  EXPECT_TRUE(links.empty());
  EXPECT_EQ(contents.back().bytes.size(), 1024U);
  EXPECT_EQ(counts.find_free(1, 1 << 20).clusters.first, taken->first + taken->count);
}

TEST(Qcow2Metadata, WhatOverlapsIsFound) {
  Qcow2Metadata metadata;
  metadata.add({10, 5}, Qcow2Part::l1_table);
  metadata.add({20, 1}, Qcow2Part::l2_table);
  EXPECT_FALSE(metadata.find({0, 10}));
  EXPECT_EQ(metadata.find({0, 11}), Qcow2Part::l1_table);
  EXPECT_EQ(metadata.find({14, 1}), Qcow2Part::l1_table);
  EXPECT_FALSE(metadata.find({15, 5}));
  EXPECT_EQ(metadata.find({15, 6}), Qcow2Part::l2_table);
  metadata.remove({20, 1});
  EXPECT_FALSE(metadata.find({15, 100}));
}

/* With its lock held meanwhile, this would wait for itself. */
TEST(Qcow2Metadata, IsNotLockedWhileItIsVisited) {
  Qcow2Metadata metadata;
  metadata.add({3, 1}, Qcow2Part::l2_table);
  metadata.add({8, 2}, Qcow2Part::refcount_block);
  std::vector<uint64_t> visited;
  const Status s = metadata.for_each([&](HostClusters clusters, Qcow2Part) -> Status {
    visited.push_back(clusters.first);
    metadata.remove(clusters);
    if (clusters.first == 3) metadata.add({5, 1}, Qcow2Part::l1_table);
    return ok();
  });
  EXPECT_TRUE(s);
  EXPECT_EQ(visited, (std::vector<uint64_t>{3, 5, 8}));
  EXPECT_FALSE(metadata.find({0, 100}));
}

TEST(Quiescence, WaitsForThoseWhoWereThere) {
  Quiescence q;
  auto early = std::make_unique<Quiescence::Request>(q);
  const uint64_t then = q.epoch();
  EXPECT_FALSE(Quiescence::has_passed(then, q.advance()));
  const Quiescence::Request late(q); /* began after, so it cannot have found what was gone then */
  EXPECT_FALSE(Quiescence::has_passed(then, q.advance()));
  early.reset();
  EXPECT_TRUE(Quiescence::has_passed(then, q.advance()));
}

} // namespace
} // namespace qluks
