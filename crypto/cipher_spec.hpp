/* SPDX-License-Identifier: BSD-3-Clause */
/* A cipher as dm-crypt and LUKS name it: "aes-xts-plain64", "aes-cbc-essiv:sha256". */
#ifndef QLUKS_CRYPTO_CIPHER_SPEC_HPP
#define QLUKS_CRYPTO_CIPHER_SPEC_HPP

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "crypto/hash.hpp"

namespace qluks {

enum class BlockCipher : uint8_t { aes };
enum class CipherMode : uint8_t { xts, cbc };
enum class IvKind : uint8_t { plain, plain64, plain64be, essiv };

struct CipherSpec {
  BlockCipher cipher = BlockCipher::aes;
  CipherMode mode = CipherMode::xts;
  IvKind iv = IvKind::plain64;
  const HashAlgorithm* essiv_hash = nullptr; /* only with IvKind::essiv */

  /* The name in full. */
  std::string name() const;

  /* Is a key of that many bytes legal?  An XTS key is two keys of the cipher. */
  bool accepts_key_bytes(size_t bytes) const noexcept;
};

/* "cipher-mode-iv[:hash]".  Only what is known exactly is accepted; the error names the part that is not: a null
 * cipher, a capi: string and the like never open. */
Result<CipherSpec> parse_cipher_spec(std::string_view text);

} // namespace qluks

#endif
