/* SPDX-License-Identifier: BSD-3-Clause */
/* Key derivation from a secret: PBKDF2 (RFC 8018) and Argon2 (RFC 9106, version 0x13). */
#ifndef QLUKS_CRYPTO_KDF_PBKDF_HPP
#define QLUKS_CRYPTO_KDF_PBKDF_HPP

#include <cstdint>
#include <span>

#include "base/result.hpp"
#include "crypto/cpu.hpp"
#include "crypto/kdf/hash.hpp"

namespace qluks {

using Bytes = std::span<const std::byte>;

/* PBKDF2-HMAC.  `iterations` >= 1; `out` may be of any length.  Fails on a zero iteration count, and gives up when the
 * process has to end. */
Status pbkdf2(const HashAlgorithm& hash, Bytes secret, Bytes salt, uint32_t iterations, std::span<std::byte> out);

/* The same with no more instructions than those of `cpu`: for tests and benchmarks. */
Status pbkdf2(const CpuFeatures& cpu, const HashAlgorithm& hash, Bytes secret, Bytes salt, uint32_t iterations,
              std::span<std::byte> out);

enum class Argon2Type : uint8_t { i, id };

struct Argon2Cost {
  uint32_t time = 0;       /* passes */
  uint32_t memory_kib = 0; /* KiB in all */
  uint32_t lanes = 0;      /* "cpus" in LUKS2; as many threads as that, or as CPUs */
};

/* Argon2 without secret key and associated data, as LUKS2 uses it.  Fails on costs outside of RFC 9106 (time >= 1,
 * lanes 1…2^24-1, memory >= 8 KiB a lane, at least 4 bytes of key), on lack of memory, and gives up when the process
 * has to end. */
Status argon2(Argon2Type type, Bytes secret, Bytes salt, const Argon2Cost& cost, std::span<std::byte> out);

/* The same with no more instructions than those of `cpu`: for tests and benchmarks. */
Status argon2(const CpuFeatures& cpu, Argon2Type type, Bytes secret, Bytes salt, const Argon2Cost& cost,
              std::span<std::byte> out);

} // namespace qluks

#endif
