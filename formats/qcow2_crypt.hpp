/* SPDX-License-Identifier: BSD-3-Clause */
/* Encryption by the qcow2 itself: what is encrypted is the data of each cluster, never a table.
 *
 *      crypt_method 2    a LUKS1 header in clusters of its own; the tweak counts sectors of the host file
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
#include "formats/keyring.hpp"
#include "formats/qcow2_header.hpp"

namespace qluks {

class Qcow2Crypt {
 public:
  /* Unlock an image whose header says that it is encrypted. */
  static Result<Qcow2Crypt> unlock(BlockDevice& container, const Qcow2Header& header, Keyring& keyring);

  /* Whole sectors, in place. */
  void decrypt(std::span<std::byte> bytes, HostOffset at) const noexcept {
    cipher_->decrypt(SectorNumber{at.bytes / sector_bytes}, bytes, bytes);
  }

  /* "LUKS1 aes-xts-plain64 512-bit" */
  const std::string& describe() const noexcept { return description_; }

 private:
  Qcow2Crypt(std::shared_ptr<const SectorCipher> cipher, std::string description)
      : cipher_(std::move(cipher)), description_(std::move(description)) {}

  std::shared_ptr<const SectorCipher> cipher_;
  std::string description_;
};

} // namespace qluks

#endif
