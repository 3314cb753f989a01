/* SPDX-License-Identifier: BSD-3-Clause */
/* Key derivation that costs nothing and gives the same bytes for every secret and salt.
 *
 * The linker takes these instead of those of crypto/, so that a fuzzer gets past key slots that it changed, as long as
 * the digest is the one below.  All limits on costs are at work as they are.
 */
#include <algorithm>
#include <chrono>

#include "crypto/pbkdf.hpp"

namespace qluks {

namespace {

void fill(std::span<std::byte> out) {
  for (size_t i = 0; i < out.size(); ++i) out[i] = static_cast<std::byte>(i);
}

/* Costs are estimated by deriving a key from zeroes, with more and more iterations until that takes long enough to be
 * measured: here, soon. */
void take_time_if_measured(Bytes secret, uint32_t iterations) {
  constexpr std::chrono::microseconds iteration(15);
  constexpr uint32_t iterations_max = 1000;
  if (secret.empty() || std::any_of(secret.begin(), secret.end(), [](std::byte b) { return b != std::byte{0}; }))
    return;
  const auto end = std::chrono::steady_clock::now() + iteration * std::min(iterations, iterations_max);
  while (std::chrono::steady_clock::now() < end) continue;
}

} // namespace

Status pbkdf2(const CpuFeatures&, const HashAlgorithm&, Bytes secret, Bytes, uint32_t iterations,
              std::span<std::byte> out) {
  if (iterations == 0) return fail(Errc::invalid_format, "pbkdf2: 0 iterations");
  take_time_if_measured(secret, iterations);
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
  fill(out);
  return ok();
}

} // namespace qluks
