/* SPDX-License-Identifier: BSD-3-Clause */
/* The secrets that the user gave, or a volume key, and what they have opened.
 *
 * Key derivation is meant to be expensive, and clients open several connections each, under any export name that
 * they like.  So the keyring remembers, for each LUKS header that it has met, the volume key or the refusal.  A
 * header is known by a digest over all its bytes and the key material of the slots that would be tried: a changed
 * header is a new one, and equal ones cost one derivation whatever the export is called.
 *
 *      unlock(header) ──known?──▶ the key, or the refusal
 *          └──being worked on?──▶ wait for that outcome
 *          └──else──▶ for each secret: find it (a program may run) ─▶ for each slot: through the KdfGate, derive
 *
 * No lock is held while any of that goes on: other headers go their own way, and a wait ends with the process.
 */
#ifndef QLUKS_FORMATS_LUKS_KEYRING_HPP
#define QLUKS_FORMATS_LUKS_KEYRING_HPP

#include <algorithm>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <variant>
#include <vector>

#include "base/block_device.hpp"
#include "base/secure_buffer.hpp"
#include "formats/luks/header.hpp"
#include "formats/luks/kdf.hpp"
#include "formats/luks/kdf_gate.hpp"
#include "formats/luks/outcome_memory.hpp"

namespace qluks {

/* Finds a secret for one volume, such as a program that is run; called when all secrets in front of it have failed, and
 * not by two threads at once for the same volume. */
using SecretSource = std::function<Result<SecureBuffer>(const LuksHeader&)>;

class Keyring {
 public:
  /* Secrets are tried in the order in which they were added.  Nothing here is called after the first unlock().
   * `newline_dropped`: the secret's file went on with one, which a refusal then says. */
  void add_secret(SecureBuffer secret, bool newline_dropped = false) {
    secrets_.push_back(std::move(secret));
    newline_dropped_ = newline_dropped_ || newline_dropped;
  }
  void add_secret_source(SecretSource source) { secrets_.push_back(std::move(source)); }
  /* The volume key itself: no secret and no key slot is tried, it only has to match a digest. */
  void use_volume_key(SecureBuffer key) { volume_key_ = std::move(key); }
  void use_only_slot(uint32_t slot) { only_slot_ = slot; }
  void set_kdf_limits(const KdfLimits& limits) {
    kdf_limits_ = limits;
    gate_.set_memory_max(limits.memory_bytes);
  }

  bool has_secrets() const noexcept { return volume_key_ || !secrets_.empty(); }
  /* For a cipher that takes a secret as its key and cannot tell a wrong one; null: none was given, or a source of
   * secrets comes first, which only knows LUKS volumes. */
  const SecureBuffer* first_secret() const noexcept {
    return secrets_.empty() ? nullptr : std::get_if<SecureBuffer>(&secrets_.front());
  }

  /* The volume key, and the slot that gave it.  `device` is what `header` was read from.
   * Errc::wrong_passphrase when no secret opens any slot.  That is remembered, as the key is; another failure of the
   * work, such as that of a program, for a moment; what the device fails to read is not.  A key that somebody else
   * still holds is not forgotten, however many headers come by. */
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
  Result<std::optional<SecureBuffer>> try_slot(const LuksHeader& header, const LuksKeyslot& slot, Bytes material,
                                               Bytes secret, const KdfCost& cost);
  Result<Key> check_volume_key(const LuksHeader& header);
  Result<Key> derive(const LuksHeader& header, const Slots& slots, const Materials& materials);
  std::string refusal(const LuksHeader& header, const Slots& slots, const std::string& notes,
                      const std::string& line_ends) const;
  std::string doubts(const std::string& line_ends) const;

  std::vector<std::variant<SecureBuffer, SecretSource>> secrets_;
  bool newline_dropped_ = false;
  std::optional<SecureBuffer> volume_key_;
  std::optional<uint32_t> only_slot_;
  KdfLimits kdf_limits_;

  std::mutex meter_mutex_; /* guards kdf_meter_; held for the moment of a measurement */
  KdfMeter kdf_meter_;
  KdfGate gate_{KdfLimits{}.memory_bytes, std::max(1U, std::thread::hardware_concurrency())};
  OutcomeMemory<Key> outcomes_;
};

} // namespace qluks

#endif
