/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/luks/keyring.hpp"

#include <utility>

#include "base/log.hpp"
#include "crypto/traces.hpp"
#include "formats/luks/keyslot.hpp"
#include "formats/text.hpp"

namespace qluks {

namespace {

std::string volume_name(const LuksHeader& header) {
  return "LUKS" + std::to_string(header.version) + " volume " + in_quotes(header.uuid);
}

std::string count_of(size_t n, const std::string& what) { return std::to_string(n) + " " + what + (n == 1 ? "" : "s"); }

/* "key slot 3: unknown hash …; key slot 4: …" for the slots that could not be tried. */
std::string skipped_slots(const LuksHeader& header, std::optional<uint32_t> only_slot) {
  std::string text;
  for (const LuksSkippedSlot& slot : header.skipped) {
    if (only_slot && slot.number != *only_slot) continue;
    text += "; key slot " + std::to_string(slot.number) + " is not tried: " + slot.reason;
  }
  return text;
}

std::string fingerprint_of(const LuksHeader& header, const std::vector<const LuksKeyslot*>& slots,
                           const std::vector<std::vector<std::byte>>& materials) {
  std::vector<Bytes> pieces = {header.fingerprint};
  for (size_t i = 0; i < slots.size(); ++i) {
    pieces.push_back(std::as_bytes(std::span(&slots[i]->number, 1)));
    pieces.push_back(materials[i]);
  }
  const std::vector<std::byte> digest = luks_fingerprint(pieces);
  return {reinterpret_cast<const char*>(digest.data()), digest.size()};
}

/* Errors that are no property of the slot. */
bool stops_trying(Errc code) { return code == Errc::no_memory || code == Errc::shutting_down; }

/* A line end at the end of a secret, which is seldom meant; nothing else of it. */
std::string line_end_of(Bytes secret) {
  if (!secret.empty() && secret.back() == std::byte{'\n'}) return "\n";
  return !secret.empty() && secret.back() == std::byte{'\r'} ? "\r" : "";
}

} // namespace

Result<Keyring::Slots> Keyring::slots_to_try(const LuksHeader& header) const {
  Slots slots;
  for (const LuksKeyslot& slot : header.keyslots) {
    if (only_slot_ ? slot.number == *only_slot_ : !slot.only_when_named) slots.push_back(&slot);
  }
  if (!slots.empty()) return slots;
  const std::string skipped = skipped_slots(header, only_slot_);
  const std::string what = only_slot_ ? ": key slot " + std::to_string(*only_slot_) + " holds no key of the payload"
                                      : std::string(": no key slot can be tried");
  return fail(skipped.empty() ? Errc::wrong_passphrase : Errc::unsupported, volume_name(header) + what + skipped);
}

Result<Keyring::Key> Keyring::unlock(const LuksHeader& header, BlockDevice& device) {
  if (volume_key_) {
    const std::string fingerprint = fingerprint_of(header, {}, {});
    return unlock_once(fingerprint, [&] { return check_volume_key(header); });
  }
  const auto slots = slots_to_try(header);
  if (!slots) return tl::unexpected(slots.error());
  if (secrets_.empty()) {
    return fail(Errc::wrong_passphrase,
                volume_name(header) + " needs a secret: use qluks-passphrase or qluks-key-file");
  }
  Materials materials;
  for (const LuksKeyslot* slot : *slots) {
    auto material = read_key_material(*slot, device);
    if (!material) return propagate(material);
    materials.push_back(std::move(*material));
  }
  const std::string fingerprint = fingerprint_of(header, *slots, materials);
  return unlock_once(fingerprint, [&] { return derive(header, *slots, materials); });
}

Result<Keyring::Key> Keyring::unlock_once(const std::string& fingerprint, const std::function<Result<Key>()>& work) {
  return outcomes_.get(fingerprint, [&] {
    const KeyTraces wiped;
    return work();
  });
}

Result<Keyring::Key> Keyring::check_volume_key(const LuksHeader& header) {
  if (!header.cipher.accepts_key_bytes(volume_key_->size())) {
    return fail(Errc::wrong_passphrase, volume_name(header) + ": the volume key has " +
                                            std::to_string(volume_key_->size()) + " bytes, which is no key size of " +
                                            header.cipher.name());
  }
  auto cost = [&] {
    const std::lock_guard lock(meter_mutex_);
    return kdf_meter_.check_digests(header, kdf_limits_);
  }();
  if (!cost) return propagate(cost, volume_name(header));
  auto pass = gate_.enter(*cost);
  if (!pass) return propagate(pass, volume_name(header));
  log_debug(volume_name(header) + ": comparing the volume key with its digest");
  for (const LuksDigest& digest : header.digests) {
    auto matches = matches_digest(digest, volume_key_->span());
    if (!matches) return propagate(matches, volume_name(header));
    if (!*matches) continue;
    log_debug(volume_name(header) + ": the volume key matches its digest");
    return std::make_shared<const Unlocked>(Unlocked{SecureBuffer::copy_of(volume_key_->span()), std::nullopt});
  }
  return fail(Errc::wrong_passphrase,
              volume_name(header) + ": the volume key is not the one that its header describes");
}

Result<Keyring::Key> Keyring::derive(const LuksHeader& header, const Slots& slots, const Materials& materials) {
  auto costs = [&] {
    const std::lock_guard lock(meter_mutex_);
    return kdf_meter_.check(header, slots, secrets_.size(), kdf_limits_);
  }();
  if (!costs) return propagate(costs, volume_name(header));
  std::string notes;
  std::string line_ends;
  size_t derivations = 0;
  for (const auto& given : secrets_) {
    Result<SecureBuffer> found; /* holds what a source gave until it has been tried */
    if (const auto* source = std::get_if<SecretSource>(&given)) found = (*source)(header);
    if (!found) return propagate(found, volume_name(header));
    const auto* kept = std::get_if<SecureBuffer>(&given);
    const Bytes secret = kept != nullptr ? kept->span() : std::as_const(*found).span();
    line_ends += line_end_of(secret);
    for (size_t i = 0; i < slots.size(); ++i) {
      const LuksKeyslot& slot = *slots[i];
      ++derivations;
      auto key = try_slot(header, slot, materials[i], secret, (*costs)[i]);
      if (!key && stops_trying(key.error().code)) return propagate(key, volume_name(header));
      if (!key) notes += "; key slot " + std::to_string(slot.number) + ": " + key.error().what;
      if (!key || !*key) continue;
      log_debug(volume_name(header) + ": key slot " + std::to_string(slot.number) + " (" + describe_kdf(slot) +
                ") opened after " + count_of(derivations, "derivation"));
      return std::make_shared<const Unlocked>(Unlocked{std::move(**key), slot.number});
    }
  }
  log_debug(volume_name(header) + ": refused after " + count_of(derivations, "derivation"));
  return fail(Errc::wrong_passphrase, refusal(header, slots, notes, line_ends));
}

Result<std::optional<SecureBuffer>> Keyring::try_slot(const LuksHeader& header, const LuksKeyslot& slot, Bytes material,
                                                      Bytes secret, const KdfCost& cost) {
  const auto pass = gate_.enter(cost);
  if (!pass) return tl::unexpected(pass.error());
  return open_keyslot(slot, header.digests[slot.digest], material, secret);
}

std::string Keyring::refusal(const LuksHeader& header, const Slots& slots, const std::string& notes,
                             const std::string& line_ends) const {
  std::string text = volume_name(header) + ": no key slot opens: " + count_of(secrets_.size(), "secret") +
                     " tried on " + count_of(slots.size(), "key slot") + " (";
  for (const LuksKeyslot* slot : slots) text += (slot == slots.front() ? "" : ", ") + std::to_string(slot->number);
  return text + ")" + notes + skipped_slots(header, only_slot_) + doubts(line_ends);
}

/* What may be wrong with the secrets, to the eye that cannot see them. */
std::string Keyring::doubts(const std::string& line_ends) const {
  const std::string ends = secrets_.size() == 1 ? "; the secret ends" : "; one of the secrets ends";
  std::string text;
  if (line_ends.find('\n') != std::string::npos) {
    text += ends + " in a newline, which counts: write it with \"printf %s\" rather than \"echo\"";
  }
  if (line_ends.find('\r') != std::string::npos) {
    text += ends + " in a carriage return, which counts: was its file written with the line ends of Windows?";
  }
  if (newline_dropped_) {
    text += "; the newline behind the passphrase was dropped: qluks-key-file= keeps it, as QEMU's secret,file= does";
  }
  return text;
}

} // namespace qluks
