/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/qcow2_crypt.hpp"

#include "base/window.hpp"

namespace qluks {

Result<Qcow2Crypt> Qcow2Crypt::unlock(BlockDevice& container, const Qcow2Header& header, Keyring& keyring) {
  Window clusters(container, header.encryption->at.bytes, header.encryption->length);
  auto luks = read_luks_header(clusters, HeaderPlace::in_qcow2);
  if (!luks) return propagate(luks);
  if (luks->version != 1) {
    return fail(Errc::unsupported, "LUKS version " + std::to_string(luks->version) +
                                       " inside of a qcow2 is not supported: QEMU knows version 1 only");
  }
  auto unlocked = keyring.unlock(*luks, clusters);
  if (!unlocked) return propagate(unlocked);
  const SecureBuffer& key = (*unlocked)->volume_key;
  auto cipher = make_sector_cipher(luks->cipher, key.span(), sector_bytes);
  if (!cipher) return propagate(cipher);
  return Qcow2Crypt(std::move(*cipher), "LUKS1 " + luks->cipher.name() + " " + std::to_string(key.size() * 8) + "-bit");
}

} // namespace qluks
