/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/luks/layer.hpp"
#include "formats/luks/keyring.hpp"

#include <gtest/gtest.h>

#include "tests/support/luks_builder.hpp"
#include "tests/support/memory_device.hpp"

namespace qluks {
namespace {

using test::Luks2Volume;
using test::make_luks1;
using test::make_luks2;
using test::MemoryDevice;
using test::ReadCall;

/* Says that every second 64 KiB is a hole, and records what is to be cached. */
class SparseDevice : public MemoryDevice {
 public:
  using MemoryDevice::MemoryDevice;

  Limits limits() const noexcept override { return {512, 65536, 1 << 20}; }
  Result<Extent> extent(uint64_t offset, uint64_t max) override {
    const bool hole = offset / 65536 % 2 == 1;
    return Extent{.length = std::min(max, 65536 - offset % 65536), .hole = hole, .zero = hole};
  }
  Status cache(uint64_t offset, uint64_t length) override {
    cached.push_back({offset, length});
    return ok();
  }

  std::vector<ReadCall> cached;
};

class LuksLayerTest : public ::testing::Test {
 protected:
  LuksLayerTest() { keyring_.add_secret(test::secret_of("secret")); }

  void open(const std::vector<std::byte>& image) {
    device_ = std::make_unique<SparseDevice>(image);
    auto format = open_luks(*device_, keyring_);
    ASSERT_TRUE(format) << format.error().what;
    format_ = std::move(*format);
    layer_ = format_->stack_on(*device_);
    device_->calls.clear();
  }

  std::vector<std::byte> read(uint64_t offset, size_t length) {
    std::vector<std::byte> bytes(length);
    const Status s = layer_->read(bytes, offset);
    EXPECT_TRUE(s) << s.error().what;
    return bytes;
  }

  static std::vector<std::byte> part(const std::vector<std::byte>& bytes, uint64_t offset, size_t length) {
    const auto first = bytes.begin() + static_cast<ptrdiff_t>(offset);
    return {first, first + static_cast<ptrdiff_t>(length)};
  }

  std::string refusal(const std::vector<std::byte>& image) {
    MemoryDevice device(image);
    const auto format = open_luks(device, keyring_);
    return format ? "opened" : format.error().what;
  }

  Keyring keyring_;
  std::unique_ptr<SparseDevice> device_;
  std::unique_ptr<Format> format_;
  std::unique_ptr<BlockDevice> layer_;
};

TEST_F(LuksLayerTest, EveryOffsetAndLengthAroundSectors) {
  for (const uint32_t sector_size : {512U, 1024U, 2048U, 4096U}) {
    const Luks2Volume volume = make_luks2({.sector_size = sector_size, .iv_tweak = sector_size / 512 * 5});
    open(volume.image());
    for (const uint64_t offset : {0U, 1U, 511U, 512U, 513U, 4095U, 4096U, 4097U, 8191U}) {
      for (const size_t length : {0U, 1U, 2U, 511U, 512U, 513U, 4095U, 4096U, 4097U, 40000U}) {
        EXPECT_EQ(read(offset, length), part(volume.plain, offset, length)) << sector_size << " " << offset;
      }
    }
    EXPECT_EQ(read(layer_->size() - 1, 1), part(volume.plain, volume.plain.size() - 1, 1));
  }
}

/* The counter of a sector is added up modulo 2^64. */
TEST_F(LuksLayerTest, TweakWrapsAround) {
  const Luks2Volume volume = make_luks2({.iv_tweak = UINT64_MAX - 1});
  open(volume.image());
  EXPECT_EQ(read(0, volume.plain.size()), volume.plain);
}

TEST_F(LuksLayerTest, AlignedReadIsOneReadBelow) {
  const Luks2Volume volume = make_luks2({.sector_size = 4096, .payload_bytes = 1 << 20});
  open(volume.image());
  EXPECT_EQ(read(4096, 1 << 19), part(volume.plain, 4096, 1 << 19));
  EXPECT_EQ(device_->calls, (std::vector<ReadCall>{{294912 + 4096, 1 << 19}}));
}

TEST_F(LuksLayerTest, SizeIsThatOfWholeSectors) {
  Luks2Volume volume = make_luks2({.sector_size = 4096});
  volume.rest.resize(volume.rest.size() - 1);
  open(volume.image());
  EXPECT_EQ(layer_->size(), volume.plain.size() - 4096);
  EXPECT_EQ(read(0, volume.plain.size() - 4096), part(volume.plain, 0, volume.plain.size() - 4096));
}

TEST_F(LuksLayerTest, FixedSizeEndsInFrontOfTheDevice) {
  Luks2Volume volume = make_luks2();
  volume.segment()["size"] = "1024";
  open(volume.image());
  EXPECT_EQ(layer_->size(), 1024U);
}

/* Another connection may see another size. */
TEST_F(LuksLayerTest, SizeFollowsTheDeviceBelow) {
  const Luks2Volume volume = make_luks2();
  open(volume.image());
  auto image = volume.image();
  image.resize(image.size() - 1000);
  MemoryDevice shorter(image);
  EXPECT_EQ(format_->stack_on(shorter)->size(), volume.plain.size() - 1024);
  MemoryDevice tiny(std::vector<std::byte>(512));
  EXPECT_EQ(format_->stack_on(tiny)->size(), 0U);
}

/* Holes below as well. */
TEST_F(LuksLayerTest, EverythingIsData) {
  open(make_luks2({.payload_bytes = 1 << 20}).image());
  const auto extent = layer_->extent(512, layer_->size() - 512);
  ASSERT_TRUE(extent);
  EXPECT_EQ(extent->length, layer_->size() - 512);
  EXPECT_FALSE(extent->hole || extent->zero);
}

TEST_F(LuksLayerTest, LimitsAndCachePassDown) {
  open(make_luks2().image());
  EXPECT_EQ(layer_->limits().minimum, 1U);
  EXPECT_EQ(layer_->limits().preferred, 65536U);
  EXPECT_EQ(layer_->limits().maximum, 1U << 20);
  EXPECT_TRUE(layer_->cache(100, 200));
  EXPECT_EQ(device_->cached, (std::vector<ReadCall>{{294912 + 100, 200}}));
}

TEST_F(LuksLayerTest, WritesAreRefused) {
  open(make_luks2().image());
  const std::vector<std::byte> sector(512);
  const Status s = layer_->write(sector, 0, Fua::no);
  ASSERT_FALSE(s);
  EXPECT_EQ(s.error().code, Errc::read_only);
}

TEST_F(LuksLayerTest, FailingReadIsTheResult) {
  open(make_luks2().image());
  device_->fail_call = 1;
  std::vector<std::byte> bytes(512);
  const Status s = layer_->read(bytes, 0);
  ASSERT_FALSE(s);
  EXPECT_EQ(s.error().code, Errc::io);
}

TEST_F(LuksLayerTest, SaysWhatItIs) {
  open(make_luks2({.key_bytes = 64}).image());
  EXPECT_EQ(format_->describe(), "LUKS2 aes-xts-plain64 512-bit");
  open(make_luks1({.cipher_mode = "cbc-essiv:sha256"}).image());
  EXPECT_EQ(format_->describe(), "LUKS1 aes-cbc-essiv:sha256 256-bit");
}

TEST_F(LuksLayerTest, PayloadHasToStartInsideTheDevice) {
  Luks2Volume volume = make_luks2();
  volume.rest.resize(294912 - 32768);
  EXPECT_EQ(refusal(volume.image()),
            "LUKS2: the payload starts at byte 294912, behind the device, which has 294912 bytes: is the "
            "file cut short?");
  volume.rest.resize(294912 - 32768 + 511);
  EXPECT_EQ(refusal(volume.image()), "LUKS2: the payload of 511 bytes is less than one sector of 512");
  test::Luks1Volume luks1 = make_luks1();
  luks1.phdr.payload_offset = UINT32_MAX;
  EXPECT_NE(refusal(luks1.image()).find("the payload starts at byte 2199023255040, behind the device"),
            std::string::npos);
}

TEST_F(LuksLayerTest, DetachedHeaderOpensThePayloadAlone) {
  Luks2Volume volume = make_luks2();
  volume.segment()["offset"] = "0";
  MemoryDevice header(volume.image());
  const auto opened = DetachedHeader::open(header, keyring_);
  ASSERT_TRUE(opened) << opened.error().what;
  MemoryDevice payload(part(volume.rest, 294912 - 32768, volume.plain.size()));
  const auto format = (*opened)->open_payload(payload);
  ASSERT_TRUE(format);
  const auto layer = (*format)->stack_on(payload);
  std::vector<std::byte> bytes(volume.plain.size());
  ASSERT_TRUE(layer->read(bytes, 0));
  EXPECT_EQ(bytes, volume.plain);
}

/* A header of its own in front of the payload means nothing. */
TEST_F(LuksLayerTest, DetachedHeaderNeverFallsBackToThePayloads) {
  MemoryDevice payload(make_luks2().image());
  Luks2Volume other = make_luks2({.slots = {{"another secret"}}});
  MemoryDevice header(other.image());
  const auto wrong = DetachedHeader::open(header, keyring_);
  ASSERT_FALSE(wrong);
  EXPECT_EQ(wrong.error().code, Errc::wrong_passphrase);
  MemoryDevice nothing(std::vector<std::byte>(1 << 20));
  const auto none = DetachedHeader::open(nothing, keyring_);
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().code, Errc::invalid_format);
  EXPECT_TRUE(payload.calls.empty());
}

TEST_F(LuksLayerTest, SegmentEssivHashThatMakesNoKeyIsRefused) {
  Luks2Volume volume = make_luks2();
  volume.segment()["encryption"] = "aes-cbc-essiv:sha512";
  EXPECT_NE(refusal(volume.image()).find("LUKS2: "), std::string::npos);
}

} // namespace
} // namespace qluks
