/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2 images of each kind that are written while the n-th allocation of the process fails.  A request fails with "out
 * of memory" or is whole; nothing that was stable is lost, and nothing is leaked. */
#include "tests/faults/write_workload.hpp"
#include "tests/support/failing_memory.hpp"
#include "tests/support/plain_storage.hpp"

namespace qluks {
namespace {

using test::Content;
using test::PlainStorage;
using test::WriteStep;

class Qcow2WriteMemory : public test::WriteWorkload<Qcow2WriteMemory> {
 public:
  /* As the filter does it: what is thrown stops here, and a failure of memory is ENOMEM. */
  std::optional<Error> run_step(const WriteStep& step) {
    test::count_memory(true);
    try {
      Status s = change(step);
      test::count_memory(false);
      return s ? std::nullopt : std::optional(std::move(s.error()));
    } catch (const std::bad_alloc&) {
      test::count_memory(false);
      return Error{Errc::no_memory, 12, "thrown"};
    }
  }
  template <class Body>
  void quietly(Body body) {
    body();
  }
  static void expect_injected(const Error& error) {
    EXPECT_GT(test::memory_failures(), 0U) << error.what;
    EXPECT_EQ(error.code, Errc::no_memory) << error.what;
  }
  const Content& stored() const { return image_file_->bytes; }

 protected:
  std::unique_ptr<BlockDevice> device_of(const Content& file) {
    auto storage = std::make_unique<PlainStorage>(file);
    if (devices_.empty()) image_file_ = storage.get();
    return storage;
  }

  /* Every n until none fails; how many there are. */
  size_t fail_each(bool always) {
    for (size_t nth = 1;; ++nth) {
      SCOPED_TRACE("allocation " + std::to_string(nth) + (always ? " and all after it" : ""));
      load([this](const Content& file) { return device_of(file); });
      test::fail_memory_at(nth, always);
      run_all(always);
      const size_t failures = test::memory_failures();
      test::fail_memory_at(0, false);
      if (failures == 0 || HasFailure()) return nth - 1;
    }
  }

  PlainStorage* image_file_ = nullptr;
  static inline size_t total_ = 0;
};

TEST_P(Qcow2WriteMemory, EachAllocationMayFail) {
  fail_each(true); /* what is made once, also by a failure, is there now */
  forget();
  const test::MemoryInUse before = test::memory_in_use();
  const size_t points = fail_each(false) + fail_each(true);
  forget();
  EXPECT_EQ(test::memory_in_use().blocks, before.blocks);
  EXPECT_EQ(test::memory_in_use().mapped_bytes, before.mapped_bytes);
  total_ += points;
  std::printf("%-32s %5zu failing allocations (%zu in all)\n", image_.name.c_str(), points, total_);
  EXPECT_GT(points, 10U);
}

INSTANTIATE_TEST_SUITE_P(Images, Qcow2WriteMemory, ::testing::ValuesIn(test::writable_images()),
                         [](const auto& each) { return each.param.test_name(); });

} // namespace
} // namespace qluks
