/* SPDX-License-Identifier: BSD-3-Clause */
/* A cipher as dm-crypt and LUKS name it: "aes-xts-plain64", "serpent-cbc-essiv:sha256", "twofish-ecb",
 * "xchacha20,aes-adiantum-plain64". */
#ifndef QLUKS_CRYPTO_CIPHER_SPEC_HPP
#define QLUKS_CRYPTO_CIPHER_SPEC_HPP

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "crypto/kdf/hash.hpp"

namespace qluks {

enum class BlockCipher : uint8_t {
  aes,
  serpent,
  twofish,
  camellia,
  cast5,
  blowfish,
  des3_ede,
  xchacha20_aes,
  xchacha12_aes
};
enum class CipherMode : uint8_t { xts, cbc, ecb, ctr, xctr, pcbc, cfb, ofb, lrw, adiantum };
enum class IvKind : uint8_t { none, plain, plain64, plain64be, null, benbi, eboiv, essiv }; /* none: with ecb only */

/* Modes that encrypt a stream of bytes: the kernel says that their blocks have one byte. */
constexpr bool is_stream(CipherMode mode) noexcept {
  return mode == CipherMode::ctr || mode == CipherMode::xctr || mode == CipherMode::cfb || mode == CipherMode::ofb;
}

constexpr size_t block_bytes_of(BlockCipher cipher) noexcept {
  return cipher == BlockCipher::cast5 || cipher == BlockCipher::blowfish || cipher == BlockCipher::des3_ede ? 8 : 16;
}

/* Is a key of that many bytes legal for one block? */
constexpr bool is_key_bytes_of(BlockCipher cipher, size_t bytes) noexcept {
  switch (cipher) {
    case BlockCipher::cast5:
      return bytes >= 5 && bytes <= 16;
    case BlockCipher::blowfish:
      return bytes >= 4 && bytes <= 56;
    case BlockCipher::des3_ede:
      return bytes == 24;
    case BlockCipher::xchacha20_aes:
    case BlockCipher::xchacha12_aes:
      return bytes == 32;
    default:
      return bytes == 16 || bytes == 24 || bytes == 32;
  }
}

/* Payloads are encrypted by dm-crypt, key slots by cryptsetup itself.  The two take some names differently, as
 * dm-crypt sees a mode where cryptsetup sees a block cipher:
 *
 *                      payload                                          key slot
 *      ctr-benbi       counts bytes, since it encrypts a stream         counts blocks
 *      adiantum-benbi  counts blocks of AES                             counts what is as long as the IV
 *      xts-eboiv       encrypts by XTS, with each half of the key       encrypts a block with the whole key
 *      lrw-eboiv       encrypts by LRW, with each part of the key       encrypts a block with the whole key
 */
enum class CipherUse : uint8_t { payload, key_slot };

struct CipherSpec {
  BlockCipher cipher = BlockCipher::aes;
  CipherMode mode = CipherMode::xts;
  IvKind iv = IvKind::plain64;
  const HashAlgorithm* essiv_hash = nullptr; /* only with IvKind::essiv */
  CipherUse use = CipherUse::payload;

  /* The name in full. */
  std::string name() const;

  /* How many bytes at the end of a key make the tweaks: half of it with XTS, a block with LRW, else none. */
  size_t tweak_key_bytes(size_t key_bytes) const noexcept;

  /* Is a key of that many bytes legal?  What encrypts the data has to be a key of the cipher, for XTS both halves.
   * For a key slot under xts-eboiv or lrw-eboiv the whole has to be one as well. */
  bool accepts_key_bytes(size_t bytes) const noexcept;
};

/* "cipher-mode-iv[:hash]", "cipher-ecb", and dm-crypt's short forms of cbc-plain: "cipher" and "cipher-plain".
 * For payloads also the names of the kernel's crypto API: "capi:xts(aes)-plain64",
 * "capi:essiv(cbc(aes),sha256)-plain64". Only what is known exactly is accepted; the error names the part that is not:
 * a null cipher and the like never open. */
Result<CipherSpec> parse_cipher_spec(std::string_view text, CipherUse use = CipherUse::payload);

/* "aes-xts aes-cbc …": every cipher with each of its modes.  Spaces, as one name has a comma. */
std::string served_ciphers();

} // namespace qluks

#endif
