/* SPDX-License-Identifier: BSD-3-Clause */
/* The secrets that the user gave, and what they have opened.
 *
 * Key derivation is meant to be expensive, and clients open several connections each, under any export name that
 * they like.  So the keyring remembers, for each LUKS header that it has met, the volume key or the refusal.  A
 * header is known by a digest over all its bytes and the key material of the slots that would be tried: a changed
 * header is a new one, and equal ones cost one derivation whatever the export is called.  One derivation runs at a
 * time in a process, since Argon2 may take gigabytes.
 */
#ifndef QLUKS_FORMATS_KEYRING_HPP
#define QLUKS_FORMATS_KEYRING_HPP

#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/block_device.hpp"
#include "base/secure_buffer.hpp"
#include "formats/luks_header.hpp"
#include "formats/luks_kdf.hpp"

namespace qluks {

class Keyring {
 public:
  /* Secrets are tried in the order in which they were added.  Nothing here is called after the first unlock(). */
  void add_secret(SecureBuffer secret) { secrets_.push_back(std::move(secret)); }
  void use_only_slot(uint32_t slot) { only_slot_ = slot; }
  void set_kdf_limits(const KdfLimits& limits) { kdf_limits_ = limits; }

  bool has_secrets() const noexcept { return !secrets_.empty(); }
  /* For a cipher that takes a secret as its key and cannot tell a wrong one; null: there is none. */
  const SecureBuffer* first_secret() const noexcept { return secrets_.empty() ? nullptr : &secrets_.front(); }

  /* The volume key, and the slot that gave it.  `device` is what `header` was read from.
   * Errc::wrong_passphrase when no secret opens any slot; I/O errors are not remembered. */
  struct Unlocked {
    SecureBuffer volume_key;
    uint32_t slot = 0;
  };
  using Key = std::shared_ptr<const Unlocked>;
  Result<Key> unlock(const LuksHeader& header, BlockDevice& device);

 private:
  using Slots = std::vector<const LuksKeyslot*>;
  using Materials = std::vector<std::vector<std::byte>>; /* of the slots, in their order */

  Result<Slots> slots_to_try(const LuksHeader& header) const;
  std::optional<Result<Key>> recall(const std::string& fingerprint);
  void remember(const std::string& fingerprint, const Result<Key>& outcome);
  Result<Key> derive(const LuksHeader& header, const Slots& slots, const Materials& materials);
  std::string refusal(const LuksHeader& header, const Slots& slots, const std::string& failures) const;

  std::vector<SecureBuffer> secrets_;
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
