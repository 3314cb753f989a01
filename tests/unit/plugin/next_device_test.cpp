/* SPDX-License-Identifier: BSD-3-Clause */
/* The last line in front of nbdkit's asserts: a request outside of the container, from a bug in a layer, goes no
 * further. */
#include "plugin/next_device.hpp"

#include <gtest/gtest.h>

#include <array>

/* The type of a request's length, which is 64 bits wide from nbdkit 1.48 on. */
template <typename Function>
struct CountOf;
template <typename Count, typename... Rest>
struct CountOf<int(nbdkit_next*, Count, Rest...)> {
  using type = Count;
};
using ExtentsCount = CountOf<decltype(nbdkit_extents_aligned)>::type;

/* What nbdkit offers to filters and the requests here must not reach. */
extern "C" {
void nbdkit_error(const char*, ...) {}
void nbdkit_debug(const char*, ...) {}
nbdkit_extents* nbdkit_extents_new(uint64_t, uint64_t) { return nullptr; }
void nbdkit_extents_free(nbdkit_extents*) {}
size_t nbdkit_extents_count(const nbdkit_extents*) { return 0; }
nbdkit_extent nbdkit_get_extent(const nbdkit_extents*, size_t) { return {}; }
int nbdkit_extents_aligned(nbdkit_next*, ExtentsCount, uint64_t, uint32_t, uint32_t, nbdkit_extents*, int*) {
  return -1;
}
}

namespace qluks {
namespace {

constexpr int64_t container_bytes = 1 << 20;
int calls;

int yes(nbdkit_next*) { return 1; }

/* A plugin that can do everything and counts what it is asked to. */
nbdkit_next counting_plugin() {
  nbdkit_next next{};
  next.get_size = [](nbdkit_next*) { return container_bytes; };
  for (auto* can : {&next.can_extents, &next.can_write, &next.can_multi_conn, &next.can_flush, &next.can_trim,
                    &next.can_fast_zero}) {
    *can = yes;
  }
  next.can_cache = [](nbdkit_next*) { return NBDKIT_CACHE_NATIVE; };
  next.can_fua = [](nbdkit_next*) { return NBDKIT_FUA_NATIVE; };
  next.can_zero = [](nbdkit_next*) { return NBDKIT_ZERO_NATIVE; };
  next.block_size = [](nbdkit_next*, uint32_t* minimum, uint32_t* preferred, uint32_t* maximum) {
    *minimum = *preferred = *maximum = 0;
    return 0;
  };
  next.pread = [](nbdkit_next*, void*, uint32_t, uint64_t, uint32_t, int*) { return ++calls, 0; };
  next.pwrite = [](nbdkit_next*, const void*, uint32_t, uint64_t, uint32_t, int*) { return ++calls, 0; };
  next.extents = [](nbdkit_next*, uint32_t, uint64_t, uint32_t, nbdkit_extents*, int*) { return ++calls, 0; };
  next.cache = [](nbdkit_next*, uint32_t, uint64_t, uint32_t, int*) { return ++calls, 0; };
  next.trim = [](nbdkit_next*, uint32_t, uint64_t, uint32_t, int*) { return ++calls, 0; };
  next.zero = [](nbdkit_next*, uint32_t, uint64_t, uint32_t, int*) { return ++calls, 0; };
  return next;
}

struct Range {
  uint64_t offset;
  uint64_t length;
};

TEST(NextDevice, RequestsOutsideOfTheContainerGoNoFurther) {
  nbdkit_next next = counting_plugin();
  auto device = NextDevice::prepare(&next, false);
  ASSERT_TRUE(device);
  RangeLock lock;
  (*device)->share_block_lock(lock);
  std::array<std::byte, 4096> bytes{};
  calls = 0;
  for (const auto [offset, length] :
       {Range{container_bytes, 1}, Range{container_bytes - 1, 2}, Range{container_bytes - 4095, 4096}, Range{0, 0},
        Range{uint64_t{1} << 62, 512}, Range{UINT64_MAX, 1}, Range{UINT64_MAX - 511, 4096}}) {
    const auto part = std::span(bytes).first(static_cast<size_t>(length));
    const Status outcomes[] = {(*device)->read(part, offset), (*device)->write(part, offset, Fua::no),
                               (*device)->zero(offset, length, ZeroMode::keep, Fua::no),
                               (*device)->trim(offset, length, Fua::no), (*device)->cache(offset, length)};
    for (const Status& s : outcomes) {
      ASSERT_FALSE(s) << offset << " " << length;
      EXPECT_EQ(s.error().code, Errc::out_of_bounds);
      EXPECT_EQ(s.error().sys, EIO);
    }
    EXPECT_FALSE((*device)->extent(offset, length)) << offset << " " << length;
  }
  EXPECT_EQ(calls, 0);
  EXPECT_TRUE((*device)->read(bytes, container_bytes - 4096));
  EXPECT_EQ(calls, 1);
}

} // namespace
} // namespace qluks
