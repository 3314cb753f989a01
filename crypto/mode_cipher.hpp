/* SPDX-License-Identifier: BSD-3-Clause */
/* Sectors under any block cipher, mode and IV, by nettle: all that the AES kernels do not take. */
#ifndef QLUKS_CRYPTO_MODE_CIPHER_HPP
#define QLUKS_CRYPTO_MODE_CIPHER_HPP

#include <memory>
#include <span>

#include "crypto/sector_cipher.hpp"

namespace qluks {

/* Key and sector size have to be legal; make_sector_cipher() checks them. */
std::shared_ptr<const SectorCipher> make_mode_cipher(const CipherSpec& spec, std::span<const std::byte> key,
                                                     size_t sector_size);

} // namespace qluks

#endif
