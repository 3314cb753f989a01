/* SPDX-License-Identifier: BSD-3-Clause */
/* The hashes that nettle lacks, by libgcrypt, if the build has it. */
#ifndef QLUKS_CRYPTO_KDF_HASH_LIBGCRYPT_HPP
#define QLUKS_CRYPTO_KDF_HASH_LIBGCRYPT_HPP

#include <vector>

#include "crypto/kdf/hash.hpp"

namespace qluks {

/* Those that the library offers; in FIPS mode it has none of them. */
std::vector<HashAlgorithm> libgcrypt_hashes();

} // namespace qluks

#endif
