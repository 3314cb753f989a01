/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/partition/layer.hpp"

#include <gtest/gtest.h>

#include "tests/support/partition_builder.hpp"
#include "tests/support/writable_device.hpp"

namespace qluks {
namespace {

using test::MbrDisk;
using test::WritableDevice;
using test::WriteCall;

constexpr uint64_t offset = uint64_t{10} * 512;
constexpr uint64_t length = uint64_t{50} * 512;

std::vector<std::byte> disk_bytes() {
  MbrDisk disk(100);
  disk.set(0, 0, 0x83, 10, 50);
  return disk.bytes;
}

TEST(PartitionLayer, EveryChangeGoesThroughShifted) {
  WritableDevice device(disk_bytes());
  const auto format = open_partition(device, 1);
  ASSERT_TRUE(format) << format.error().what;
  const auto layer = (*format)->stack_on(device);
  const WriteAbilities abilities = layer->write_abilities();
  EXPECT_TRUE(abilities.write && abilities.flush && abilities.fua && abilities.trim && abilities.zero);
  const std::vector<std::byte> bytes(100, std::byte{7});
  ASSERT_TRUE(layer->write(bytes, 3, Fua::yes));
  ASSERT_TRUE(layer->zero(length - 512, 512, ZeroMode::may_trim, Fua::no));
  ASSERT_TRUE(layer->trim(0, length, Fua::no));
  ASSERT_TRUE(layer->flush());
  ASSERT_EQ(device.calls.size(), 4U);
  EXPECT_EQ(device.calls[0].offset, offset + 3);
  EXPECT_EQ(device.calls[0].fua, Fua::yes);
  EXPECT_EQ(device.calls[1].kind, WriteCall::Kind::zero);
  EXPECT_EQ(device.calls[1].offset + device.calls[1].length, offset + length);
  EXPECT_EQ(device.calls[2].kind, WriteCall::Kind::trim);
  EXPECT_EQ(device.calls[2].offset, offset);
  EXPECT_EQ(device.calls[2].length, length);
  EXPECT_EQ(device.calls[3].kind, WriteCall::Kind::flush);
}

TEST(PartitionLayer, DiskThatHasShrunkShowsLess) {
  WritableDevice device(disk_bytes());
  const auto format = open_partition(device, 1);
  ASSERT_TRUE(format) << format.error().what;
  EXPECT_EQ((*format)->stack_on(device)->size(), length);
  device.bytes.resize(offset + 512);
  EXPECT_EQ((*format)->stack_on(device)->size(), 512U);
  device.bytes.resize(512);
  EXPECT_EQ((*format)->stack_on(device)->size(), 0U);
}

} // namespace
} // namespace qluks
