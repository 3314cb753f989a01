/* SPDX-License-Identifier: BSD-3-Clause */
/* The anti-forensic splitter of LUKS (TKS1): a key spread over many stripes, so that losing any one of them loses it.
 *
 *      stripe 0 ──⊕──▶ H ──⊕──▶ H … ──▶ H ──⊕──▶ key
 *                 0   stripe 1              last stripe
 *
 * H hashes its input in blocks of a digest, each with its number in front; the last block may be short.
 */
#ifndef QLUKS_FORMATS_LUKS_AF_HPP
#define QLUKS_FORMATS_LUKS_AF_HPP

#include <cstddef>
#include <span>

#include "crypto/kdf/hash.hpp"

namespace qluks {

/* `material` is a whole number of stripes, at least one, each of key.size() bytes. */
void af_merge(const HashAlgorithm& hash, std::span<const std::byte> material, std::span<std::byte> key);

/* The inverse: all stripes of `material` but the last hold random bytes already; fills the last. */
void af_split(const HashAlgorithm& hash, std::span<const std::byte> key, std::span<std::byte> material);

} // namespace qluks

#endif
