/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/range_lock.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <optional>
#include <thread>
#include <vector>

#include "base/buffer_pool.hpp"
#include "base/shutdown.hpp"
#include "base/zero_bytes.hpp"

namespace qluks {
namespace {

std::atomic<bool> ends{false};

/* The process is told to end, as long as it lives. */
class Ending {
 public:
  Ending() {
    ends = false;
    set_shutdown_check([]() noexcept { return ends.load(); });
  }
  ~Ending() { set_shutdown_check(nullptr); }
};

TEST(RangeLock, RangesThatDoNotOverlapAreTakenTogether) {
  RangeLock lock;
  const auto a = lock.take(0, 10);
  const auto b = lock.take(10, 10);
  const auto c = lock.take(UINT64_MAX - 5, 5);
  EXPECT_TRUE(a && b && c);
}

TEST(RangeLock, OverlappingRangesFollowEachOther) {
  RangeLock lock;
  int inside = 0; /* guarded by the lock under test */
  int most = 0;
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 500; ++i) {
        const auto held = lock.take(t, 100);
        ASSERT_TRUE(held);
        most = std::max(most, ++inside);
        --inside;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(most, 1);
}

/* [0, 10) is held, [5, 15) waits for it; [12, 20) came later and waits too, although nobody holds it. */
TEST(RangeLock, WhoCameFirstIsNotOvertaken) {
  RangeLock lock;
  std::optional first = std::move(*lock.take(0, 10));
  std::atomic<int> order{0};
  int second_was = 0;
  int third_was = 0;
  std::promise<void> second_starts;
  std::thread second([&] {
    second_starts.set_value();
    const auto held = lock.take(5, 10);
    second_was = ++order;
  });
  second_starts.get_future().wait();
  while (lock.waiting() != 1) std::this_thread::yield();
  std::thread third([&] {
    const auto held = lock.take(12, 8);
    third_was = ++order;
  });
  while (lock.waiting() != 2) std::this_thread::yield();
  first.reset();
  second.join();
  third.join();
  EXPECT_EQ(second_was, 1);
  EXPECT_EQ(third_was, 2);
}

TEST(RangeLock, WaitEndsWhenTheProcessDoes) {
  const Ending ending;
  RangeLock lock;
  const auto held = lock.take(0, 10);
  std::thread waiting([&] {
    const auto never = lock.take(9, 1);
    ASSERT_FALSE(never);
    EXPECT_EQ(never.error().code, Errc::shutting_down);
  });
  while (lock.waiting() != 1) std::this_thread::yield();
  ends = true;
  waiting.join();
  EXPECT_EQ(lock.waiting(), 0U);
  EXPECT_TRUE(lock.take(10, 1));
}

TEST(BufferPool, LendsLargeBuffersUpToItsBoundAndSmallOnesBeyond) {
  BufferPool pool(1 << 20, 2, 1);
  auto a = std::optional(pool.borrow(1 << 20));
  const auto b = pool.borrow(BufferPool::small_bytes + 1);
  const auto c = pool.borrow(1 << 20);
  EXPECT_EQ(a->bytes().size(), size_t{1} << 20);
  EXPECT_EQ(b.bytes().size(), size_t{1} << 20);
  EXPECT_EQ(c.bytes().size(), BufferPool::small_bytes);
  EXPECT_EQ(pool.borrow(100).bytes().size(), 100U);
  const std::byte* kept = a->bytes().data();
  a.reset();
  EXPECT_EQ(pool.borrow(1 << 20).bytes().data(), kept);
}

TEST(ZeroBytes, AreWrittenInPiecesThatEndWhereAMebibyteDoes) {
  std::vector<std::pair<uint64_t, size_t>> pieces;
  ASSERT_TRUE(write_zero_bytes((1 << 20) - 10, (2 << 20) + 15, [&](std::span<const std::byte> src, uint64_t at) {
    for (const std::byte b : src) EXPECT_EQ(b, std::byte{0});
    pieces.emplace_back(at, src.size());
    return ok();
  }));
  const std::vector<std::pair<uint64_t, size_t>> expected = {
      {(1 << 20) - 10, 10}, {1 << 20, 1 << 20}, {2 << 20, 1 << 20}, {3 << 20, 5}};
  EXPECT_EQ(pieces, expected);
}

TEST(ZeroBytes, AreGivenUpWhenTheProcessEnds) {
  const Ending ending;
  int pieces = 0;
  const Status s = write_zero_bytes(0, 100 << 20, [&](std::span<const std::byte>, uint64_t) {
    ends = ++pieces == 3;
    return ok();
  });
  ASSERT_FALSE(s);
  EXPECT_EQ(s.error().code, Errc::shutting_down);
  EXPECT_EQ(pieces, 3);
}

} // namespace
} // namespace qluks
