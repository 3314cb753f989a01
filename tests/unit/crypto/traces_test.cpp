/* SPDX-License-Identifier: BSD-3-Clause */
/* That the stack which is wiped after a request is all that the request has used. */
#include <gtest/gtest.h>

#include <algorithm>

#include "crypto/aes/engine.hpp"
#include "crypto/aes/kernel.hpp"
#include "crypto/sector_cipher.hpp"
#include "crypto/traces.hpp"
#include "tests/support/patterns.hpp"

namespace qluks {
namespace {

enum class Direction { decrypt, encrypt };

constexpr size_t painted_bytes = 65536;
constexpr std::byte paint{0xa5};

/* Both frames lie where those of the calls between them have been. */
__attribute__((noinline)) void paint_stack() {
  std::byte frame[painted_bytes];
  std::fill(std::begin(frame), std::end(frame), paint);
  __asm__ volatile("" ::"r"(frame) : "memory");
}

/* How many bytes of the stack were written since it was painted. */
__attribute__((noinline)) size_t used_stack_bytes() {
  std::byte frame[painted_bytes];
  __asm__ volatile("" : "=m"(frame)::);
  return static_cast<size_t>(std::end(frame) -
                             std::find_if(std::begin(frame), std::end(frame), [](std::byte b) { return b != paint; }));
}

/* What wiping alone uses. */
template <class Traces>
__attribute__((noinline)) size_t wiped_stack_bytes() {
  paint_stack();
  { const Traces wiped; }
  return used_stack_bytes();
}

size_t wiped_stack_bytes(std::string_view cipher, Direction direction, size_t request_bytes) {
  const bool few = request_bytes <= few_bytes;
  const bool xts = cipher.starts_with("aes-xts");
  const bool cbc = cipher.starts_with("aes-cbc");
  if (few && (xts || (cbc && direction == Direction::decrypt))) return wiped_stack_bytes<FewSectorsTraces>();
  if (xts) return wiped_stack_bytes<XtsTraces>();
  if (cbc && !few && direction == Direction::encrypt) return wiped_stack_bytes<CbcEncryptTraces>();
  return wiped_stack_bytes<RequestTraces>();
}

/* Whatever a call has used deeper down than its wiping has not been wiped. */
void expect_all_stack_wiped(const SectorCipher& cipher, std::string_view name, size_t count) {
  constexpr size_t frame_of_the_call = 128;
  std::vector<std::byte> sectors(count * cipher.sector_size());
  for (const Direction direction : {Direction::decrypt, Direction::encrypt}) {
    const auto turn = [&] {
      direction == Direction::decrypt ? cipher.decrypt(SectorNumber{7}, sectors, sectors)
                                      : cipher.encrypt(SectorNumber{7}, sectors, sectors);
    };
    const size_t limit = wiped_stack_bytes(name, direction, sectors.size()) + frame_of_the_call;
    turn(); /* that the dynamic linker resolves now; nbdkit has it all resolved at start */
    paint_stack();
    turn();
    EXPECT_LE(used_stack_bytes(), limit) << (direction == Direction::decrypt ? "decrypt, " : "encrypt, ") << name
                                         << " by " << cipher.engine() << ", sectors: " << count;
  }
}

constexpr std::pair<std::string_view, size_t> ciphers[] = {
    {"aes-xts-plain64", 64},
    {"aes-cbc-plain64", 32},
    {"aes-cbc-essiv:sha256", 32},
    {"aes-ctr-plain64", 32},
    {"aes-ecb", 32},
    {"serpent-xts-essiv:sha256", 64},
    {"twofish-cbc-plain64", 32},
    {"camellia-xts-plain64", 64},
    {"cast5-cbc-plain", 16},
    {"blowfish-cbc-plain", 16},
    {"des3_ede-cbc-plain64", 24},
    {"xchacha20,aes-adiantum-plain64", 32},
    {"xchacha12,aes-adiantum-plain64", 32},
    {"aes-lrw-benbi", 48},
    {"aes-xctr-plain64", 32},
    {"serpent-pcbc-plain64", 32},
};

TEST(RequestTraces, CoverTheStackOfEveryCipher) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "frames are larger with a sanitizer";
#endif
  for (const Kernel* kernel : ranked_kernels(this_cpu())) {
    for (const auto& [name, key_bytes] : ciphers) {
      const auto cipher =
          make_sector_cipher(*kernel, *parse_cipher_spec(name), test::key_pattern(key_bytes), /*sector_size=*/512);
      ASSERT_TRUE(cipher) << name;
      for (const size_t count : {1, 2, 5, 8, 9, 64}) {
        expect_all_stack_wiped(**cipher, name, count);
      }
    }
  }
}

} // namespace
} // namespace qluks
