/* SPDX-License-Identifier: BSD-3-Clause */
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <fstream>

#include "base/shutdown.hpp"
#include "crypto/kdf/blake2b.hpp"
#include "crypto/kdf/pbkdf.hpp"
#include "tests/support/vectors.hpp"

namespace qluks {
namespace {

using test::for_each_vector;
using test::Vector;

std::vector<std::byte> derive(const CpuFeatures& cpu, std::string_view hash, uint32_t iterations, size_t size) {
  const std::array<std::byte, 16> salt{};
  std::vector<std::byte> key(size);
  EXPECT_TRUE(pbkdf2(cpu, *find_hash(hash), std::as_bytes(std::span("secret")), salt, iterations, key));
  return key;
}

void expect_vectors(const CpuFeatures& cpu) {
  for_each_vector("pbkdf2.vec", [&](Vector& v) {
    const std::string name = v.text("Hash");
    const HashAlgorithm* hash = find_hash(name);
    const std::vector<std::byte> secret = v.bytes("Secret");
    const std::vector<std::byte> salt = v.bytes("Salt");
    const std::vector<std::byte> expected = v.bytes("Output");
    std::vector<std::byte> out(expected.size());
    const auto iterations = static_cast<uint32_t>(v.number("Iterations"));
    if (hash == nullptr) {
      EXPECT_TRUE(test::is_optional_hash(name)) << name;
      return;
    }
    ASSERT_TRUE(pbkdf2(cpu, *hash, secret, salt, iterations, out));
    EXPECT_EQ(out, expected);
  });
}

TEST(Pbkdf2, EqualsPublishedVectorsOnAnyCpu) { expect_vectors(CpuFeatures{}); }

TEST(Pbkdf2, EqualsPublishedVectorsBySha) {
  if (!this_cpu().sha) GTEST_SKIP() << "this CPU has no SHA instructions";
  expect_vectors(this_cpu());
}

TEST(Pbkdf2, ShaInstructionsGiveTheSameForEveryLength) {
  if (!this_cpu().sha) GTEST_SKIP() << "this CPU has no SHA instructions";
  for (const std::string_view hash : {"sha1", "sha256"}) {
    for (const size_t size :
         std::initializer_list<size_t>{1, 19, 20, 21, 31, 32, 33, 40, 41, 60, 63, 64, 65, 80, 95, 96, 97, 128, 200}) {
      for (const uint32_t iterations : std::initializer_list<uint32_t>{1, 2, 3, 100}) {
        EXPECT_EQ(derive(this_cpu(), hash, iterations, size), derive({}, hash, iterations, size))
            << hash << ", " << size << " bytes, " << iterations << " iterations";
      }
    }
  }
}

TEST(Pbkdf2, ShaInstructionsGiveTheSameWhenTheyStopOnTheWay) {
  if (!this_cpu().sha) GTEST_SKIP() << "this CPU has no SHA instructions";
  for (const std::string_view hash : {"sha1", "sha256"}) {
    for (const uint32_t iterations : {8192U, 8193U, 8194U, 30000U}) {
      EXPECT_EQ(derive(this_cpu(), hash, iterations, 64), derive({}, hash, iterations, 64)) << hash << iterations;
    }
  }
}

/* As if the process had to end, from now on or after some more questions. */
class ShutdownAfter {
 public:
  explicit ShutdownAfter(int questions) {
    left = questions;
    set_shutdown_check(check);
  }
  ~ShutdownAfter() { set_shutdown_check(nullptr); }

 private:
  static bool check() noexcept { return left-- <= 0; }
  static inline std::atomic<int> left;
};

TEST(Pbkdf2, GivesUpWhenTheProcessHasToEnd) {
  const ShutdownAfter shutdown(3);
  for (const CpuFeatures& cpu : {CpuFeatures{}, this_cpu()}) {
    for (const auto& hash : hash_algorithms()) {
      std::array<std::byte, 96> out;
      const Status status = pbkdf2(cpu, hash, {}, {}, UINT32_MAX, out);
      ASSERT_FALSE(status) << hash.name;
      EXPECT_EQ(status.error().code, Errc::shutting_down) << hash.name;
    }
  }
}

TEST(Pbkdf2, SecretLongerThanABlockIsHashedFirst) {
  const HashAlgorithm& sha256 = *find_hash("sha256");
  const std::vector<std::byte> secret(65, std::byte{7});
  std::array<std::byte, 32> digest;
  Hash hash(sha256);
  hash.update(secret);
  hash.digest(digest);
  std::array<std::byte, 64> of_secret;
  std::array<std::byte, 64> of_digest;
  ASSERT_TRUE(pbkdf2(sha256, secret, {}, 10, of_secret));
  ASSERT_TRUE(pbkdf2(sha256, digest, {}, 10, of_digest));
  EXPECT_EQ(of_secret, of_digest);
}

TEST(Pbkdf2, NoIterationsIsAnError) {
  std::array<std::byte, 32> out;
  EXPECT_FALSE(pbkdf2(*find_hash("sha256"), {}, {}, 0, out));
}

void expect_argon2_vectors(const CpuFeatures& cpu) {
  for_each_vector("argon2.vec", [&](Vector& v) {
    const Argon2Type type = v.text("Type") == "i" ? Argon2Type::i : Argon2Type::id;
    const std::vector<std::byte> secret = v.bytes("Secret");
    const std::vector<std::byte> salt = v.bytes("Salt");
    const std::vector<std::byte> expected = v.bytes("Output");
    const Argon2Cost cost{static_cast<uint32_t>(v.number("Time")), static_cast<uint32_t>(v.number("MemoryKib")),
                          static_cast<uint32_t>(v.number("Lanes"))};
    std::vector<std::byte> out(expected.size());
    ASSERT_TRUE(argon2(cpu, type, secret, salt, cost, out));
    EXPECT_EQ(out, expected);
  });
}

TEST(Argon2, EqualsReferenceImplementationOnAnyCpu) { expect_argon2_vectors(CpuFeatures{}); }

TEST(Argon2, EqualsReferenceImplementationByAvx2) {
  if (!this_cpu().avx2) GTEST_SKIP() << "this CPU has no AVX2";
  CpuFeatures cpu;
  cpu.avx2 = true;
  expect_argon2_vectors(cpu);
}

TEST(Argon2, EqualsReferenceImplementationByAvx512) {
  if (!this_cpu().avx512) GTEST_SKIP() << "this CPU has no AVX-512";
  CpuFeatures cpu;
  cpu.avx512 = true;
  expect_argon2_vectors(cpu);
}

/* RFC 7693, appendix A, and the empty input of the reference implementation. */
TEST(Blake2b, EqualsPublishedVectors) {
  const auto digest = [](std::string_view input) {
    std::vector<std::byte> out(64);
    Blake2b hash(out.size());
    for (const char& c : input) hash.update(std::as_bytes(std::span(&c, 1)));
    hash.digest(out);
    return std::vector(out.begin(), out.begin() + 16);
  };
  EXPECT_EQ(digest("abc"), test::from_hex("ba80a53f981c4d0d6a2797b69f12f6e9"));
  EXPECT_EQ(digest(""), test::from_hex("786a02f742015903c6c6fd852552d272"));
}

TEST(Argon2, CostsOutsideOfTheStandardAreRefused) {
  const std::array<std::byte, 16> salt{};
  std::array<std::byte, 32> out;
  for (const Argon2Cost cost : {Argon2Cost{0, 64, 1}, Argon2Cost{1, 7, 1}, Argon2Cost{1, 15, 2}, Argon2Cost{1, 64, 0},
                                Argon2Cost{1, 0xffffffff, 0x1000000}}) {
    const Status status = argon2(Argon2Type::id, {}, salt, cost, out);
    ASSERT_FALSE(status);
    EXPECT_EQ(status.error().code, Errc::invalid_format) << status.error().what;
  }
}

TEST(Argon2, GivesUpWhenTheProcessHasToEnd) {
  const std::array<std::byte, 16> salt{};
  std::array<std::byte, 32> out;
  for (const uint32_t lanes : {1U, 4U}) {
    for (const int questions : {0, 5, 50}) {
      const ShutdownAfter shutdown(questions);
      const Status status = argon2(Argon2Type::id, {}, salt, {UINT32_MAX, 8192, lanes}, out);
      ASSERT_FALSE(status);
      EXPECT_EQ(status.error().code, Errc::shutting_down) << status.error().what;
    }
  }
}

/* Room for 256 MiB more than the program has now, for as long as it lives. */
class AddressSpaceLimit {
 public:
  AddressSpaceLimit() {
    rlim_t pages = 0;
    std::ifstream("/proc/self/statm") >> pages;
    getrlimit(RLIMIT_AS, &before_);
    rlimit limit = before_;
    limit.rlim_cur = pages * static_cast<rlim_t>(sysconf(_SC_PAGESIZE)) + (rlim_t{256} << 20);
    setrlimit(RLIMIT_AS, &limit);
  }
  ~AddressSpaceLimit() { setrlimit(RLIMIT_AS, &before_); }

 private:
  rlimit before_{};
};

TEST(Argon2, MoreMemoryThanThereIsIsAnError) {
  const std::array<std::byte, 16> salt{};
  std::array<std::byte, 32> out;
  const AddressSpaceLimit limit;
  const Status status = argon2(Argon2Type::id, {}, salt, {1, 1 << 20, 1}, out);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, Errc::no_memory) << status.error().what;
}

} // namespace
} // namespace qluks
