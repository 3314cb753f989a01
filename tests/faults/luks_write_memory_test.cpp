/* SPDX-License-Identifier: BSD-3-Clause */
/* LUKS volumes that are written while the n-th allocation of the process fails, for every n: the write fails with "out
 * of memory" or is whole, nothing is leaked, and it works once there is memory again. */
#include <gtest/gtest.h>

#include <algorithm>

#include "formats/luks/keyring.hpp"
#include "formats/luks/layer.hpp"
#include "tests/support/failing_memory.hpp"
#include "tests/support/luks_builder.hpp"
#include "tests/support/plain_storage.hpp"

namespace qluks {
namespace {

class LuksWriteMemory : public ::testing::Test {
 protected:
  /* As the filter does it: what is thrown stops here. */
  template <class Step>
  static bool attempt(Step step) {
    test::count_memory(true);
    bool done = false;
    try {
      const Status s = step();
      test::count_memory(false);
      done = bool{s};
      EXPECT_TRUE(s || s.error().code == Errc::no_memory) << s.error().what;
    } catch (const std::bad_alloc&) {
      test::count_memory(false);
    }
    return done;
  }
};

TEST_F(LuksWriteMemory, EachAllocationMayFail) {
  const auto volume = test::make_luks2({.sector_size = 4096, .payload_bytes = 2 << 20});
  test::PlainStorage device(volume.image());
  Keyring keyring;
  keyring.add_secret(test::secret_of("secret"));
  const auto format = open_luks(device, keyring);
  ASSERT_TRUE(format);
  const auto layer = (*format)->stack_on(device);
  const std::vector<std::byte> src((1 << 20) + 5000, std::byte{7});
  std::vector<std::byte> got(src.size());
  const auto write = [&] {
    Status s = layer->write(src, 100, Fua::no);
    return s ? layer->zero(10, 9000, ZeroMode::keep, Fua::no) : s;
  };
  size_t points = 0;
  const auto fail_each = [&](bool always) {
    for (size_t nth = 1;; ++nth, ++points) {
      SCOPED_TRACE("allocation " + std::to_string(nth));
      test::fail_memory_at(nth, always);
      const bool done = attempt(write);
      const size_t failures = test::memory_failures();
      test::fail_memory_at(0, false);
      EXPECT_TRUE(done || failures != 0);
      ASSERT_TRUE(write());
      ASSERT_TRUE(layer->read(got, 100));
      ASSERT_TRUE(std::all_of(got.begin() + 9000, got.end(), [](std::byte b) { return b == std::byte{7}; }));
      if (failures == 0) return;
    }
  };
  fail_each(false); /* what is made once, also by a failure, is there now */
  const test::MemoryInUse before = test::memory_in_use();
  fail_each(false);
  fail_each(true);
  EXPECT_EQ(test::memory_in_use().blocks, before.blocks);
  EXPECT_EQ(test::memory_in_use().mapped_bytes, before.mapped_bytes);
  std::printf("%zu failing allocations\n", points);
  EXPECT_GT(points, 3U);
}

} // namespace
} // namespace qluks
