/* SPDX-License-Identifier: BSD-3-Clause */
#include "crypto/aes/engine.hpp"

#include <gtest/gtest.h>

#include <array>

#include "base/log.hpp"
#include "crypto/aes/kernel.hpp"
#include "crypto/sector_cipher.hpp"

namespace qluks {
namespace {

using Names = std::vector<std::string_view>;

Names ranked_names(const CpuFeatures& cpu) {
  Names names;
  for (const Kernel* kernel : ranked_kernels(cpu)) names.push_back(kernel->name);
  return names;
}

std::string_view engine_of_new_cipher() {
  const std::array<std::byte, 64> key{};
  const auto spec = parse_cipher_spec("aes-xts-plain64");
  const auto cipher = make_sector_cipher(*spec, key, 512);
  EXPECT_TRUE(cipher);
  return (*cipher)->engine();
}

class Engine : public ::testing::Test {
 protected:
  void TearDown() override { EXPECT_TRUE(choose_engine("auto")); }
};

#if defined(__x86_64__)

constexpr CpuFeatures everything{.aes = true,
                                 .avx2 = true,
                                 .vaes = true,
                                 .vpclmulqdq = true,
                                 .avx512 = true,
                                 .sha = true,
                                 .slow_zmm = false,
                                 .slow_clmul = false};

TEST_F(Engine, BestIsTakenFirst) {
  EXPECT_EQ(ranked_names(everything), (Names{"vaes512", "vaes512shift", "vaes256", "vaes256shift", "aesni", "nettle"}));
}

TEST_F(Engine, ShiftsComeFirstWhereProductsAreSlow) {
  CpuFeatures cpu = everything;
  cpu.slow_clmul = true;
  EXPECT_EQ(ranked_names(cpu), (Names{"vaes512shift", "vaes512", "vaes256shift", "vaes256", "aesni", "nettle"}));
  cpu.avx512 = false;
  EXPECT_EQ(ranked_names(cpu), (Names{"vaes256shift", "vaes256", "aesni", "nettle"}));
}

TEST_F(Engine, EachMissingFeatureTakesItsKernelsAway) {
  struct Case {
    bool CpuFeatures::*missing;
    Names left;
  };
  const Case cases[] = {
      {&CpuFeatures::aes, {"nettle"}},
      {&CpuFeatures::avx2, {"vaes512", "vaes512shift", "aesni", "nettle"}},
      {&CpuFeatures::vaes, {"aesni", "nettle"}},
      {&CpuFeatures::vpclmulqdq, {"aesni", "nettle"}},
      {&CpuFeatures::avx512, {"vaes256", "vaes256shift", "aesni", "nettle"}},
      {&CpuFeatures::sha, {"vaes512", "vaes512shift", "vaes256", "vaes256shift", "aesni", "nettle"}},
  };
  for (const Case& c : cases) {
    CpuFeatures cpu = everything;
    cpu.*c.missing = false;
    EXPECT_EQ(ranked_names(cpu), c.left);
  }
}

TEST_F(Engine, SlowZmmLowersTheRankAndHidesNothing) {
  CpuFeatures cpu = everything;
  cpu.slow_zmm = true;
  EXPECT_EQ(ranked_names(cpu), (Names{"vaes256", "vaes256shift", "vaes512", "vaes512shift", "aesni", "nettle"}));
}

#elif defined(__aarch64__)

TEST_F(Engine, BestIsTakenFirst) { EXPECT_EQ(ranked_names(CpuFeatures{.aes = true}), (Names{"armv8", "nettle"})); }

#endif

TEST_F(Engine, CpuWithoutAnythingHasNettle) { EXPECT_EQ(ranked_names(CpuFeatures{}), (Names{"nettle"})); }

TEST_F(Engine, AutoIsTheBestOfThisCpu) {
  EXPECT_EQ(available_engines(), ranked_names(this_cpu()));
  EXPECT_EQ(chosen_engine(), available_engines().front());
  EXPECT_EQ(engine_of_new_cipher(), available_engines().front());
}

TEST_F(Engine, ForcedOneIsTaken) {
  for (const std::string_view name : available_engines()) {
    ASSERT_TRUE(choose_engine(name));
    EXPECT_EQ(chosen_engine(), name);
    EXPECT_EQ(engine_of_new_cipher(), name);
  }
}

TEST_F(Engine, UnknownNameIsAnErrorThatListsTheKnownOnes) {
  const Status status = choose_engine("vaes1024");
  ASSERT_FALSE(status);
  EXPECT_NE(status.error().what.find("\"vaes1024\""), std::string::npos);
  for (const std::string_view name : available_engines()) {
    EXPECT_NE(status.error().what.find(name), std::string::npos) << status.error().what;
  }
  EXPECT_EQ(chosen_engine(), available_engines().front());
}

} // namespace
} // namespace qluks
