/* SPDX-License-Identifier: BSD-3-Clause */
/* The secrets that the user gave, or a volume key, and what they have opened.
 *
 * Key derivation is meant to be expensive, and clients open several connections each, under any export name that
 * they like.  So the keyring remembers, for each LUKS header that it has met, the volume key or the refusal.  A
 * header is known by a digest over all its bytes and the key material of the slots that would be tried: a changed
 * header is a new one, and equal ones cost one derivation whatever the export is called.  One derivation runs at a
 * time in a process, since Argon2 may take gigabytes.
 */
#ifndef QLUKS_FORMATS_LUKS_KEYRING_HPP
#define QLUKS_FORMATS_LUKS_KEYRING_HPP

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/block_device.hpp"
#include "base/secure_buffer.hpp"
#include "formats/luks/header.hpp"
#include "formats/luks/kdf.hpp"

namespace qluks {

/* Finds a secret for one volume, such as a program that is run; called at most once for each volume, when all secrets
 * in front of it have failed, and not by two threads at once. */
using SecretSource = std::function<Result<SecureBuffer>(const LuksHeader&)>;

class Keyring {
 public:
  /* Secrets are tried in the order in which they were added.  Nothing here is called after the first unlock(). */
  void add_secret(SecureBuffer secret) { secrets_.push_back(std::move(secret)); }
  void add_secret_source(SecretSource source) { secrets_.push_back(std::move(source)); }
  /* The volume key itself: no secret and no key slot is tried, it only has to match a digest. */
  void use_volume_key(SecureBuffer key) { volume_key_ = std::move(key); }
  void use_only_slot(uint32_t slot) { only_slot_ = slot; }
  void set_kdf_limits(const KdfLimits& limits) { kdf_limits_ = limits; }

  bool has_secrets() const noexcept { return volume_key_ || !secrets_.empty(); }
  /* For a cipher that takes a secret as its key and cannot tell a wrong one; null: none was given, or a source of
   * secrets comes first, which only knows LUKS volumes. */
  const SecureBuffer* first_secret() const noexcept {
    return secrets_.empty() ? nullptr : std::get_if<SecureBuffer>(&secrets_.front());
  }

  /* The volume key, and the slot that gave it.  `device` is what `header` was read from.
   * Errc::wrong_passphrase when no secret opens any slot; I/O errors are not remembered. */
  struct Unlocked {
    SecureBuffer volume_key;
    std::optional<uint32_t> slot; /* none if the key was given */
  };
  using Key = std::shared_ptr<const Unlocked>;
  Result<Key> unlock(const LuksHeader& header, BlockDevice& device);

 private:
  using Slots = std::vector<const LuksKeyslot*>;
  using Materials = std::vector<std::vector<std::byte>>; /* of the slots, in their order */

  Result<Slots> slots_to_try(const LuksHeader& header) const;
  Result<Key> unlock_once(const std::string& fingerprint, const std::function<Result<Key>()>& work);
  std::optional<Result<Key>> recall(const std::string& fingerprint);
  void remember(const std::string& fingerprint, const Result<Key>& outcome);
  Result<Key> check_volume_key(const LuksHeader& header);
  Result<Key> derive(const LuksHeader& header, const Slots& slots, const Materials& materials);
  std::string refusal(const LuksHeader& header, const Slots& slots, const std::string& notes, size_t newlines) const;

  std::vector<std::variant<SecureBuffer, SecretSource>> secrets_;
  std::optional<SecureBuffer> volume_key_;
  std::optional<uint32_t> only_slot_;
  KdfLimits kdf_limits_;

  std::mutex derivation_mutex_; /* held while deriving; guards kdf_meter_ */
  KdfMeter kdf_meter_;

  std::mutex memory_mutex_; /* guards what follows; never held while working */
  std::map<std::string, Result<Key>> remembered_;
  std::deque<std::string> oldest_first_;
};

} // namespace qluks

#endif
