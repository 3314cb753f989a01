/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/luks/keyring.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "base/log.hpp"
#include "base/units.hpp"
#include "tests/support/luks_builder.hpp"
#include "tests/support/memory_device.hpp"

namespace qluks {
namespace {

using test::Luks2Slot;
using test::Luks2Volume;
using test::make_luks1;
using test::make_luks2;
using test::MemoryDevice;
using test::secret_of;

std::mutex lines_mutex;
std::vector<std::string> lines;

class KeyringTest : public ::testing::Test {
 protected:
  void SetUp() override {
    lines.clear();
    set_log_sink([](LogLevel, const std::string& line) {
      const std::lock_guard lock(lines_mutex);
      lines.push_back(line);
    });
  }
  void TearDown() override { set_log_sink(nullptr); }

  Result<Keyring::Key> unlock(MemoryDevice& device) {
    const auto header = read_luks_header(device, HeaderPlace::attached);
    if (!header) return tl::unexpected(header.error());
    return keyring_.unlock(*header, device);
  }

  /* The slot that opened, or the refusal. */
  std::string outcome(std::vector<std::byte> image) {
    MemoryDevice device(std::move(image));
    const auto key = unlock(device);
    return key ? "slot " + std::to_string(*(*key)->slot) : key.error().what;
  }

  static size_t derivation_reports() {
    const std::lock_guard lock(lines_mutex);
    return static_cast<size_t>(std::count_if(lines.begin(), lines.end(), [](const std::string& line) {
      return line.find("derivation") != std::string::npos;
    }));
  }

  static std::vector<std::byte> image_of(std::vector<Luks2Slot> slots) {
    return make_luks2({.slots = std::move(slots)}).image();
  }

  Keyring keyring_;
};

TEST_F(KeyringTest, FirstSecretThatOpensASlotGivesTheKey) {
  keyring_.add_secret(secret_of("wrong"));
  keyring_.add_secret(secret_of("b"));
  keyring_.add_secret(secret_of("a"));
  EXPECT_EQ(outcome(make_luks1({.secrets = {"a", "b"}}).image()), "slot 1");
  EXPECT_NE(lines.back().find("opened after 4 derivations"), std::string::npos) << lines.back();
  EXPECT_EQ(outcome(image_of({{"a"}, {"b", true}})), "slot 1");
}

TEST_F(KeyringTest, KeyIsTheVolumeKey) {
  keyring_.add_secret(secret_of("secret"));
  MemoryDevice device(make_luks2({.key_bytes = 64}).image());
  const auto key = unlock(device);
  ASSERT_TRUE(key);
  EXPECT_EQ((*key)->volume_key.size(), 64U);
  EXPECT_NE(lines.back().find("(pbkdf2-sha256, 2 iterations) opened after 1 derivation"), std::string::npos);
}

TEST_F(KeyringTest, EmptySecretIsASecret) {
  keyring_.add_secret(SecureBuffer());
  EXPECT_EQ(outcome(image_of({{""}})), "slot 0");
  EXPECT_EQ(outcome(image_of({{"", true}})), "slot 0");
  EXPECT_EQ(outcome(make_luks1({.secrets = {""}}).image()), "slot 0");
}

TEST_F(KeyringTest, SecretsAreBytes) {
  const std::string with_nul("a\0b\n", 4);
  keyring_.add_secret(secret_of(with_nul));
  EXPECT_EQ(outcome(image_of({{"a"}, {with_nul}})), "slot 1");
}

TEST_F(KeyringTest, PreferredSlotsComeFirst) {
  keyring_.add_secret(secret_of("s"));
  EXPECT_EQ(outcome(image_of({{"s"}, {"s", false, 1}, {"s", false, 2}, {"s", false, 2}})), "slot 2");
}

TEST_F(KeyringTest, IgnoredSlotsAreTriedOnlyWhenNamed) {
  keyring_.add_secret(secret_of("s"));
  const auto image = image_of({{"s", false, 0}, {"other"}, {"s", false, 7}});
  EXPECT_NE(outcome(image).find("1 secret tried on 1 key slot (1)"), std::string::npos);
  keyring_.use_only_slot(0);
  EXPECT_EQ(outcome(image), "slot 0");
}

TEST_F(KeyringTest, UnboundSlotsAreNotTried) {
  keyring_.add_secret(secret_of("s"));
  EXPECT_EQ(outcome(image_of({{"s", false, -1, false}, {"s"}})), "slot 1");
  EXPECT_NE(outcome(image_of({{"s", false, -1, false}, {"t"}})).find("tried on 1 key slot (1)"), std::string::npos);
  EXPECT_NE(outcome(image_of({{"s", false, -1, false}})).find("no key slot can be tried"), std::string::npos);
}

TEST_F(KeyringTest, NamedSlotIsTheOnlyOneTried) {
  keyring_.add_secret(secret_of("a"));
  keyring_.use_only_slot(1);
  EXPECT_NE(outcome(image_of({{"a"}, {"b"}})).find("1 secret tried on 1 key slot (1)"), std::string::npos);
  EXPECT_EQ(outcome(image_of({{"b"}, {"a"}})), "slot 1");
  EXPECT_NE(outcome(image_of({{"a"}})).find("key slot 1 holds no key of the payload"), std::string::npos);
}

TEST_F(KeyringTest, RefusalCountsSlotsAndSecrets) {
  keyring_.add_secret(secret_of("x"));
  keyring_.add_secret(secret_of("y"));
  MemoryDevice device(image_of({{"a"}, {"b"}}));
  const auto key = unlock(device);
  ASSERT_FALSE(key);
  EXPECT_EQ(key.error().code, Errc::wrong_passphrase);
  EXPECT_EQ(key.error().what,
            "LUKS2 volume \"66666666-7777-8888-9999-000000000000\": no key slot opens: 2 secrets tried on 2 key slots "
            "(0, 1)");
}

TEST_F(KeyringTest, RefusalNamesTheSlotsThatCannotBeTried) {
  keyring_.add_secret(secret_of("x"));
  Luks2Volume volume = make_luks2({.slots = {{"a"}, {"b"}}});
  volume.slot()["kdf"]["type"] = "scrypt";
  EXPECT_NE(outcome(volume.image()).find("on 1 key slot (1); key slot 0 is not tried: kdf: unknown type \"scrypt\""),
            std::string::npos);
}

TEST_F(KeyringTest, NewlineHint) {
  keyring_.add_secret(secret_of("secret\n"));
  EXPECT_NE(outcome(image_of({{"secret"}})).find("; the secret ends in a newline"), std::string::npos);
  keyring_.add_secret(secret_of("x"));
  EXPECT_NE(outcome(image_of({{"secrets"}})).find("; one of the secrets ends in a newline"), std::string::npos);
  EXPECT_EQ(outcome(image_of({{"secrets"}})).find("carriage return"), std::string::npos);
}

TEST_F(KeyringTest, CarriageReturnHint) {
  keyring_.add_secret(secret_of("secret\r"));
  EXPECT_NE(outcome(image_of({{"secret"}})).find("; the secret ends in a carriage return"), std::string::npos);
}

TEST_F(KeyringTest, DroppedNewlineHint) {
  keyring_.add_secret(secret_of("secret"), true);
  EXPECT_NE(outcome(image_of({{"secret\n"}})).find("; the newline behind the passphrase was dropped: qluks-key-file="),
            std::string::npos);
}

TEST_F(KeyringTest, NoSecretIsSaid) {
  EXPECT_NE(outcome(image_of({{"a"}})).find("needs a secret: use qluks-passphrase"), std::string::npos);
}

TEST_F(KeyringTest, VolumeKeyIsComparedWithTheDigest) {
  EXPECT_FALSE(keyring_.has_secrets());
  keyring_.use_volume_key(SecureBuffer::copy_of(test::volume_key(32)));
  EXPECT_TRUE(keyring_.has_secrets());
  Luks2Volume erased = make_luks2({.slots = {{"a"}}});
  erased.json["keyslots"] = nlohmann::json::object();
  erased.digest()["keyslots"] = nlohmann::json::array();
  for (const auto& image :
       {make_luks1().image(), make_luks1({.secrets = {}}).image(), make_luks2().image(), erased.image()}) {
    MemoryDevice device(image);
    const auto key = unlock(device);
    ASSERT_TRUE(key) << key.error().what;
    EXPECT_EQ((*key)->slot, std::nullopt);
    EXPECT_TRUE(equal_constant_time((*key)->volume_key.span(), test::volume_key(32)));
  }
}

TEST_F(KeyringTest, OtherVolumeKeysAreRefused) {
  auto bytes = test::volume_key(32);
  bytes.back() ^= std::byte{1};
  keyring_.use_volume_key(SecureBuffer::copy_of(bytes));
  EXPECT_NE(outcome(make_luks2().image()).find("the volume key is not the one that its header describes"),
            std::string::npos);
  EXPECT_NE(outcome(make_luks1().image()).find("the volume key is not the one"), std::string::npos);
  keyring_.use_volume_key(SecureBuffer::copy_of(test::volume_key(33)));
  EXPECT_NE(outcome(make_luks2({.hdr_size = 32 << 10}).image()).find("has 33 bytes, which is no key size of"),
            std::string::npos);
}

TEST_F(KeyringTest, SourceIsAskedOnceAndOnlyIfNothingInFrontOfItOpens) {
  int asked = 0;
  keyring_.add_secret(secret_of("a"));
  keyring_.add_secret_source([&](const LuksHeader& header) -> Result<SecureBuffer> {
    ++asked;
    EXPECT_EQ(header.tokens, R"({"3":{"type":"clevis","keyslots":["0"]}})");
    return secret_of("b");
  });
  Luks2Volume volume = make_luks2({.slots = {{"a"}}});
  volume.json["tokens"]["3"] = {{"type", "clevis"}, {"keyslots", {"0"}}};
  EXPECT_EQ(outcome(volume.image()), "slot 0");
  EXPECT_EQ(asked, 0);
  volume = make_luks2({.slots = {{"b"}}});
  volume.json["tokens"]["3"] = {{"type", "clevis"}, {"keyslots", {"0"}}};
  EXPECT_EQ(outcome(volume.image()), "slot 0");
  EXPECT_EQ(outcome(volume.image()), "slot 0");
  EXPECT_EQ(asked, 1);
}

TEST_F(KeyringTest, NewlineOfASourceIsPointedOut) {
  keyring_.add_secret_source([](const LuksHeader&) -> Result<SecureBuffer> { return secret_of("a\n"); });
  EXPECT_NE(outcome(image_of({{"a"}})).find("; the secret ends in a newline"), std::string::npos);
}

TEST_F(KeyringTest, FailureOfASourceIsTheRefusalForAMoment) {
  int asked = 0;
  keyring_.add_secret_source([&](const LuksHeader&) -> Result<SecureBuffer> {
    if (++asked == 1) return fail(Errc::io, "the program ended with 1");
    return secret_of("a\n");
  });
  const auto image = image_of({{"a"}});
  EXPECT_NE(outcome(image).find("\": the program ended with 1"), std::string::npos);
  EXPECT_NE(outcome(image).find("\": the program ended with 1"), std::string::npos);
  EXPECT_EQ(asked, 1);
}

TEST_F(KeyringTest, KeysThatAreHeldOutlastAnyNumberOfOtherHeaders) {
  keyring_.add_secret(secret_of("a"));
  Luks2Volume volume = make_luks2({.slots = {{"a"}}, .payload_bytes = 512});
  MemoryDevice device(volume.image());
  const auto held = keyring_.unlock(*read_luks_header(device, HeaderPlace::attached), device);
  ASSERT_TRUE(held);
  for (uint64_t i = 0; i < 260; ++i) {
    volume.hdr.seqid = 100 + i;
    outcome(volume.image());
  }
  const size_t before = derivation_reports();
  EXPECT_TRUE(keyring_.unlock(*read_luks_header(device, HeaderPlace::attached), device));
  EXPECT_EQ(derivation_reports(), before);
}

TEST_F(KeyringTest, ManyClientsCostOneDerivation) {
  for (const char* secret : {"a", "wrong"}) {
    Keyring keyring;
    keyring.add_secret(secret_of(secret));
    lines.clear();
    MemoryDevice device(image_of({{"a"}}));
    std::vector<std::thread> clients;
    for (int i = 0; i < 16; ++i) {
      clients.emplace_back([&] {
        const auto header = read_luks_header(device, HeaderPlace::attached);
        EXPECT_EQ(bool{keyring.unlock(*header, device)}, std::string(secret) == "a");
      });
    }
    for (std::thread& client : clients) client.join();
    EXPECT_EQ(derivation_reports(), 1U);
  }
}

TEST_F(KeyringTest, ChangedKeyMaterialIsAnotherVolume) {
  keyring_.add_secret(secret_of("a"));
  auto image = image_of({{"a"}});
  EXPECT_EQ(outcome(image), "slot 0");
  EXPECT_EQ(outcome(image), "slot 0");
  EXPECT_EQ(derivation_reports(), 1U);
  image[32768] ^= std::byte{1};
  EXPECT_NE(outcome(image).find("no key slot opens"), std::string::npos);
  EXPECT_EQ(derivation_reports(), 2U);
}

TEST_F(KeyringTest, OldestIsForgotten) {
  keyring_.add_secret(secret_of("a"));
  Luks2Volume volume = make_luks2({.slots = {{"a"}}, .payload_bytes = 512});
  const auto first = volume.image();
  EXPECT_EQ(outcome(first), "slot 0");
  for (uint64_t i = 0; i < 255; ++i) {
    volume.hdr.seqid = 100 + i;
    outcome(volume.image());
  }
  EXPECT_EQ(derivation_reports(), 256U);
  outcome(first);
  EXPECT_EQ(derivation_reports(), 256U);
  volume.hdr.seqid = 99;
  outcome(volume.image());
  outcome(first);
  EXPECT_EQ(derivation_reports(), 258U);
}

TEST_F(KeyringTest, KeyMaterialLiesInsideOfTheDevice) {
  keyring_.add_secret(secret_of("secret"));
  const auto volume = make_luks1();
  MemoryDevice device(volume.image());
  const auto header = read_luks_header(device, HeaderPlace::attached);
  ASSERT_TRUE(header);
  const uint64_t end = volume.phdr.keyslots[0].key_material_offset * uint64_t{sector_bytes} + size_t{32} * af_stripes;
  const auto outcome_with = [&](uint64_t bytes) {
    auto image = volume.image();
    image.resize(bytes);
    MemoryDevice shorter(std::move(image));
    const auto key = keyring_.unlock(*header, shorter);
    return key ? "opened" : key.error().what;
  };
  EXPECT_EQ(outcome_with(end), "opened");
  EXPECT_EQ(outcome_with(end - 1),
            "key material of key slot 0: 128000 bytes at offset 4096 go past the end, which is at 132095: is the file "
            "cut short?");
}

TEST_F(KeyringTest, FailingStorageIsNotRemembered) {
  keyring_.add_secret(secret_of("a"));
  MemoryDevice device(image_of({{"b"}, {"a"}}));
  const auto header = read_luks_header(device, HeaderPlace::attached);
  ASSERT_TRUE(header);
  for (const size_t nth : {1U, 2U}) {
    device.calls.clear();
    device.fail_call = nth;
    const auto key = keyring_.unlock(*header, device);
    ASSERT_FALSE(key);
    EXPECT_EQ(key.error().code, Errc::io);
  }
  device.fail_call.reset();
  EXPECT_TRUE(keyring_.unlock(*header, device));
}

TEST_F(KeyringTest, ShrunkenDeviceIsRefused) {
  keyring_.add_secret(secret_of("a"));
  MemoryDevice device(image_of({{"a"}}));
  const auto header = read_luks_header(device, HeaderPlace::attached);
  ASSERT_TRUE(header);
  device.bytes.resize(65536);
  const auto key = keyring_.unlock(*header, device);
  ASSERT_FALSE(key);
  EXPECT_EQ(key.error().code, Errc::out_of_bounds);
}

TEST_F(KeyringTest, EssivHashThatMakesNoKeyIsNamed) {
  keyring_.add_secret(secret_of("a"));
  Luks2Volume volume = make_luks2({.slots = {{"a"}}});
  volume.slot()["area"]["encryption"] = "aes-cbc-essiv:sha512";
  EXPECT_NE(outcome(volume.image()).find("; key slot 0: "), std::string::npos);
}

/* Costs */

class KdfCost : public KeyringTest {
 protected:
  void SetUp() override {
    KeyringTest::SetUp();
    keyring_.add_secret(secret_of("a"));
    volume_ = make_luks2({.slots = {{"a"}, {"b", true}}});
  }

  /* The refusal, which must come before any work is done. */
  std::string refusal() {
    const auto start = std::chrono::steady_clock::now();
    MemoryDevice device(volume_.image());
    const auto key = unlock(device);
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));
    EXPECT_FALSE(key);
    if (key) return "opened";
    EXPECT_EQ(key.error().code, Errc::unsupported);
    return key.error().what;
  }

  Luks2Volume volume_;
};

TEST_F(KdfCost, Pbkdf2Iterations) {
  volume_.slot()["kdf"]["iterations"] = UINT32_MAX;
  const std::string what = refusal();
  EXPECT_NE(what.find("key slot 0: pbkdf2-sha256, 4294967295 iterations), the limit is 60 s"), std::string::npos)
      << what;
}

TEST_F(KdfCost, DigestIterations) {
  volume_.digest()["iterations"] = UINT32_MAX;
  EXPECT_NE(refusal().find("the limit is 60 s: raise qluks-kdf-time"), std::string::npos);
}

TEST_F(KdfCost, DigestIterationsForAVolumeKey) {
  volume_.digest()["iterations"] = UINT32_MAX;
  keyring_.use_volume_key(SecureBuffer::copy_of(test::volume_key(32)));
  EXPECT_NE(refusal().find("checking the volume key may take"), std::string::npos);
}

TEST_F(KdfCost, Luks1Iterations) {
  test::Luks1Volume volume = make_luks1();
  volume.phdr.keyslots[0].iterations = UINT32_MAX;
  EXPECT_NE(outcome(volume.image()).find("the limit is 60 s"), std::string::npos);
  volume = make_luks1();
  volume.phdr.digest_iterations = UINT32_MAX;
  EXPECT_NE(outcome(volume.image()).find("the limit is 60 s"), std::string::npos);
}

TEST_F(KdfCost, Argon2Memory) {
  volume_.json["keyslots"]["1"]["kdf"]["memory"] = 2097153;
  const std::string what = refusal();
  EXPECT_NE(what.find("key slot 1: its key derivation takes 2097153 KiB of memory, the limit is 2097152 KiB"),
            std::string::npos)
      << what;
}

TEST_F(KdfCost, Argon2Time) {
  volume_.json["keyslots"]["1"]["kdf"]["time"] = UINT32_MAX;
  EXPECT_NE(refusal().find("argon2id, time 4294967295, memory 32 KiB, 2 cpus), the limit is 60 s"), std::string::npos);
}

/* Little memory, many lanes: five million threads, which take longer than the filling that a fast CPU does in 5 s. */
TEST_F(KdfCost, Argon2Threads) {
  auto& kdf = volume_.json["keyslots"]["1"]["kdf"];
  kdf["time"] = 2500;
  kdf["memory"] = 4096;
  kdf["cpus"] = 512;
  keyring_.set_kdf_limits({.seconds = 6});
  const std::string what = refusal();
  EXPECT_NE(what.find("argon2id, time 2500, memory 4096 KiB, 512 cpus), the limit is 6 s"), std::string::npos) << what;
}

TEST_F(KdfCost, NamedSlotIsTheOnlyOneThatCounts) {
  volume_.json["keyslots"]["1"]["kdf"]["time"] = UINT32_MAX;
  keyring_.use_only_slot(0);
  EXPECT_EQ(outcome(volume_.image()), "slot 0");
}

/* About a millisecond for one secret, more than ten seconds for all. */
TEST_F(KdfCost, IsSummedOverSlotsAndSecrets) {
  volume_.slot()["kdf"]["iterations"] = 1000;
  keyring_.set_kdf_limits({.seconds = 1});
  EXPECT_NE(outcome(volume_.image()).find("no key slot opens"), std::string::npos);
  Keyring many;
  many.set_kdf_limits({.seconds = 1});
  for (int i = 0; i < 100000; ++i) many.add_secret(SecureBuffer());
  MemoryDevice device(volume_.image());
  const auto key = many.unlock(*read_luks_header(device, HeaderPlace::attached), device);
  ASSERT_FALSE(key);
  EXPECT_NE(key.error().what.find("100000 secrets on 2 key slots"), std::string::npos) << key.error().what;
}

TEST_F(KdfCost, LimitsCanBeSet) {
  volume_ = make_luks2({.slots = {{"a", true}}});
  keyring_.set_kdf_limits({.memory_bytes = 31 << 10});
  EXPECT_NE(refusal().find("takes 32 KiB of memory, the limit is 31 KiB"), std::string::npos);
  keyring_.set_kdf_limits({.memory_bytes = 32 << 10});
  EXPECT_EQ(outcome(volume_.image()), "slot 0");
}

} // namespace
} // namespace qluks
