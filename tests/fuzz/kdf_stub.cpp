/* SPDX-License-Identifier: BSD-3-Clause */
/* Key derivation that costs nothing and gives the same bytes for every secret and salt.
 *
 * The linker takes these instead of the product's, so that a fuzzer gets past key slots that it changed, as long as the
 * digest is the one below.  All limits on costs are at work as they are: the clock that costs are measured by is
 * replaced as well, and shows what the derivations so far would have taken.  The splitter goes, too: its 4000 stripes
 * take longer than all else that opens a volume.
 */
#include <algorithm>

#include "base/clock.hpp"
#include "crypto/kdf/pbkdf.hpp"
#include "formats/luks/af.hpp"
#include "formats/luks/header.hpp"
#include "tests/fuzz/checks.hpp"

namespace qluks {

namespace {

double seconds = 0;

constexpr double pbkdf2_iteration_seconds = 15e-6; /* the fewest iterations that are measured are enough at once */
constexpr double argon2_kib_seconds = 1e-6;        /* in one pass */

void fill(std::span<std::byte> out) {
  for (size_t i = 0; i < out.size(); ++i) out[i] = static_cast<std::byte>(i);
}

} // namespace

double monotonic_seconds() noexcept { return seconds; }

Status pbkdf2(const CpuFeatures&, const HashAlgorithm&, Bytes, Bytes, uint32_t iterations, std::span<std::byte> out) {
  if (iterations == 0) return fail(Errc::invalid_format, "pbkdf2: 0 iterations");
  seconds += pbkdf2_iteration_seconds * iterations;
  fill(out);
  return ok();
}

Status pbkdf2(const HashAlgorithm& hash, Bytes secret, Bytes salt, uint32_t iterations, std::span<std::byte> out) {
  return pbkdf2(this_cpu(), hash, secret, salt, iterations, out);
}

Status argon2(Argon2Type, Bytes, Bytes, const Argon2Cost& cost, std::span<std::byte> out) {
  if (cost.time == 0 || cost.lanes == 0 || cost.memory_kib / 8 < cost.lanes) {
    return fail(Errc::invalid_format, "argon2: costs outside of its limits");
  }
  seconds += argon2_kib_seconds * cost.memory_kib * cost.time;
  fill(out);
  return ok();
}

/* The key is the last stripe. */
void af_merge(const HashAlgorithm&, std::span<const std::byte> material, std::span<std::byte> key) {
  fuzz::check(material.size() == af_stripes * key.size(), "what is merged are 4000 stripes");
  const auto last = material.last(key.size());
  std::copy(last.begin(), last.end(), key.begin());
}

void af_split(const HashAlgorithm&, std::span<const std::byte> key, std::span<std::byte> material) {
  fuzz::check(material.size() == af_stripes * key.size(), "what is split has room for 4000 stripes");
  std::fill(material.begin(), material.end(), std::byte{0});
  std::copy(key.begin(), key.end(), material.end() - static_cast<ptrdiff_t>(key.size()));
}

} // namespace qluks
