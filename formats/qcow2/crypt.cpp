/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/qcow2/crypt.hpp"

#include <algorithm>

#include "base/log.hpp"
#include "base/window.hpp"

namespace qluks {

namespace {

constexpr size_t aes_key_bytes = 16;

std::string describe_cipher(const CipherSpec& spec, size_t key_bytes) {
  return spec.name() + " " + std::to_string(key_bytes * 8) + "-bit";
}

} // namespace

Result<Qcow2Crypt> Qcow2Crypt::unlock(BlockDevice& container, const Qcow2Header& header, Keyring& keyring) {
  if (header.crypt == Qcow2CryptMethod::aes) return unlock_aes(keyring);
  return unlock_luks(container, *header.encryption, keyring);
}

Result<Qcow2Crypt> Qcow2Crypt::unlock_luks(BlockDevice& container, const HostRange& clusters, Keyring& keyring) {
  if (clusters.at.bytes >= container.size()) {
    return past_the_end("qcow2 header: encryption header", clusters.at.bytes, clusters.length, container.size());
  }
  Window window(container, clusters.at.bytes, clusters.length);
  auto luks = read_luks_header(window, HeaderPlace::in_qcow2);
  if (!luks) return propagate(luks);
  auto unlocked = keyring.unlock(*luks, window);
  if (!unlocked) return propagate(unlocked);
  const SecureBuffer& key = (*unlocked)->volume_key;
  auto cipher = make_sector_cipher(luks->cipher, key.span(), sector_bytes);
  if (!cipher) return propagate(cipher);
  return Qcow2Crypt(std::move(*cipher), Counts::host, "LUKS1 " + describe_cipher(luks->cipher, key.size()), *unlocked);
}

/* The specification speaks of 256 bits; what QEMU writes is AES-128, the passphrase cut or zero-padded. */
Result<Qcow2Crypt> Qcow2Crypt::unlock_aes(const Keyring& keyring) {
  const SecureBuffer* secret = keyring.first_secret();
  if (secret == nullptr) {
    return fail(Errc::wrong_passphrase, "qcow2 header: crypt_method 1 (AES) needs a passphrase: use qluks-passphrase=");
  }
  log_warning(
      "qcow2: crypt_method 1 (AES-CBC without key derivation) is weak, and a wrong passphrase goes unnoticed: "
      "convert the image to LUKS");
  SecureBuffer key(aes_key_bytes);
  std::copy_n(secret->data(), std::min(secret->size(), key.size()), key.data());
  const CipherSpec spec{.cipher = BlockCipher::aes, .mode = CipherMode::cbc, .iv = IvKind::plain64};
  auto cipher = make_sector_cipher(spec, key.span(), sector_bytes);
  if (!cipher) return propagate(cipher);
  return Qcow2Crypt(std::move(*cipher), Counts::guest, describe_cipher(spec, key.size()));
}

} // namespace qluks
