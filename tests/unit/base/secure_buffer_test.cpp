/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/secure_buffer.hpp"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "base/poison.hpp"
#include "base/secure_memory.hpp"

namespace qluks {
namespace {

bool all_are(const SecureBuffer& buffer, std::byte value) {
  return std::all_of(buffer.span().begin(), buffer.span().end(), [=](std::byte b) { return b == value; });
}

void fill(SecureBuffer& buffer, std::byte value) { std::fill_n(buffer.data(), buffer.size(), value); }

/* The value of that line in /proc/self/smaps for the mapping that holds `address`; empty: no mapping does. */
std::string smaps_line(const void* address, const std::string& name) {
  std::ifstream smaps("/proc/self/smaps");
  bool inside = false;
  for (std::string line; std::getline(smaps, line);) {
    unsigned long first = 0;
    unsigned long end = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx ", &first, &end) == 2) {
      const auto at = reinterpret_cast<uintptr_t>(address);
      inside = at >= first && at < end;
    } else if (inside && line.starts_with(name)) {
      return line.substr(name.size()) + " ";
    }
  }
  return {};
}

size_t locked_kib() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmLck:")) return std::stoul(line.substr(6));
  }
  return 0;
}

/* Sanitizers make mlock do nothing and succeed. */
bool may_lock_megabytes() {
  constexpr size_t bytes = 4 << 20;
  const size_t before = locked_kib();
  void* pages = mmap(nullptr, bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  const bool may = pages != MAP_FAILED && mlock(pages, bytes) == 0 && locked_kib() > before;
  munmap(pages, bytes);
  return may;
}

TEST(SecureBuffer, MovingLeavesTheSourceEmpty) {
  SecureBuffer a(100);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(a.data()) % 64, 0U);
  a.data()[99] = std::byte{7};
  SecureBuffer b = std::move(a);
  EXPECT_TRUE(a.empty()); // NOLINT(bugprone-use-after-move): that is what is tested
  EXPECT_EQ(b.data()[99], std::byte{7});
}

TEST(SecureBuffer, ShrinkingWipesWhatIsCutOff) {
  SecureBuffer a(16);
  a.data()[8] = std::byte{7};
  std::byte* cut_off = a.data() + 8;
  a.shrink(8);
  EXPECT_EQ(a.size(), 8U);
  EXPECT_EQ(*cut_off, std::byte{0});
}

TEST(SecureBuffer, ShrinkingGivesTheRestBack) {
  SecureBuffer large(1 << 20);
  const std::byte* past = large.data() + 128;
  fill(large, std::byte{7});
  large.shrink(100);
  EXPECT_TRUE(all_are(large, std::byte{7}));
  const SecureBuffer next(1 << 19);
  EXPECT_EQ(next.data(), past);
  EXPECT_TRUE(all_are(next, std::byte{0}));
  large.shrink(0);
  EXPECT_EQ(large.data(), nullptr);
}

TEST(SecureBuffer, IsZeroWhateverWasThereBefore) {
  for (const size_t size : {size_t{1}, size_t{64}, size_t{65}, size_t{6000}}) {
    const std::byte* place = nullptr;
    {
      SecureBuffer secret(size);
      place = secret.data();
      fill(secret, std::byte{0xff});
    }
    const SecureBuffer next(size);
    EXPECT_EQ(next.data(), place);
    EXPECT_TRUE(all_are(next, std::byte{0}));
  }
}

TEST(SecureBuffer, NoTwoOverlapWhicheverThreadTakesThem) {
  std::vector<std::jthread> threads;
  for (unsigned t = 1; t <= 8; ++t) {
    threads.emplace_back([t] {
      std::mt19937 random(t);
      std::vector<SecureBuffer> held(16);
      for (int i = 0; i < 2000; ++i) {
        SecureBuffer& buffer = held[random() % held.size()];
        ASSERT_TRUE(all_are(buffer, std::byte(t)));
        buffer = SecureBuffer(random() % 20 == 0 ? 100000 : random() % 3000);
        ASSERT_TRUE(all_are(buffer, std::byte{0}));
        fill(buffer, std::byte(t));
        buffer.shrink(random() % 4000);
      }
    });
  }
}

TEST(SecureBuffer, IsLockedAndNotDumped) {
  if (!may_lock_megabytes()) GTEST_SKIP() << "4 MiB cannot be locked here";
  const SecureBuffer small(32);
  const size_t before = locked_kib();
  {
    const SecureBuffer large(1 << 20); // a region of its own
    EXPECT_GE(locked_kib(), before + 1024);
    for (const SecureBuffer* buffer : {&small, &large}) {
      const std::string flags = smaps_line(buffer->data(), "VmFlags:");
      EXPECT_NE(flags.find(" lo "), std::string::npos) << flags;
      EXPECT_NE(flags.find(" dd "), std::string::npos) << flags;
    }
  }
  EXPECT_EQ(locked_kib(), before);
}

TEST(SecureBuffer, WritingPastARegionIsCaught) {
  SecureBuffer a(128 * 1024);
  EXPECT_DEATH(*const_cast<volatile std::byte*>(a.data() + a.size()) = std::byte{1}, "");
  EXPECT_DEATH(*const_cast<volatile std::byte*>(a.data() - 1) = std::byte{1}, "");
}

#ifdef QLUKS_ADDRESS_SANITIZER
TEST(SecureBuffer, SanitizerSeesWritesPastABuffer) {
  SecureBuffer a(100);
  EXPECT_DEATH(*const_cast<volatile std::byte*>(a.data() + 100) = std::byte{1}, "use-after-poison");
}
#endif

/* In a child process, since it cannot be undone. */
void exit_if_children_find_nothing() {
  SecureBuffer before(32);
  fill(before, std::byte{7});
  keep_secure_memory_here();
  SecureBuffer after(1 << 20);
  fill(after, std::byte{7});
  const pid_t child = fork();
  if (child == 0) _exit(all_are(before, std::byte{0}) && all_are(after, std::byte{0}) ? 1 : 2);
  int status = 0;
  waitpid(child, &status, 0);
  _exit(all_are(before, std::byte{7}) && all_are(after, std::byte{7}) ? WEXITSTATUS(status) : 3);
}

TEST(SecureBuffer, ChildrenOfTheServingProcessFindZeroes) {
  EXPECT_EXIT(exit_if_children_find_nothing(), ::testing::ExitedWithCode(1), "");
}

TEST(SecureBuffer, TheServingProcessLocksWhatItInherited) {
  if (!may_lock_megabytes()) GTEST_SKIP() << "4 MiB cannot be locked here";
  SecureBuffer secret(32);
  fill(secret, std::byte{7});
  const auto lock_in_child = [&] {
    const bool inherited = locked_kib() != 0;
    keep_secure_memory_here();
    _exit(!inherited && locked_kib() != 0 && all_are(secret, std::byte{7}) ? 1 : 2);
  };
  EXPECT_EXIT(lock_in_child(), ::testing::ExitedWithCode(1), "");
}

TEST(SecureBuffer, ComparisonSeesEveryByte) {
  SecureBuffer a(3);
  SecureBuffer b(3);
  EXPECT_TRUE(equal_constant_time(a.span(), b.span()));
  b.data()[2] = std::byte{1};
  EXPECT_FALSE(equal_constant_time(a.span(), b.span()));
  EXPECT_FALSE(equal_constant_time(a.span(), b.span().first(2)));
}

} // namespace
} // namespace qluks
