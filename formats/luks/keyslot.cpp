/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/luks/keyslot.hpp"

#include "base/checked.hpp"
#include "base/units.hpp"
#include "base/window.hpp"
#include "crypto/sector_cipher.hpp"
#include "formats/luks/af.hpp"

namespace qluks {

namespace {

size_t material_bytes(const LuksKeyslot& slot) noexcept { return size_t{slot.key_bytes} * af_stripes; }

Status derive(const LuksKeyslot& slot, Bytes secret, std::span<std::byte> key) {
  if (const auto* params = std::get_if<Pbkdf2Params>(&slot.kdf)) {
    return pbkdf2(*params->hash, secret, slot.salt, params->iterations, key);
  }
  const auto& params = std::get<Argon2Params>(slot.kdf);
  return argon2(params.type, secret, slot.salt, params.cost, key);
}

} // namespace

Result<std::vector<std::byte>> read_key_material(const LuksKeyslot& slot, BlockDevice& header_device) {
  const uint64_t length = *checked_align_up<uint64_t>(material_bytes(slot), sector_bytes);
  const std::string what = "key material of key slot " + std::to_string(slot.number);
  if (!range_fits(slot.area_offset, length, header_device.size())) {
    return past_the_end(what, slot.area_offset, length, header_device.size());
  }
  std::vector<std::byte> material(static_cast<size_t>(length));
  if (Status s = read_present(header_device, material, slot.area_offset, what); !s) return propagate(s);
  return material;
}

Result<std::optional<SecureBuffer>> open_keyslot(const LuksKeyslot& slot, const LuksDigest& digest, Bytes material,
                                                 Bytes secret) {
  SecureBuffer keyslot_key(slot.area_key_bytes);
  if (Status s = derive(slot, secret, keyslot_key.span()); !s) return propagate(s);
  const auto cipher = make_sector_cipher(slot.area_cipher, keyslot_key.span(), sector_bytes);
  if (!cipher) return tl::unexpected(cipher.error());

  SecureBuffer stripes(material.size());
  (*cipher)->decrypt(SectorNumber{0}, material, stripes.span());
  SecureBuffer key(slot.key_bytes);
  af_merge(*slot.af_hash, stripes.span().first(material_bytes(slot)), key.span());
  const auto matches = matches_digest(digest, key.span());
  if (!matches) return tl::unexpected(matches.error());
  if (!*matches) return std::nullopt;
  return key;
}

Result<bool> matches_digest(const LuksDigest& digest, Bytes key) {
  std::vector<std::byte> computed(digest.digest.size());
  if (Status s = pbkdf2(*digest.hash, key, digest.salt, digest.iterations, computed); !s) return propagate(s);
  return equal_constant_time(computed, digest.digest);
}

} // namespace qluks
