/* SPDX-License-Identifier: BSD-3-Clause */
/* Encryption by the qcow2 itself: what is encrypted is the data of each cluster, never a table.
 *
 *      crypt_method 1    AES-128-CBC, the passphrase is the key; the IV counts sectors of the guest disk
 *      crypt_method 2    a LUKS1 header in clusters of its own; the tweak counts sectors of the file with the data
 *
 * Clusters without data read as zeroes and are never decrypted.
 */
#ifndef QLUKS_FORMATS_QCOW2_CRYPT_HPP
#define QLUKS_FORMATS_QCOW2_CRYPT_HPP

#include <memory>
#include <string>

#include "base/block_device.hpp"
#include "base/units.hpp"
#include "crypto/sector_cipher.hpp"
#include "formats/luks/keyring.hpp"
#include "formats/qcow2/header.hpp"

namespace qluks {

class Qcow2Crypt {
 public:
  /* Unlock an image whose header says that it is encrypted. */
  static Result<Qcow2Crypt> unlock(BlockDevice& container, const Qcow2Header& header, Keyring& keyring);

  /* Whole sectors, in place. */
  void decrypt(std::span<std::byte> bytes, GuestOffset guest, HostOffset host) const noexcept {
    cipher_->decrypt(first_sector(guest, host), bytes, bytes);
  }

  /* Whole sectors; `in` and `out` are equal or disjoint. */
  void encrypt(std::span<const std::byte> in, std::span<std::byte> out, GuestOffset guest,
               HostOffset host) const noexcept {
    cipher_->encrypt(first_sector(guest, host), in, out);
  }

  /* "LUKS1 aes-xts-plain64 512-bit", "aes-cbc-plain64 128-bit" */
  const std::string& describe() const noexcept { return description_; }

 private:
  enum class Counts : uint8_t { guest, host };

  SectorNumber first_sector(GuestOffset guest, HostOffset host) const noexcept {
    return SectorNumber{(counts_ == Counts::host ? host.bytes : guest.bytes) / sector_bytes};
  }

  Qcow2Crypt(std::shared_ptr<const SectorCipher> cipher, Counts counts, std::string description,
             Keyring::Key key = nullptr)
      : cipher_(std::move(cipher)), counts_(counts), description_(std::move(description)), key_(std::move(key)) {}

  static Result<Qcow2Crypt> unlock_luks(BlockDevice& container, const HostRange& clusters, Keyring& keyring);
  static Result<Qcow2Crypt> unlock_aes(const Keyring& keyring);

  std::shared_ptr<const SectorCipher> cipher_;
  Counts counts_;
  std::string description_;
  Keyring::Key key_; /* held so that the keyring does not forget it */
};

} // namespace qluks

#endif
