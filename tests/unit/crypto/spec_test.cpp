/* SPDX-License-Identifier: BSD-3-Clause */
/* Names and limits: what is accepted, and what is refused in which words. */
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <new>

#include "config.h"
#include "crypto/cipher_spec.hpp"
#include "crypto/sector_cipher.hpp"
#include "tests/support/vectors.hpp"

namespace qluks {
namespace {

TEST(CipherSpec, NamesOfDmCryptAreKnown) {
  for (const std::string_view name : {"aes-xts-plain",
                                      "aes-xts-plain64",
                                      "aes-xts-plain64be",
                                      "aes-xts-essiv:sha256",
                                      "aes-cbc-plain",
                                      "aes-cbc-plain64",
                                      "aes-cbc-plain64be",
                                      "aes-cbc-essiv:sha256",
                                      "aes-cbc-essiv:md5",
                                      "aes-xts-null",
                                      "aes-xts-benbi",
                                      "aes-cbc-eboiv",
                                      "aes-xts-eboiv",
                                      "aes-ctr-benbi",
                                      "aes-ecb",
                                      "aes-ctr-plain64",
                                      "serpent-xts-plain64",
                                      "serpent-cbc-benbi",
                                      "twofish-cbc-essiv:sha256",
                                      "twofish-ecb",
                                      "camellia-ctr-essiv:sha256",
                                      "cast5-cbc-plain",
                                      "blowfish-cbc-essiv:sha256",
                                      "aes-pcbc-eboiv",
                                      "aes-xctr-plain64",
                                      "cast5-cfb-null",
                                      "serpent-ofb-benbi",
                                      "aes-lrw-benbi",
                                      "camellia-lrw-eboiv",
                                      "xchacha20,aes-adiantum-null",
                                      "xchacha20,aes-adiantum-benbi",
                                      "xchacha12,aes-adiantum-plain64",
                                      "des3_ede-cbc-plain64",
                                      "cast5-ctr-null",
                                      "xchacha20,aes-adiantum-plain64",
                                      "xchacha20,aes-adiantum-plain",
                                      "cast5-ecb"}) {
    const auto spec = parse_cipher_spec(name);
    ASSERT_TRUE(spec) << name;
    EXPECT_EQ(spec->name(), name);
  }
}

TEST(CipherSpec, ShortFormsOfDmCryptMeanCbcPlain) {
  for (const std::string_view name : {"aes", "aes-plain", "aes-cbc-plain"}) {
    const auto spec = parse_cipher_spec(name);
    ASSERT_TRUE(spec) << name;
    EXPECT_EQ(spec->name(), "aes-cbc-plain");
  }
}

TEST(CipherSpec, NamesOfTheKernelsCryptoApiAreKnownForPayloads) {
  constexpr std::pair<std::string_view, std::string_view> cases[] = {
      {"capi:xts(aes)-plain64", "aes-xts-plain64"},
      {"capi:cbc(serpent)-essiv:sha256", "serpent-cbc-essiv:sha256"},
      {"capi:essiv(cbc(aes),sha256)-plain64", "aes-cbc-essiv:sha256"},
      {"capi:adiantum(xchacha20,aes)-plain64", "xchacha20,aes-adiantum-plain64"},
      {"capi:adiantum(xchacha12,aes)-benbi", "xchacha12,aes-adiantum-benbi"},
      {"capi:ctr(twofish)-benbi", "twofish-ctr-benbi"},
      {"capi:lrw(aes)-benbi", "aes-lrw-benbi"},
      {"capi:ecb(aes)-null", "aes-ecb"},
      {"capi:ecb(blowfish)-plain64", "blowfish-ecb"},
      {"capi:ecb(aes)-plain65", "aes-ecb"},
  };
  for (const auto& [capi, name] : cases) {
    const auto spec = parse_cipher_spec(capi);
    ASSERT_TRUE(spec) << capi << ": " << spec.error().what;
    EXPECT_EQ(spec->name(), name);
    EXPECT_FALSE(parse_cipher_spec(capi, CipherUse::key_slot)) << capi;
  }
}

TEST(CipherSpec, RefusalNamesTheUnknownPart) {
  struct Case {
    std::string_view text, part;
  };
  const Case cases[] = {
      {"", "cipher \"\""},
      {"aes-", "mode \"\""},
      {"aes-plain64", "mode \"plain64\""},
      {"aes-xts", "iv \"\""},
      {"AES-xts-plain64", "cipher \"AES\""},
      {"cast6-cbc-plain64", "cipher \"cast6\""},
      {"blowfish-xts-plain64", "mode \"xts\""},
      {"des3_ede-xts-plain64", "mode \"xts\""},
      {"cipher_null-ecb", "null cipher"},
      {"null-xts-plain64", "null cipher"},
      {"capi:", "format \"capi:\""},
      {"capi:aes", "format \"capi:\""},
      {"capi:)", "format \"capi:\""},
      {"capi:(", "format \"capi:\""},
      {"capi:xts(aes)", "format \"capi:\""},
      {"capi:xts(aes)plain64", "format \"capi:\""},
      {"capi:xts(aes-plain64", "format \"capi:\""},
      {"capi:essiv(cbc(aes),sha256)-plain", "format \"capi:\""},
      {"capi:essiv(cbc(aes)sha256)-plain64", "format \"capi:\""},
      {"capi:essiv()-plain64", "format \"capi:\""},
      {"capi:essiv(,)-plain64", "format \"capi:\""},
      {"capi:()-", "cipher \"\""},
      {"capi:xts(ecb(aes))-plain64", "cipher \"ecb(aes)\""},
      {"capi:xts(aes-generic)-plain64", "mode \"generic\""},
      {"capi:hctr2(aes)-plain64", "mode \"hctr2\""},
      {"capi:ecb(cipher_null)-null", "null cipher"},
      {"capi:capi:xts(aes)-plain64", "mode \"capi:xts\""},
      {"blowfish-lrw-benbi", "mode \"lrw\""},
      {"aes-hctr2-plain64", "mode \"hctr2\""},
      {"cast5-xctr-plain64", "mode \"xctr\""},
      {"aes-ofb-eboiv", "iv \"eboiv\""},
      {"xchacha20,aes-adiantum-eboiv", "iv \"eboiv\""},
      {"xchacha12,aes-adiantum-essiv:sha256", "iv \"essiv\""},
      {"aes-gcm-random", "mode \"gcm\""},
      {"aes-adiantum-plain64", "mode \"adiantum\""},
      {"xchacha20,aes-xts-plain64", "mode \"xts\""},
      {"xchacha20,aes-ecb", "mode \"ecb\""},
      {"xchacha20,aes", "mode \"cbc\""},
      {"xchacha20,aes-adiantum-essiv:sha256", "iv \"essiv\""},
      {"xchacha8,aes-adiantum-plain64", "cipher \"xchacha8,aes\""},
      {"xchacha12,aes-xts-plain64", "mode \"xts\""},
      {"cast5-xts-plain64", "mode \"xts\""},
      {"aes-ctr-eboiv", "iv \"eboiv\""},
      {"aes-cbc-lmk", "iv \"lmk\""},
      {"aes-cbc-tcw", "iv \"tcw\""},
      {"aes-cbc-elephant", "iv \"elephant\""},
      {"aes-cbc-null:sha256", "iv option \"sha256\""},
      {"aes-xts-plain64 ", "iv \"plain64 \""},
      {"aes-xts-random", "iv \"random\""},
      {"aes-xts-plain64:sha256", "iv option \"sha256\""},
      {"aes-xts-plain64:", "iv option \"\""},
      {"aes:64-cbc-lmk", "cipher \"aes:64\""},
      {"aes-cbc-essiv", "essiv hash \"\""},
      {"aes-cbc-essiv:", "essiv hash \"\""},
      {"aes-cbc-essiv:md4", "essiv hash \"md4\""},
      {"aes-cbc-essiv:sha256:x", "essiv hash \"sha256:x\""},
      {"aes-xts-plain64-", "iv \"plain64-\""},
  };
  for (const Case& c : cases) {
    const auto spec = parse_cipher_spec(c.text);
    ASSERT_FALSE(spec) << c.text;
    EXPECT_EQ(spec.error().code, Errc::unsupported);
    EXPECT_NE(spec.error().what.find(c.part), std::string::npos) << spec.error().what;
  }
}

TEST(CipherSpec, ErrorHoldsNoControlCharacterOfAHeader) {
  const auto spec = parse_cipher_spec(std::string("a\n\x1b\0es-xts-plain64", 17) + std::string(1000, 'x'));
  ASSERT_FALSE(spec);
  EXPECT_LT(spec.error().what.size(), 400U);
  for (const char c : spec.error().what) EXPECT_FALSE(c >= 0 && c < ' ');
}

TEST(CipherSpec, ServedCiphersAreAllModesThatEachHas) {
  EXPECT_TRUE(
      served_ciphers().starts_with("aes-xts aes-cbc aes-ecb aes-ctr aes-xctr aes-pcbc aes-cfb aes-ofb aes-lrw "));
  EXPECT_TRUE(served_ciphers().ends_with(
      " des3_ede-cbc des3_ede-ecb des3_ede-ctr des3_ede-pcbc des3_ede-cfb des3_ede-ofb xchacha20,aes-adiantum "
      "xchacha12,aes-adiantum"));
}

TEST(CipherSpec, KeyOfXtsIsTwoKeys) {
  const auto xts = parse_cipher_spec("aes-xts-plain64");
  const auto cbc = parse_cipher_spec("aes-cbc-plain64");
  for (size_t bytes = 0; bytes <= 130; ++bytes) {
    EXPECT_EQ(xts->accepts_key_bytes(bytes), bytes == 32 || bytes == 48 || bytes == 64) << bytes;
    EXPECT_EQ(cbc->accepts_key_bytes(bytes), bytes == 16 || bytes == 24 || bytes == 32) << bytes;
  }
}

TEST(CipherSpec, KeyOfLrwEndsWithABlock) {
  const auto lrw = parse_cipher_spec("serpent-lrw-benbi");
  for (size_t bytes = 0; bytes <= 130; ++bytes) {
    EXPECT_EQ(lrw->accepts_key_bytes(bytes), bytes == 32 || bytes == 40 || bytes == 48) << bytes;
  }
}

TEST(CipherSpec, KeyLengthsAreThoseOfTheCipher) {
  for (const std::string_view cipher : {"aes", "serpent", "twofish", "camellia"}) {
    const auto ecb = parse_cipher_spec(std::string(cipher) + "-ecb");
    for (size_t bytes = 0; bytes <= 65; ++bytes) {
      EXPECT_EQ(ecb->accepts_key_bytes(bytes), bytes == 16 || bytes == 24 || bytes == 32) << cipher << " " << bytes;
    }
  }
  for (size_t bytes = 0; bytes <= 65; ++bytes) {
    EXPECT_EQ(parse_cipher_spec("xchacha20,aes-adiantum-plain64")->accepts_key_bytes(bytes), bytes == 32) << bytes;
    EXPECT_EQ(parse_cipher_spec("xchacha12,aes-adiantum-plain64")->accepts_key_bytes(bytes), bytes == 32) << bytes;
    EXPECT_EQ(parse_cipher_spec("cast5-ecb")->accepts_key_bytes(bytes), bytes >= 5 && bytes <= 16) << bytes;
    EXPECT_EQ(parse_cipher_spec("blowfish-ecb")->accepts_key_bytes(bytes), bytes >= 4 && bytes <= 56) << bytes;
    EXPECT_EQ(parse_cipher_spec("des3_ede-ecb")->accepts_key_bytes(bytes), bytes == 24) << bytes;
  }
}

Errc refusal(std::string_view name, size_t key_bytes, size_t sector_size) {
  const auto spec = parse_cipher_spec(name);
  const auto cipher = make_sector_cipher(*spec, std::vector<std::byte>(key_bytes), sector_size);
  EXPECT_FALSE(cipher) << name;
  return cipher ? Errc::io : cipher.error().code;
}

TEST(SectorCipher, RefusesWhatTheCipherDoesNotTake) {
  EXPECT_EQ(refusal("aes-xts-plain64", 16, 512), Errc::unsupported);
  EXPECT_EQ(refusal("aes-xts-plain64", 63, 512), Errc::unsupported);
  EXPECT_EQ(refusal("aes-cbc-plain64", 64, 512), Errc::unsupported);
  EXPECT_EQ(refusal("aes-xts-plain64", 64, 0), Errc::unsupported);
  EXPECT_EQ(refusal("aes-xts-plain64", 64, 256), Errc::unsupported);
  EXPECT_EQ(refusal("aes-xts-plain64", 64, 1536), Errc::unsupported);
  EXPECT_EQ(refusal("aes-xts-plain64", 64, 8192), Errc::unsupported);
  EXPECT_EQ(refusal("aes-cbc-essiv:sha512", 32, 512), Errc::unsupported);
  EXPECT_EQ(refusal("aes-cbc-essiv:sha1", 32, 512), Errc::unsupported);
  EXPECT_EQ(refusal("serpent-cbc-essiv:sha512", 32, 512), Errc::unsupported);
  EXPECT_EQ(refusal("cast5-cbc-essiv:sha256", 16, 512), Errc::unsupported);
  EXPECT_EQ(refusal("cast5-cbc-plain64", 32, 512), Errc::unsupported);
  EXPECT_EQ(refusal("twofish-xts-plain64", 64, 256), Errc::unsupported);
}

TEST(Hash, EqualsPublishedDigests) {
  test::for_each_vector("hash.vec", [](test::Vector& v) {
    const std::string name = v.text("Hash");
    const HashAlgorithm* algorithm = find_hash(name);
    const std::vector<std::byte> message = v.bytes("Message");
    const std::vector<std::byte> expected = v.bytes("Digest");
    if (algorithm == nullptr) {
      EXPECT_TRUE(test::is_optional_hash(name)) << name;
      return;
    }
    EXPECT_EQ(algorithm->digest_bytes(), expected.size());
    Hash hash(*algorithm);
    for (int i = 0; i < 2; ++i) { /* a digest starts anew */
      for (const std::byte& b : message) hash.update({&b, 1});
      std::vector<std::byte> digest(expected.size());
      hash.digest(digest);
      EXPECT_EQ(digest, expected);
    }
  });
}

TEST(Hash, OptionalOnesAreThereIfTheBuildHasThem) {
#ifdef HAVE_LIBGCRYPT_HASHES
  for (const std::string_view name : {"whirlpool", "blake2b-512", "blake2s-256"}) EXPECT_TRUE(find_hash(name)) << name;
#else
  for (const std::string_view name : {"whirlpool", "blake2b-512", "blake2s-256"}) EXPECT_FALSE(find_hash(name)) << name;
#endif
}

TEST(Hash, NoneIsShorterThanTheDigestOfAHeader) {
  constexpr size_t luks1_digest_bytes = 20;
  for (const HashAlgorithm& algorithm : hash_algorithms()) {
    EXPECT_GE(algorithm.digest_bytes(), luks1_digest_bytes) << algorithm.name;
    EXPECT_LE(algorithm.digest_bytes(), digest_bytes_max) << algorithm.name;
  }
}

TEST(Hash, EveryNameIsFoundInAnyCase) {
  for (const HashAlgorithm& algorithm : hash_algorithms()) EXPECT_EQ(find_hash(algorithm.name), &algorithm);
  EXPECT_EQ(find_hash("SHA256"), find_hash("sha256"));
  EXPECT_EQ(find_hash("sha"), nullptr);
  EXPECT_EQ(find_hash("sha256 "), nullptr);
  EXPECT_EQ(find_hash(""), nullptr);
  EXPECT_EQ(find_hash("md5"), nullptr);
  EXPECT_EQ(find_essiv_hash("sha256"), find_hash("sha256"));
  EXPECT_EQ(find_essiv_hash("MD5")->digest_bytes(), 16U);
}

TEST(Hash, DigestIsCutToTheRoomThereIs) {
  Hash hash(*find_hash("sha256"));
  std::array<std::byte, 40> out;
  out.fill(std::byte{0x5a});
  hash.digest(std::span(out).first(4));
  EXPECT_EQ(out[0], std::byte{0xe3});
  EXPECT_EQ(out[4], std::byte{0x5a});
  hash.digest(out);
  EXPECT_EQ(out[32], std::byte{0x5a});
}

TEST(Hash, StateIsWipedWhenItGoes) {
  alignas(Hash) std::byte memory[sizeof(Hash)];
  auto* hash = new (memory) Hash(*find_hash("sha256"));
  hash->update(std::as_bytes(std::span("a secret that must not stay in memory")));
  hash->~Hash();
  const std::span<const std::byte> state = std::span(memory).last(hash_state_bytes_max);
  EXPECT_TRUE(std::all_of(state.begin(), state.end(), [](std::byte b) { return b == std::byte{0}; }));
}

} // namespace
} // namespace qluks
