/* SPDX-License-Identifier: BSD-3-Clause */
/* Failing memory: each kind of image is opened, read and closed while the n-th allocation of the process fails, for
 * every n.
 *
 * The outcome is "out of memory" or is whole and right; nothing aborts, nothing is leaked, and once there is memory
 * again everything works. */
#include "tests/faults/workload.hpp"
#include "tests/support/failing_memory.hpp"
#include "tests/support/memory_device.hpp"

namespace qluks {
namespace {

using test::MemoryInUse;
using test::StoredImage;

/* No copy of what is read, and nothing allocated. */
class StaticDevice final : public BlockDevice {
 public:
  explicit StaticDevice(const test::Content& bytes) : bytes_(bytes) {}
  uint64_t size() const noexcept override { return bytes_.size(); }
  Limits limits() const noexcept override { return {}; }
  Status read(std::span<std::byte> dst, uint64_t offset) override {
    std::copy_n(bytes_.begin() + static_cast<ptrdiff_t>(offset), dst.size(), dst.begin());
    return ok();
  }
  Result<Extent> extent(uint64_t, uint64_t max) override { return Extent{.length = max}; }

 private:
  const test::Content& bytes_;
};

class Memory : public test::Workload<Memory> {
 public:
  /* As the filter does it: what is thrown stops here, and a failure of memory is ENOMEM. */
  template <class Step>
  bool tried(Step step) {
    bool done = attempt(step);
    if (!done && !always_) {
      done = attempt(step);
      EXPECT_TRUE(done) << "the second time";
    }
    return done;
  }

 protected:
  void SetUp() override {
    for (const test::Content& file : image_.files) devices_.push_back(std::make_unique<StaticDevice>(file));
    remember_extents();
  }

  template <class Step>
  bool attempt(Step step) {
    test::count_memory(true);
    try {
      const Status s = step();
      test::count_memory(false);
      if (s) return true;
      EXPECT_EQ(s.error().code, Errc::no_memory) << s.error().what;
    } catch (const std::bad_alloc&) {
      test::count_memory(false);
    }
    EXPECT_GT(test::memory_failures(), 0U);
    return false;
  }

  /* Every n until none fails; how many there are.  Each is another volume, so that the key is derived again. */
  size_t for_each_allocation(bool always, bool fresh_keyring) {
    always_ = always;
    for (size_t nth = 1;; ++nth) {
      SCOPED_TRACE("allocation " + std::to_string(nth) + (always ? " and all after it" : ""));
      if (fresh_keyring) new_keyring();
      image_.rename(++volumes_);
      test::fail_memory_at(nth, always);
      open_read_and_map();
      if (test::memory_failures() == 0 || HasFailure()) return nth - 1;
    }
  }

  size_t for_each_allocation_without_a_leak(std::initializer_list<bool> modes, bool fresh_keyring) {
    use_once();
    keyring_.reset();
    const MemoryInUse before = test::memory_in_use();
    new_keyring();
    size_t points = 0;
    for (const bool always : modes) points += for_each_allocation(always, fresh_keyring);
    opened_.reset();
    keyring_.reset();
    const MemoryInUse after = test::memory_in_use();
    EXPECT_EQ(after.blocks, before.blocks);
    EXPECT_EQ(after.mapped_bytes, before.mapped_bytes);
    return points;
  }

  /* What is made once in a process, also by a failure, is there from now on. */
  void use_once() {
    SCOPED_TRACE("once");
    always_ = false;
    for (const size_t nth : {0, 1}) {
      test::fail_memory_at(nth, false);
      open_read_and_map();
    }
  }

  static void count(size_t n) {
    total_ += n;
    std::printf("%-30s %5zu failing allocations (%zu in all)\n", GetParam().name.c_str(), n, total_);
  }

  static inline size_t total_ = 0;

  bool always_ = false;
  unsigned volumes_ = 0;
};

TEST_P(Memory, EachAllocationMayFail) { count(for_each_allocation_without_a_leak({true, false}, false)); }

INSTANTIATE_TEST_SUITE_P(Images, Memory, ::testing::ValuesIn(test::stored_images()),
                         [](const auto& each) { return each.param.test_name(); });

/* With the measurements that come before the first derivation. */
using FirstDerivation = Memory;

TEST_P(FirstDerivation, EachAllocationMayFail) { count(for_each_allocation_without_a_leak({false}, true)); }

std::vector<StoredImage> images_with_each_derivation() {
  std::vector<StoredImage> images = test::stored_images();
  std::erase_if(images, [](const StoredImage& image) {
    return image.name != "LUKS1" && image.name != "LUKS2, sectors of 4096"; /* PBKDF2 and Argon2 */
  });
  return images;
}

INSTANTIATE_TEST_SUITE_P(Images, FirstDerivation, ::testing::ValuesIn(images_with_each_derivation()),
                         [](const auto& each) { return each.param.test_name(); });

} // namespace
} // namespace qluks
