/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/qcow2/cache.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <latch>
#include <random>
#include <thread>

namespace qluks {
namespace {

constexpr size_t slot_bytes = 4096;

Qcow2Cache::Key key(uint64_t at, uint64_t owner = 0) { return {.owner = owner, .at = at}; }

/* Fills with a byte that tells the key, and counts. */
struct Source {
  std::atomic<int> fills{0};

  Qcow2Cache::FillFn fill(uint64_t at) {
    return [this, at](std::span<std::byte> dst) -> Status {
      ++fills;
      std::fill(dst.begin(), dst.end(), static_cast<std::byte>(at * 37));
      return ok();
    };
  }
};

bool holds(const Result<Qcow2Cache::Bytes>& bytes, uint64_t at) {
  const auto expected = static_cast<std::byte>(at * 37);
  return bytes && (*bytes)[0] == expected && (*bytes)[slot_bytes - 1] == expected;
}

TEST(Qcow2Cache, WhatWasReadOnceIsNotReadAgain) {
  Qcow2Cache cache(1 << 20);
  Source source;
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(holds(cache.get(key(5), slot_bytes, source.fill(5)), 5));
  EXPECT_EQ(source.fills, 1);
}

TEST(Qcow2Cache, OwnersDoNotMeet) {
  Qcow2Cache cache(1 << 20);
  Source source;
  EXPECT_NE(cache.new_owner(), cache.new_owner());
  EXPECT_TRUE(holds(cache.get(key(5, 0), slot_bytes, source.fill(5)), 5));
  EXPECT_TRUE(holds(cache.get(key(5, 1), slot_bytes, source.fill(6)), 6));
}

TEST(Qcow2Cache, LeastRecentlyUsedGoesFirst) {
  Qcow2Cache cache(3 * 5000); /* three slots and what they cost beside */
  Source source;
  for (const uint64_t at : {1U, 2U, 3U, 1U, 4U})
    EXPECT_TRUE(holds(cache.get(key(at), slot_bytes, source.fill(at)), at));
  EXPECT_EQ(source.fills, 4);
  for (const uint64_t at : {1U, 3U, 4U}) EXPECT_TRUE(holds(cache.get(key(at), slot_bytes, source.fill(at)), at));
  EXPECT_EQ(source.fills, 4);
  EXPECT_TRUE(holds(cache.get(key(2), slot_bytes, source.fill(2)), 2));
  EXPECT_EQ(source.fills, 5);
}

TEST(Qcow2Cache, EvictedBytesLiveAsLongAsTheirReader) {
  Qcow2Cache cache(1);
  Source source;
  const auto first = cache.get(key(1), slot_bytes, source.fill(1));
  const auto second = cache.get(key(2), slot_bytes, source.fill(2));
  EXPECT_TRUE(holds(first, 1));
  EXPECT_TRUE(holds(second, 2));
}

TEST(Qcow2Cache, FailureIsNotRemembered) {
  Qcow2Cache cache(1 << 20);
  Source source;
  const auto failed = cache.get(key(1), slot_bytes, [](auto) -> Status { return fail(Errc::io, "broken", 5); });
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().what, "broken");
  EXPECT_TRUE(holds(cache.get(key(1), slot_bytes, source.fill(1)), 1));
}

TEST(Qcow2Cache, LackOfMemoryLeavesNothingBehind) {
  Qcow2Cache cache(1 << 20);
  Source source;
  EXPECT_THROW((void)cache.get(key(1), slot_bytes, [](auto) -> Status { throw std::bad_alloc(); }), std::bad_alloc);
  EXPECT_TRUE(holds(cache.get(key(1), slot_bytes, source.fill(1)), 1));
}

/* A thread that begins to fill and waits until it is told to go on. */
class SlowFill {
 public:
  SlowFill(Qcow2Cache& cache, uint64_t at, bool succeed)
      : thread_([this, &cache, at, succeed] {
          result_ = cache.get(key(at), slot_bytes, [&](std::span<std::byte> dst) -> Status {
            started_.count_down();
            go_on_.wait();
            if (!succeed) return fail(Errc::io, "broken", 5);
            std::fill(dst.begin(), dst.end(), static_cast<std::byte>(at * 37));
            return ok();
          });
        }) {
    started_.wait();
  }

  Result<Qcow2Cache::Bytes>& finish() {
    go_on_.count_down();
    thread_.join();
    return result_;
  }

 private:
  std::latch started_{1};
  std::latch go_on_{1};
  Result<Qcow2Cache::Bytes> result_ = fail(Errc::io, "not run");
  std::thread thread_;
};

TEST(Qcow2Cache, WhoWantsWhatIsBeingReadWaitsForIt) {
  Qcow2Cache cache(1 << 20);
  Source source;
  SlowFill slow(cache, 1, true);
  std::vector<std::thread> waiters;
  for (int i = 0; i < 4; ++i) {
    waiters.emplace_back([&] { EXPECT_TRUE(holds(cache.get(key(1), slot_bytes, source.fill(1)), 1)); });
  }
  EXPECT_TRUE(holds(slow.finish(), 1));
  for (auto& waiter : waiters) waiter.join();
  EXPECT_EQ(source.fills, 0);
}

TEST(Qcow2Cache, NobodyElseWaitsForASlowRead) {
  Qcow2Cache cache(1); /* one shard: the slow slot shares its lock with the others */
  Source source;
  SlowFill slow(cache, 1, true);
  for (uint64_t at = 2; at < 100; ++at) EXPECT_TRUE(holds(cache.get(key(at), slot_bytes, source.fill(at)), at));
  EXPECT_TRUE(holds(slow.finish(), 1));
}

TEST(Qcow2Cache, WaitersOfAFailedReadTryThemselves) {
  Qcow2Cache cache(1 << 20);
  Source source;
  SlowFill slow(cache, 1, false);
  std::thread waiter([&] { EXPECT_TRUE(holds(cache.get(key(1), slot_bytes, source.fill(1)), 1)); });
  EXPECT_FALSE(slow.finish());
  waiter.join();
  EXPECT_EQ(source.fills, 1);
}

TEST(Qcow2Cache, ManyThreadsOnATinyCacheReadWhatTheyAskedFor) {
  Qcow2Cache cache(8 * 4400);
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (unsigned seed = 0; seed < 8; ++seed) {
    threads.emplace_back([&, seed] {
      std::minstd_rand random(seed);
      for (int i = 0; i < 4000; ++i) {
        const uint64_t at = random() % 24;
        const bool broken = random() % 16 == 0;
        const auto bytes = cache.get(key(at), slot_bytes, [&](std::span<std::byte> dst) -> Status {
          if (broken) return fail(Errc::io, "broken");
          std::fill(dst.begin(), dst.end(), static_cast<std::byte>(at * 37));
          return ok();
        });
        if (!broken && !holds(bytes, at)) ++wrong;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

} // namespace
} // namespace qluks
