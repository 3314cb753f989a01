/* SPDX-License-Identifier: BSD-3-Clause */
/* Every cipher, mode and IV against runs that other programs have made. */
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <set>

#include "crypto/adiantum.hpp"
#include "crypto/block_key.hpp"
#include "crypto/lrw_tweak.hpp"
#include "crypto/sector_cipher.hpp"
#include "tests/support/guarded.hpp"
#include "tests/support/patterns.hpp"
#include "tests/support/vectors.hpp"

namespace qluks {
namespace {

using Bytes = std::vector<std::byte>;
using CipherPtr = std::shared_ptr<const SectorCipher>;

using test::key_pattern;
using test::pattern;

CipherPtr make_cipher(std::string_view name, size_t key_bytes, size_t sector_size) {
  const auto spec = parse_cipher_spec(name);
  EXPECT_TRUE(spec) << name;
  const auto cipher = make_sector_cipher(*spec, key_pattern(key_bytes), sector_size);
  EXPECT_TRUE(cipher) << name;
  return *cipher;
}

/* From odd addresses to odd ones, and in place. */
void expect_both_ways(const SectorCipher& cipher, SectorNumber first, const Bytes& plain, const Bytes& encrypted) {
  Bytes in(plain.size() + 1);
  Bytes out(plain.size() + 3);
  const std::span<std::byte> from = std::span(in).subspan(1);
  const std::span<std::byte> to = std::span(out).subspan(3);
  std::copy(encrypted.begin(), encrypted.end(), from.begin());
  cipher.decrypt(first, from, to);
  EXPECT_TRUE(std::equal(plain.begin(), plain.end(), to.begin())) << "decrypt, out of place";
  cipher.encrypt(first, to, to);
  EXPECT_TRUE(std::equal(encrypted.begin(), encrypted.end(), to.begin())) << "encrypt, in place";
  cipher.decrypt(first, to, to);
  EXPECT_TRUE(std::equal(plain.begin(), plain.end(), to.begin())) << "decrypt, in place";
}

TEST(Modes, EqualRunsByOpensslAndLibgcrypt) {
  std::set<std::string> names;
  test::for_each_vector("modes.vec", [&](test::Vector& v) {
    const std::string name = v.text("Cipher");
    const size_t key_bytes = v.number("KeyBytes");
    const CipherPtr cipher = make_cipher(name, key_bytes, v.number("SectorSize"));
    const SectorNumber first{v.number("Sector")};
    const Bytes plain = pattern(v.number("Count") * cipher->sector_size());
    Bytes encrypted(plain.size());
    cipher->encrypt(first, plain, encrypted);
    const SecureBuffer digest = hash_of(*find_hash("sha256"), encrypted);
    const Bytes expected = v.bytes("Sha256");
    EXPECT_TRUE(std::equal(expected.begin(), expected.end(), digest.data())) << name << ", " << key_bytes << " bytes";
    expect_both_ways(*cipher, first, plain, encrypted);
    names.insert(name);
  });
  EXPECT_EQ(names.size(), 318U);
}

/* With benbi, dm-crypt counts `times` as many things in a sector as cryptsetup does. */
void expect_key_slot_counts_fewer(const char* name, uint64_t times) {
  auto spec = parse_cipher_spec(name);
  ASSERT_TRUE(spec);
  const auto payload = *make_sector_cipher(*spec, key_pattern(32), 512);
  spec->use = CipherUse::key_slot;
  const auto key_slot = *make_sector_cipher(*spec, key_pattern(32), 512);
  Bytes by_dm_crypt = pattern(512);
  Bytes by_cryptsetup = by_dm_crypt;
  payload->encrypt({5}, by_dm_crypt, by_dm_crypt);
  key_slot->encrypt({times * 5}, by_cryptsetup, by_cryptsetup);
  EXPECT_EQ(by_dm_crypt, by_cryptsetup);
}

/* Blocks of 16 bytes. */
TEST(Modes, KeySlotsCountBlocksWhereDmCryptCountsBytes) { expect_key_slot_counts_fewer("aes-ctr-benbi", 16); }

/* The IV of Adiantum has 32 bytes, that of AES alone 16. */
TEST(Modes, KeySlotsUnderAdiantumBenbiCountWhatIsAsLongAsTheIv) {
  expect_key_slot_counts_fewer("xchacha12,aes-adiantum-benbi", 2);
}

TEST(Modes, KeySlotsUnderEboivNeedOneLegalKey) {
  for (const auto& [name, longest] : {std::pair("aes-xts-eboiv", 64), std::pair("aes-lrw-eboiv", 48)}) {
    auto spec = parse_cipher_spec(name);
    ASSERT_TRUE(spec);
    EXPECT_TRUE(make_sector_cipher(*spec, key_pattern(longest), 512)) << name;
    spec->use = CipherUse::key_slot;
    EXPECT_TRUE(make_sector_cipher(*spec, key_pattern(32), 512)) << name;
    EXPECT_FALSE(make_sector_cipher(*spec, key_pattern(longest), 512)) << name;
  }
}

/* One block under a published key: the ciphers that the runs above had from one library only. */
TEST(Modes, EqualPublishedBlocks) {
  test::for_each_vector("blocks.vec", [](test::Vector& v) {
    const auto spec = parse_cipher_spec(v.text("Cipher") + "-ecb");
    ASSERT_TRUE(spec);
    const BlockKey key(spec->cipher, v.bytes("Key"));
    Bytes block = v.bytes("PlainText");
    EXPECT_EQ(key.block_bytes(), block.size());
    key.encrypt_block(reinterpret_cast<uint8_t*>(block.data()));
    EXPECT_EQ(block, v.bytes("CipherText"));
  });
}

TEST(Lrw, EqualsTheVectorsOfTheStandard) {
  test::for_each_vector("lrw.vec", [](test::Vector& v) {
    const Bytes whole_key = v.bytes("Key");
    const auto [key, tweak_key] = std::pair(std::span(whole_key).first(whole_key.size() - LrwTweak::key_bytes),
                                            std::span(whole_key).last(LrwTweak::key_bytes));
    const BlockKey block_key(BlockCipher::aes, key);
    const LrwTweak tweak(tweak_key);
    Bytes number_bytes = v.bytes("Number");
    auto* number = reinterpret_cast<uint8_t*>(number_bytes.data());
    Bytes text = v.bytes("PlainText");
    uint8_t t[16];
    tweak.make(number, t);
    for (size_t at = 0; at < text.size(); at += 16) {
      auto* block = reinterpret_cast<uint8_t*>(text.data()) + at;
      std::transform(t, t + 16, block, block, std::bit_xor<>());
      block_key.encrypt_block(block);
      std::transform(t, t + 16, block, block, std::bit_xor<>());
      tweak.advance(number, t);
    }
    EXPECT_EQ(text, v.bytes("CipherText"));
  });
}

TEST(Adiantum, EqualsItsAuthorsVectors) {
  test::for_each_vector("adiantum.vec", [](test::Vector& v) {
    const XChaCha xchacha{.rounds = static_cast<unsigned>(v.number("Rounds"))};
    const Adiantum adiantum(xchacha, v.bytes("Key"));
    const Bytes tweak_bytes = v.bytes("Tweak");
    Adiantum::Tweak tweak;
    std::copy(tweak_bytes.begin(), tweak_bytes.end(), tweak.begin());
    const Bytes plain = v.bytes("PlainText");
    const Bytes encrypted = v.bytes("CipherText");
    Bytes text(plain.size());
    adiantum.encrypt(tweak, plain, text);
    EXPECT_EQ(text, encrypted);
    adiantum.decrypt(tweak, text, text);
    EXPECT_EQ(text, plain);
  });
}

constexpr std::string_view one_of_each[] = {"twofish-pcbc-plain64",
                                            "aes-cfb-plain",
                                            "camellia-ofb-null",
                                            "aes-xctr-benbi",
                                            "twofish-lrw-benbi",
                                            "serpent-xts-essiv:sha256",
                                            "twofish-cbc-eboiv",
                                            "serpent-xts-eboiv",
                                            "camellia-ctr-plain64",
                                            "aes-ecb",
                                            "aes-cbc-benbi",
                                            "xchacha20,aes-adiantum-plain64",
                                            "xchacha12,aes-adiantum-benbi"};

TEST(Modes, SectorsAreIndependentOfTheRunTheyAreIn) {
  for (const std::string_view name : one_of_each) {
    const CipherPtr cipher = make_cipher(name, name.find("xts") != name.npos ? 64 : 32, 1024);
    Bytes whole = pattern(5 * 1024);
    Bytes single = whole;
    cipher->encrypt({6}, whole, whole);
    for (size_t i = 0; i < 5; ++i) {
      const std::span<std::byte> sector = std::span(single).subspan(i * 1024, 1024);
      cipher->encrypt({6 + 2 * i}, sector, sector);
    }
    EXPECT_EQ(whole, single) << name;
    cipher->decrypt({0}, {}, {});
  }
}

TEST(Modes, TouchNothingOutsideOfTheRun) {
  test::Guarded in(8 * 512);
  test::Guarded out(8 * 512);
  for (const std::string_view name : one_of_each) {
    const CipherPtr cipher = make_cipher(name, name.find("xts") != name.npos ? 64 : 32, 512);
    for (const size_t size : {size_t{512}, size_t{3 * 512}}) {
      cipher->encrypt({1}, in.at_start(size), out.at_start(size));
      cipher->decrypt({1}, in.at_end(size), out.at_end(size));
      cipher->encrypt({1}, in.at_end(size), in.at_end(size));
      cipher->decrypt({1}, in.at_start(size), in.at_start(size));
    }
  }
}

TEST(Modes, AesKeepsItsKernelWhereThatTakesTheIv) {
  const std::string_view kernel = make_cipher("aes-xts-plain64", 64, 512)->engine();
  EXPECT_EQ(make_cipher("aes-cbc-null", 32, 512)->engine(), kernel);
  EXPECT_EQ(make_cipher("aes-xts-null", 64, 512)->engine(), kernel);
  EXPECT_EQ(make_cipher("aes-cbc-essiv:md5", 32, 512)->engine(), kernel);
  EXPECT_EQ(make_cipher("aes-cbc-benbi", 32, 512)->engine(), "nettle");
  EXPECT_EQ(make_cipher("serpent-xts-plain64", 64, 512)->engine(), "nettle");
}

} // namespace
} // namespace qluks
