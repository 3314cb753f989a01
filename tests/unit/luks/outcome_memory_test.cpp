/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/luks/outcome_memory.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <thread>
#include <vector>

#include "formats/luks/kdf_gate.hpp"

namespace qluks {
namespace {

using Value = std::shared_ptr<const int>;
using Memory = OutcomeMemory<Value>;

Result<Value> success(int n) { return std::make_shared<const int>(n); }
Result<Value> failure(Errc code) { return fail(code, "no"); }

TEST(OutcomeMemory, RemembersSuccessAndRefusal) {
  Memory memory;
  int runs = 0;
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(**memory.get("a", [&] { return success(++runs); }), 1);
    EXPECT_FALSE(memory.get("b", [&] {
      ++runs;
      return failure(Errc::wrong_passphrase);
    }));
  }
  EXPECT_EQ(runs, 2);
}

TEST(OutcomeMemory, AnotherFailureIsRememberedForAMomentOnly) {
  for (const auto& [seconds, runs_of_two] : {std::pair<double, int>{1000, 1}, {0, 2}}) {
    Memory memory(seconds);
    int runs = 0;
    for (int i = 0; i < 2; ++i) {
      EXPECT_FALSE(memory.get("a", [&] {
        ++runs;
        return failure(Errc::io);
      }));
    }
    EXPECT_EQ(runs, runs_of_two);
  }
}

TEST(OutcomeMemory, RefusalsGiveWayBeforeKeysAndKeysInUseNever) {
  Memory memory;
  const auto used = memory.get("used", [] { return success(1); });
  EXPECT_TRUE(memory.get("unused", [] { return success(2); }));
  for (size_t i = 0; i < Memory::remembered_max; ++i) {
    EXPECT_FALSE(memory.get("foreign " + std::to_string(i), [] { return failure(Errc::wrong_passphrase); }));
  }
  int runs = 0;
  EXPECT_EQ(**memory.get("unused", [&] { return success(++runs); }), 2);
  for (size_t i = 0; i < Memory::remembered_max; ++i) {
    EXPECT_TRUE(memory.get("other " + std::to_string(i), [] { return success(0); }));
  }
  EXPECT_EQ(**memory.get("used", [&] { return success(++runs); }), 1);
  EXPECT_EQ(runs, 0);
}

TEST(OutcomeMemory, OtherWorkGoesOnMeanwhileAndTheSameIsDoneOnce) {
  Memory memory;
  std::promise<void> started;
  std::promise<void> released;
  std::atomic<int> runs{0};
  std::thread slow([&] {
    EXPECT_TRUE(memory.get("slow", [&] {
      ++runs;
      started.set_value();
      released.get_future().wait();
      return success(1);
    }));
  });
  started.get_future().wait();
  std::vector<std::thread> same;
  for (int i = 0; i < 4; ++i) {
    same.emplace_back([&] { EXPECT_EQ(**memory.get("slow", [&] { return success(++runs); }), 1); });
  }
  EXPECT_TRUE(memory.get("other", [] { return success(2); })); /* hangs if it waits for "slow" */
  released.set_value();
  slow.join();
  for (auto& thread : same) thread.join();
  EXPECT_EQ(runs, 1);
}

TEST(OutcomeMemory, AnExceptionLeavesNothingBehind) {
  Memory memory;
  EXPECT_THROW(static_cast<void>(memory.get("a", []() -> Result<Value> { throw std::bad_alloc(); })), std::bad_alloc);
  EXPECT_TRUE(memory.get("a", [] { return success(1); }));
}

/* Goes into the gate on a thread of its own, and waits there to be let out. */
class Visitor {
 public:
  Visitor(KdfGate& gate, const KdfCost& cost)
      : thread_([this, &gate, cost] {
          const auto pass = gate.enter(cost);
          inside_ = bool{pass};
          entered_.set_value();
          left_.get_future().wait();
        }) {}
  ~Visitor() {
    left_.set_value();
    thread_.join();
  }
  void wait_inside() { entered_.get_future().wait(); }
  bool is_inside() const { return inside_; }

 private:
  std::atomic<bool> inside_{false};
  std::promise<void> entered_;
  std::promise<void> left_;
  std::thread thread_;
};

void wait_for_waiting(const KdfGate& gate, size_t count) {
  while (gate.waiting() != count) std::this_thread::yield();
}

TEST(KdfGate, CheapOnesDoNotQueueBehindDearOnes) {
  KdfGate gate(1000, 1);
  auto dear = std::make_unique<Visitor>(gate, KdfCost{.memory_bytes = 0, .seconds = 50});
  dear->wait_inside();
  Visitor second(gate, {.memory_bytes = 0, .seconds = 50});
  wait_for_waiting(gate, 1);
  EXPECT_FALSE(second.is_inside());
  Visitor cheap(gate, {.memory_bytes = 500, .seconds = 0.1});
  cheap.wait_inside(); /* hangs if it queues */
  dear.reset();
  second.wait_inside();
}

TEST(KdfGate, MemoryOfAllTogetherIsBounded) {
  KdfGate gate(1000, 8);
  auto first = std::make_unique<Visitor>(gate, KdfCost{.memory_bytes = 600, .seconds = 0.1});
  first->wait_inside();
  {
    Visitor fits(gate, {.memory_bytes = 400, .seconds = 0.1});
    fits.wait_inside();
  }
  Visitor waits(gate, {.memory_bytes = 500, .seconds = 0.1});
  wait_for_waiting(gate, 1);
  EXPECT_FALSE(waits.is_inside());
  Visitor none(gate, {.memory_bytes = 0, .seconds = 5});
  none.wait_inside();
  first.reset();
  waits.wait_inside();
}

TEST(KdfGate, OneBeyondTheLimitRunsAlone) {
  KdfGate gate(1000, 8);
  Visitor large(gate, {.memory_bytes = 5000, .seconds = 0.1});
  large.wait_inside();
}

} // namespace
} // namespace qluks
