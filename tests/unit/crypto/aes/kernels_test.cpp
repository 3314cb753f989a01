/* SPDX-License-Identifier: BSD-3-Clause */
/* Every kernel against published vectors and against nettle, at every place where it could go wrong: boundaries of its
 * loops, unaligned and overlapping buffers, the ends of its memory, sector numbers that carry or wrap. */
#include <gtest/gtest.h>

#include <random>
#include <thread>

#include "crypto/aes/kernel.hpp"
#include "tests/support/guarded.hpp"
#include "tests/support/nettle_reference.hpp"
#include "tests/support/patterns.hpp"
#include "tests/support/vectors.hpp"

namespace qluks {
namespace {

using test::for_each_vector;
using test::Guarded;
using test::NettleReference;
using test::Vector;
using Bytes = std::vector<std::byte>;
using ConstSpan = std::span<const std::byte>;
using CipherPtr = std::shared_ptr<const SectorCipher>;

constexpr std::array<size_t, 4> sector_sizes{512, 1024, 2048, 4096};
constexpr std::string_view specs[] = {"aes-xts-plain", "aes-xts-plain64", "aes-xts-plain64be", "aes-xts-essiv:sha256",
                                      "aes-cbc-plain", "aes-cbc-plain64", "aes-cbc-plain64be", "aes-cbc-essiv:sha256"};

/* Around them numbers carry into the upper half or wrap. */
constexpr uint64_t edges[] = {0, uint64_t{1} << 32, uint64_t{1} << 63, 0};

CipherSpec spec_of(std::string_view name) {
  const auto spec = parse_cipher_spec(name);
  EXPECT_TRUE(spec) << name;
  return *spec;
}

using test::key_pattern;
using test::pattern;

Bytes random_bytes(std::mt19937_64& random, size_t size) {
  Bytes bytes(size);
  for (std::byte& b : bytes) b = static_cast<std::byte>(random());
  return bytes;
}

class KernelTest : public ::testing::TestWithParam<const Kernel*> {
 protected:
  void SetUp() override {
    if (!kernel().supported(this_cpu())) GTEST_SKIP() << "this CPU lacks what " << kernel().name << " needs";
  }
  void TearDown() override {
    if (cases_ > 0) RecordProperty("cases", static_cast<int>(cases_));
  }

  const Kernel& kernel() const { return *GetParam(); }

  CipherPtr make_cipher(const CipherSpec& spec, ConstSpan key, size_t sector_size) const {
    auto cipher = make_sector_cipher(kernel(), spec, key, sector_size);
    EXPECT_TRUE(cipher);
    EXPECT_EQ((*cipher)->engine(), kernel().name);
    return *cipher;
  }

  /* Both directions out of place, in place, and from and to odd addresses. */
  void expect_both_ways(const SectorCipher& cipher, uint64_t first, const Bytes& plain, const Bytes& encrypted) {
    constexpr size_t shifts[][2] = {{0, 0}, {1, 0}, {0, 15}, {7, 33}};
    for (const auto& [in_shift, out_shift] : shifts) {
      expect_out_of_place(cipher, first, plain, encrypted, in_shift, out_shift);
      expect_in_place(cipher, first, plain, encrypted, in_shift);
      ++cases_;
    }
  }

 private:
  void expect_out_of_place(const SectorCipher& cipher, uint64_t first, const Bytes& plain, const Bytes& encrypted,
                           size_t in_shift, size_t out_shift) {
    Bytes in(plain.size() + in_shift);
    Bytes out(plain.size() + out_shift);
    const std::span<std::byte> to = std::span(out).subspan(out_shift);
    std::copy(plain.begin(), plain.end(), in.begin() + static_cast<ptrdiff_t>(in_shift));
    cipher.encrypt({first}, std::span(in).subspan(in_shift), to);
    EXPECT_TRUE(std::equal(to.begin(), to.end(), encrypted.begin(), encrypted.end())) << "encrypt, out of place";
    EXPECT_TRUE(std::equal(plain.begin(), plain.end(), in.begin() + static_cast<ptrdiff_t>(in_shift)))
        << "the input was changed";
    std::copy(encrypted.begin(), encrypted.end(), in.begin() + static_cast<ptrdiff_t>(in_shift));
    cipher.decrypt({first}, std::span(in).subspan(in_shift), to);
    EXPECT_TRUE(std::equal(to.begin(), to.end(), plain.begin(), plain.end())) << "decrypt, out of place";
  }

  void expect_in_place(const SectorCipher& cipher, uint64_t first, const Bytes& plain, const Bytes& encrypted,
                       size_t shift) {
    Bytes buffer(plain.size() + shift);
    const std::span<std::byte> text = std::span(buffer).subspan(shift);
    std::copy(plain.begin(), plain.end(), text.begin());
    cipher.encrypt({first}, text, text);
    EXPECT_TRUE(std::equal(text.begin(), text.end(), encrypted.begin(), encrypted.end())) << "encrypt, in place";
    cipher.decrypt({first}, text, text);
    EXPECT_TRUE(std::equal(text.begin(), text.end(), plain.begin(), plain.end())) << "decrypt, in place";
  }

 protected:
  size_t cases_ = 0;
};

/* A vector may be shorter than a sector, whose first blocks it then is. */
TEST_P(KernelTest, EqualsIeee1619) {
  for_each_vector("aes_xts.vec", [&](Vector& v) {
    const CipherPtr cipher = make_cipher(spec_of(v.text("Cipher")), v.bytes("Key"), 512);
    const SectorNumber sector{v.number("Sector")};
    const Bytes plain = v.bytes("PlainText");
    const Bytes encrypted = v.bytes("CipherText");
    Bytes sector_plain(512);
    Bytes sector_encrypted(512);
    std::copy(plain.begin(), plain.end(), sector_plain.begin());
    cipher->encrypt(sector, sector_plain, sector_encrypted);
    EXPECT_TRUE(std::equal(encrypted.begin(), encrypted.end(), sector_encrypted.begin()));
    expect_both_ways(*cipher, sector.value, sector_plain, sector_encrypted);
  });
}

/* The IV goes in front of the cipher text, as the block that the first block of plain text is chained to:
 *
 *      cipher text   IV  C1  C2  …             what the first block of the sector decrypts to does not matter;
 *      plain text    ?   P1  P2  …             encrypted again, it must give the IV
 */
TEST_P(KernelTest, EqualsSp80038aAndFips197) {
  for_each_vector("aes_cbc.vec", [&](Vector& v) {
    const CipherPtr cipher = make_cipher(spec_of("aes-cbc-plain64"), v.bytes("Key"), 512);
    const Bytes iv = v.bytes("Iv");
    const Bytes plain = v.bytes("PlainText");
    const Bytes encrypted = v.bytes("CipherText");
    Bytes sector_encrypted(512);
    std::copy(iv.begin(), iv.end(), sector_encrypted.begin());
    std::copy(encrypted.begin(), encrypted.end(), sector_encrypted.begin() + 16);
    Bytes sector_plain(512);
    cipher->decrypt({9}, sector_encrypted, sector_plain);
    EXPECT_TRUE(std::equal(plain.begin(), plain.end(), sector_plain.begin() + 16));
    expect_both_ways(*cipher, 9, sector_plain, sector_encrypted);
  });
}

TEST_P(KernelTest, EqualsRunsByOpenssl) {
  for_each_vector("sectors.vec", [&](Vector& v) {
    const CipherSpec spec = spec_of(v.text("Cipher"));
    const Bytes key = key_pattern(v.number("KeyBytes"));
    const size_t sector_size = v.number("SectorSize");
    const uint64_t first = v.number("Sector");
    const Bytes plain = pattern(v.number("Count") * sector_size);
    const Bytes expected = v.bytes("Sha256");

    const CipherPtr cipher = make_cipher(spec, key, sector_size);
    Bytes encrypted(plain.size());
    cipher->encrypt({first}, plain, encrypted);
    Bytes digest(expected.size());
    Hash hash(*find_hash("sha256"));
    hash.update(encrypted);
    hash.digest(digest);
    EXPECT_EQ(digest, expected) << spec.name();
    expect_both_ways(*cipher, first, plain, encrypted);
  });
}

/* A batch of IVs is 64 sectors and a strip of CBC up to 32: three batches and more cover every remainder. */
TEST_P(KernelTest, EqualsNettleForEveryCountOfSectors) {
  for (const std::string_view name : {"aes-xts-plain64", "aes-cbc-essiv:sha256"}) {
    const CipherSpec spec = spec_of(name);
    const Bytes key = key_pattern(spec.mode == CipherMode::xts ? 64 : 32);
    for (const size_t sector_size : sector_sizes) {
      const CipherPtr cipher = make_cipher(spec, key, sector_size);
      const NettleReference reference(spec, key, sector_size);
      for (size_t count = 1; count <= 200; count += sector_size == 512 ? 1 : 9) {
        const Bytes plain = pattern(count * sector_size);
        expect_both_ways(*cipher, count, plain, reference.encrypt(count, plain));
        if (HasFailure()) FAIL() << name << ", " << count << " sectors of " << sector_size;
      }
    }
  }
}

TEST_P(KernelTest, EqualsNettleOnRandomRuns) {
  std::mt19937_64 random(20240229);
  for (int i = 0; i < 400; ++i) {
    const CipherSpec spec = spec_of(specs[random() % std::size(specs)]);
    const size_t key_bytes = (16 + 8 * (random() % 3)) * (spec.mode == CipherMode::xts ? 2 : 1);
    const size_t sector_size = sector_sizes[random() % sector_sizes.size()];
    const size_t count = 1 + random() % 140;
    const uint64_t first = edges[random() % std::size(edges)] - random() % 300;
    const Bytes key = random_bytes(random, key_bytes);
    const Bytes plain = random_bytes(random, count * sector_size);
    const NettleReference reference(spec, key, sector_size);
    expect_both_ways(*make_cipher(spec, key, sector_size), first, plain, reference.encrypt(first, plain));
    if (HasFailure()) {
      FAIL() << spec.name() << ", key of " << key_bytes << ", " << count << " sectors of " << sector_size << " from "
             << first;
    }
  }
}

TEST_P(KernelTest, TouchesNothingOutsideOfTheRun) {
  Guarded in(128 * 4096);
  Guarded out(128 * 4096);
  for (const std::string_view name : {"aes-xts-plain64", "aes-cbc-plain64"}) {
    const CipherSpec spec = spec_of(name);
    const Bytes key = key_pattern(spec.mode == CipherMode::xts ? 64 : 32);
    for (const size_t sector_size : sector_sizes) {
      const CipherPtr cipher = make_cipher(spec, key, sector_size);
      for (const size_t count : std::initializer_list<size_t>{1, 2, 3, 8, 9, 15, 16, 17, 31, 32, 33, 64, 65, 128}) {
        const size_t size = count * sector_size;
        cipher->encrypt({1}, in.at_start(size), out.at_start(size));
        cipher->decrypt({1}, in.at_start(size), out.at_start(size));
        cipher->encrypt({1}, in.at_end(size), out.at_end(size));
        cipher->decrypt({1}, in.at_end(size), out.at_end(size));
        cipher->encrypt({1}, in.at_end(size), in.at_end(size));
        cipher->decrypt({1}, in.at_end(size), in.at_end(size));
      }
    }
  }
}

/* Guard pages stop what goes past the run; this sees a write between the run and the page. */
TEST_P(KernelTest, WritesNoByteNextToTheRun) {
  for (const std::string_view name : {"aes-xts-plain64", "aes-cbc-plain64"}) {
    const CipherSpec spec = spec_of(name);
    const CipherPtr cipher = make_cipher(spec, key_pattern(spec.mode == CipherMode::xts ? 64 : 32), 512);
    for (size_t count = 1; count <= 40; ++count) {
      Bytes buffer(count * 512 + 2 * 256, std::byte{0x5a});
      const std::span<std::byte> run = std::span(buffer).subspan(256, count * 512);
      cipher->encrypt({1}, run, run);
      cipher->decrypt({1}, run, run);
      EXPECT_EQ(buffer, Bytes(buffer.size(), std::byte{0x5a})) << name << ", " << count << " sectors";
    }
  }
}

TEST_P(KernelTest, EmptyRunIsNothingToDo) {
  const CipherPtr cipher = make_cipher(spec_of("aes-xts-plain64"), key_pattern(64), 512);
  cipher->decrypt({0}, {}, {});
  cipher->encrypt({0}, {}, {});
}

TEST_P(KernelTest, OneCipherServesManyThreads) {
  const CipherSpec spec = spec_of("aes-xts-plain64");
  const CipherPtr cipher = make_cipher(spec, key_pattern(64), 512);
  const Bytes plain = pattern(64 * 512);
  const Bytes expected = NettleReference(spec, key_pattern(64), 512).encrypt(5, plain);
  std::vector<Bytes> results(4, Bytes(plain.size()));
  std::vector<std::thread> threads;
  for (Bytes& result : results) threads.emplace_back([&] { cipher->encrypt({5}, plain, result); });
  for (std::thread& thread : threads) thread.join();
  for (const Bytes& result : results) EXPECT_EQ(result, expected);
}

TEST_P(KernelTest, PassesItsSelfTest) { EXPECT_TRUE(passes_self_test(kernel())); }

TEST_P(KernelTest, SelfTestSeesEachWrongFunction) {
  Kernel wrong = kernel();
  wrong.xts_decrypt = kernel().xts_encrypt;
  EXPECT_FALSE(passes_self_test(wrong));
  wrong = kernel();
  wrong.xts_encrypt = kernel().cbc_encrypt;
  EXPECT_FALSE(passes_self_test(wrong));
  wrong = kernel();
  wrong.cbc_decrypt = kernel().xts_decrypt;
  EXPECT_FALSE(passes_self_test(wrong));
  wrong = kernel();
  wrong.cbc_encrypt = kernel().cbc_decrypt;
  EXPECT_FALSE(passes_self_test(wrong));
}

std::vector<const Kernel*> all_kernels() {
  std::vector<const Kernel*> all;
  for (const Kernel& kernel : kernels()) all.push_back(&kernel);
  return all;
}

INSTANTIATE_TEST_SUITE_P(Kernels, KernelTest, ::testing::ValuesIn(all_kernels()),
                         [](const auto& param) { return std::string(param.param->name); });

} // namespace
} // namespace qluks
