/* SPDX-License-Identifier: BSD-3-Clause */
/* Writes to LUKS volumes: what is read back, and what goes down. */
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <thread>

#include "formats/luks/keyring.hpp"
#include "formats/luks/layer.hpp"
#include "tests/support/luks_builder.hpp"
#include "tests/support/writable_device.hpp"

namespace qluks {
namespace {

using test::Luks2Volume;
using test::make_luks1;
using test::make_luks2;
using test::WritableDevice;
using test::WriteCall;
using Content = std::vector<std::byte>;
using Kind = WriteCall::Kind;

class LuksWrite : public ::testing::Test {
 protected:
  LuksWrite() { keyring_.add_secret(test::secret_of("secret")); }

  void open(const Content& image, const LuksOptions& options = {}) {
    device_ = std::make_unique<WritableDevice>(image);
    auto format = open_luks(*device_, keyring_, options);
    ASSERT_TRUE(format) << format.error().what;
    format_ = std::move(*format);
    layer_ = format_->stack_on(*device_);
    payload_offset_ = device_->size() - layer_->size();
  }

  static Content random_bytes(size_t length) {
    static std::minstd_rand random(7);
    Content bytes(length);
    for (std::byte& b : bytes) b = static_cast<std::byte>(random() >> 8);
    return bytes;
  }

  Content read_all() {
    Content bytes(layer_->size());
    const Status s = layer_->read(bytes, 0);
    EXPECT_TRUE(s) << s.error().what;
    return bytes;
  }

  void write(Content& model, uint64_t offset, size_t length) {
    const Content src = random_bytes(length);
    const Content before = src;
    const Status s = layer_->write(src, offset, Fua::no);
    ASSERT_TRUE(s) << s.error().what;
    ASSERT_EQ(src, before) << "the client's buffer was changed";
    std::copy(src.begin(), src.end(), model.begin() + static_cast<ptrdiff_t>(offset));
  }

  size_t count(Kind kind) const {
    return static_cast<size_t>(std::count_if(device_->calls.begin(), device_->calls.end(),
                                             [kind](const WriteCall& call) { return call.kind == kind; }));
  }

  Keyring keyring_;
  std::unique_ptr<WritableDevice> device_;
  std::unique_ptr<Format> format_;
  std::unique_ptr<BlockDevice> layer_;
  uint64_t payload_offset_ = 0;
};

constexpr size_t lengths[] = {1, 2, 511, 512, 513, 1023, 4095, 4096, 4097, 8191, 8192, 8193, 40000};
constexpr uint64_t offsets[] = {0, 1, 511, 512, 513, 4095, 4096, 4097, 8191};

TEST_F(LuksWrite, EveryOffsetAndLengthAroundSectors) {
  for (const uint32_t sector_size : {512U, 1024U, 2048U, 4096U}) {
    const Luks2Volume volume = make_luks2({.sector_size = sector_size, .iv_tweak = sector_size / 512 * 5});
    open(volume.image());
    Content model = volume.plain;
    for (const uint64_t offset : offsets) {
      for (const size_t length : lengths) {
        write(model, offset, length);
        ASSERT_EQ(read_all(), model) << sector_size << " " << offset << " " << length;
      }
    }
    /* Read by another, from the stored bytes alone. */
    Content stored = device_->bytes;
    open(stored);
    EXPECT_EQ(read_all(), model);
  }
}

TEST_F(LuksWrite, EveryCipher) {
  for (const char* cipher :
       {"aes-xts-plain64", "aes-cbc-essiv:sha256", "aes-cbc-plain64", "aes-ctr-plain64", "aes-lrw-benbi", "aes-ecb",
        "serpent-xts-plain64", "twofish-cbc-essiv:sha256", "camellia-xts-plain64", "aes-pcbc-plain64",
        "aes-cfb-plain64", "aes-ofb-plain64", "aes-xctr-plain64", "xchacha20,aes-adiantum-plain64", "aes-cbc-eboiv"}) {
    const Luks2Volume volume = make_luks2({.cipher = cipher, .payload_bytes = 16 << 10});
    open(volume.image());
    Content model = volume.plain;
    for (const size_t length : {size_t{1}, size_t{512}, size_t{5000}, size_t{12288}}) write(model, 700, length);
    EXPECT_EQ(read_all(), model) << cipher;
  }
}

TEST_F(LuksWrite, ToTheEndsOfThePayloadAndNoFurther) {
  const auto volume = make_luks1();
  open(volume.image());
  const Content header(device_->bytes.begin(), device_->bytes.begin() + static_cast<ptrdiff_t>(payload_offset_));
  Content model = volume.plain;
  write(model, 0, model.size());
  write(model, model.size() - 1, 1);
  write(model, model.size() - 513, 513);
  ASSERT_TRUE(layer_->zero(0, 1, ZeroMode::may_trim, Fua::no));
  model[0] = std::byte{0};
  EXPECT_EQ(read_all(), model);
  EXPECT_TRUE(std::equal(header.begin(), header.end(), device_->bytes.begin()));
}

TEST_F(LuksWrite, IsOneWriteForEachMebibyteOfWholeSectors) {
  const Luks2Volume volume = make_luks2({.payload_bytes = 3 << 20});
  open(volume.image());
  const Content src = random_bytes((2 << 20) + 100);
  ASSERT_TRUE(layer_->write(src, 1000, Fua::yes));
  ASSERT_EQ(device_->calls.size(), 3U);
  EXPECT_EQ(device_->calls[0].offset, payload_offset_ + 512);
  EXPECT_EQ(device_->calls[0].length, 1U << 20);
  for (const WriteCall& call : device_->calls) {
    EXPECT_EQ(call.kind, Kind::write);
    EXPECT_EQ(call.length % 512, 0U);
    EXPECT_EQ(call.fua, Fua::yes);
  }
}

TEST_F(LuksWrite, NothingGoesDownInPlain) {
  const Luks2Volume volume = make_luks2();
  open(volume.image());
  Content marked(20000);
  const std::string_view marker = "a marker of 16 B";
  for (size_t i = 0; i < marked.size(); ++i) marked[i] = static_cast<std::byte>(marker[i % marker.size()]);
  for (const uint64_t offset : offsets) ASSERT_TRUE(layer_->write(marked, offset, Fua::no));
  for (const WriteCall& call : device_->calls) {
    const std::string_view bytes(reinterpret_cast<const char*>(call.bytes.data()), call.bytes.size());
    EXPECT_EQ(bytes.find("a marker"), std::string_view::npos);
  }
}

TEST_F(LuksWrite, ZeroesAreEncrypted) {
  const Luks2Volume volume = make_luks2({.sector_size = 4096, .payload_bytes = 3 << 20});
  open(volume.image());
  Content model = volume.plain;
  for (const auto& [offset, length] : {std::pair<uint64_t, uint64_t>{100, 5}, {4000, 200}, {8192, 2 << 20}}) {
    ASSERT_TRUE(layer_->zero(offset, length, ZeroMode::may_trim, Fua::no));
    std::fill_n(model.begin() + static_cast<ptrdiff_t>(offset), length, std::byte{0});
  }
  EXPECT_EQ(read_all(), model);
  EXPECT_EQ(count(Kind::zero), 0U);
  EXPECT_EQ(count(Kind::trim), 0U);
  for (const ZeroMode fast : {ZeroMode::fast_keep, ZeroMode::fast_may_trim}) {
    const Status s = layer_->zero(0, 4096, fast, Fua::no);
    ASSERT_FALSE(s);
    EXPECT_EQ(s.error().code, Errc::not_fast);
  }
}

TEST_F(LuksWrite, SaysWhatItCanDo) {
  const auto volume = make_luks1();
  open(volume.image());
  WriteAbilities abilities = layer_->write_abilities();
  EXPECT_TRUE(abilities.write && abilities.flush && abilities.fua && abilities.zero && abilities.multi_conn);
  EXPECT_FALSE(abilities.trim || abilities.fast_zero);
  open(volume.image(), {.discard = true});
  EXPECT_TRUE(layer_->write_abilities().trim);
  device_->abilities = {};
  abilities = layer_->write_abilities();
  EXPECT_FALSE(abilities.write || abilities.flush || abilities.fua || abilities.trim || abilities.zero);
}

TEST_F(LuksWrite, TrimsWholeSectorsOnly) {
  const Luks2Volume volume = make_luks2({.sector_size = 4096});
  open(volume.image(), {.discard = true});
  ASSERT_TRUE(layer_->trim(1, 4095, Fua::no));
  EXPECT_EQ(count(Kind::trim), 0U);
  ASSERT_TRUE(layer_->trim(4095, 4097 + 4095, Fua::no));
  ASSERT_EQ(count(Kind::trim), 1U);
  EXPECT_EQ(device_->calls.back().offset, payload_offset_ + 4096);
  EXPECT_EQ(device_->calls.back().length, 4096U);
}

/* Lets another thread come between the read and the write of a sector that is changed. */
class SlowDevice final : public WritableDevice {
 public:
  using WritableDevice::WritableDevice;
  Status read(std::span<std::byte> dst, uint64_t offset) override {
    Status s = WritableDevice::read(dst, offset);
    std::this_thread::yield();
    return s;
  }
};

TEST_F(LuksWrite, PartsOfOneSectorFromManyThreadsAllSurvive) {
  const Luks2Volume volume = make_luks2({.sector_size = 4096});
  SlowDevice device(volume.image());
  const auto format = open_luks(device, keyring_);
  ASSERT_TRUE(format);
  constexpr size_t threads = 8;
  constexpr size_t bytes = 32;
  std::vector<std::thread> writers;
  for (size_t t = 0; t < threads; ++t) {
    writers.emplace_back([&, t] {
      const auto layer = (*format)->stack_on(device); /* a connection of its own */
      for (int round = 1; round <= 20; ++round) {
        for (size_t at = t * bytes; at < 8192; at += threads * bytes) {
          const Content mine(bytes, static_cast<std::byte>(round * 8 + static_cast<int>(t)));
          ASSERT_TRUE(layer->write(mine, at, Fua::no));
        }
      }
    });
  }
  for (auto& writer : writers) writer.join();
  Content got(8192);
  ASSERT_TRUE((*format)->stack_on(device)->read(got, 0));
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_EQ(got[i], static_cast<std::byte>(20 * 8 + static_cast<int>(i / bytes % threads))) << i;
  }
}

} // namespace
} // namespace qluks
