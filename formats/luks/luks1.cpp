/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/luks/luks1.hpp"

#include <algorithm>
#include <optional>
#include <utility>

#include "base/checked.hpp"
#include "base/units.hpp"
#include "formats/luks/luks1_ondisk.hpp"
#include "formats/luks/text.hpp"
#include "formats/text.hpp"

namespace qluks {

namespace {

constexpr uint64_t header_bytes = 1024;

/* The unit in which key material is laid out, and where it may begin. */
struct Geometry {
  uint64_t first_sector;
  uint64_t unit_sectors;
};

constexpr Geometry cryptsetup_geometry = {header_bytes / sector_bytes, 1};
constexpr Geometry qemu_geometry = {8, 8};

/* Sectors [begin, end) of one slot's key material. */
struct Area {
  size_t slot;
  uint64_t begin;
  uint64_t end;
};

tl::unexpected<Error> invalid(std::string what) { return fail(Errc::invalid_format, "LUKS1 header: " + what); }

tl::unexpected<Error> invalid_slot(size_t slot, const std::string& what) {
  return invalid("key slot " + std::to_string(slot) + ": " + what);
}

Status check_strings(const Luks1PhdrOnDisk& phdr) {
  if (!terminated(phdr.cipher_name)) return invalid("the cipher name does not end within its 32 bytes");
  if (!terminated(phdr.cipher_mode)) return invalid("the cipher mode does not end within its 32 bytes");
  if (!terminated(phdr.hash_spec)) return invalid("the hash name does not end within its 32 bytes");
  return ok();
}

Result<const HashAlgorithm*> parse_hash(const Luks1PhdrOnDisk& phdr) {
  const std::string_view name = *terminated(phdr.hash_spec);
  if (const HashAlgorithm* hash = find_hash(name)) return hash;
  return fail(Errc::unsupported, "LUKS1 header: unknown hash " + in_quotes(name));
}

Result<CipherSpec> parse_cipher(const Luks1PhdrOnDisk& phdr) {
  const std::string name =
      std::string(*terminated(phdr.cipher_name)) + "-" + std::string(*terminated(phdr.cipher_mode));
  Result<CipherSpec> cipher = parse_cipher_spec(name);
  if (!cipher) return propagate(cipher, "LUKS1 header");
  if (!cipher->accepts_key_bytes(phdr.key_bytes)) {
    return invalid("key_bytes " + std::to_string(phdr.key_bytes) + " is no key size of " + cipher->name());
  }
  return cipher;
}

/* Why an area in use cannot be tried; cryptsetup leaves such a slot alone and opens by another one. */
std::optional<std::string> unusable(const Luks1KeyslotOnDisk& slot) {
  if (slot.active != luks1_slot_active) {
    return "its state is neither active nor inactive but " + std::to_string(slot.active);
  }
  if (slot.iterations == 0) return "iterations is 0";
  return std::nullopt;
}

/* No field here is wider than 32 bits, so none of the sums overflows. */
Area key_area(const Luks1PhdrOnDisk& phdr, size_t number, const Geometry& geometry) {
  const uint64_t bytes = uint64_t{phdr.key_bytes} * af_stripes;
  const uint64_t sectors = (bytes + sector_bytes - 1) / sector_bytes;
  const uint64_t begin = phdr.keyslots[number].key_material_offset;
  return {number, begin, begin + *checked_align_up(sectors, geometry.unit_sectors)};
}

/* The key material of all slots, used or not, lies behind the header, inside the device, and in front of the payload
 * if that is on the same device: `payload_sector` is 0 if not. */
Status check_area(const Area& area, const Geometry& geometry, uint64_t payload_sector, uint64_t device_bytes) {
  if (area.begin < geometry.first_sector) {
    return invalid_slot(area.slot, "key material at sector " + std::to_string(area.begin) +
                                       " overlaps the header, which ends at " + std::to_string(geometry.first_sector));
  }
  if (payload_sector != 0 && area.end > payload_sector) {
    return invalid_slot(area.slot, "key material ends at sector " + std::to_string(area.end) +
                                       ", behind the payload's start at " + std::to_string(payload_sector));
  }
  if (area.end > device_bytes / sector_bytes) {
    return invalid_slot(area.slot, "key material ends at sector " + std::to_string(area.end) +
                                       ", but the header's device has " + std::to_string(device_bytes / sector_bytes) +
                                       ": is the file cut short?");
  }
  return ok();
}

Status check_layout(const Luks1PhdrOnDisk& phdr, HeaderPlace place, uint64_t device_bytes) {
  const Geometry& geometry = place == HeaderPlace::in_qcow2 ? qemu_geometry : cryptsetup_geometry;
  if (place != HeaderPlace::detached && phdr.payload_offset < geometry.first_sector) {
    return invalid("payload_offset " + std::to_string(phdr.payload_offset) +
                   " overlaps the header (a detached header needs qluks-header=)");
  }
  const uint64_t payload_sector = place == HeaderPlace::detached ? 0 : uint64_t{phdr.payload_offset};
  std::array<Area, 8> areas{};
  for (size_t i = 0; i < areas.size(); ++i) {
    if (const uint32_t stripes = phdr.keyslots[i].stripes; stripes != af_stripes) {
      return invalid_slot(i, "stripes " + std::to_string(stripes) + " is not 4000");
    }
    areas[i] = key_area(phdr, i, geometry);
    if (Status s = check_area(areas[i], geometry, payload_sector, device_bytes); !s) return s;
  }
  std::sort(areas.begin(), areas.end(), [](const Area& a, const Area& b) { return a.begin < b.begin; });
  for (size_t i = 1; i < areas.size(); ++i) {
    if (areas[i].begin >= areas[i - 1].end) continue;
    return invalid_slot(areas[i].slot, "key material at sector " + std::to_string(areas[i].begin) +
                                           " overlaps that of key slot " + std::to_string(areas[i - 1].slot));
  }
  return ok();
}

LuksKeyslot decode_keyslot(const LuksHeader& header, const Luks1KeyslotOnDisk& slot, size_t number,
                           const HashAlgorithm* hash) {
  LuksKeyslot decoded;
  decoded.number = static_cast<uint32_t>(number);
  decoded.key_bytes = header.key_bytes;
  decoded.kdf = Pbkdf2Params{hash, slot.iterations};
  decoded.salt.assign(slot.salt.begin(), slot.salt.end());
  decoded.af_hash = hash;
  decoded.area_cipher = header.cipher;
  decoded.area_cipher.use = CipherUse::key_slot;
  decoded.area_key_bytes = header.key_bytes;
  decoded.area_offset = uint64_t{slot.key_material_offset} * sector_bytes;
  return decoded;
}

LuksHeader decode(const Luks1PhdrOnDisk& phdr, const CipherSpec& cipher, const HashAlgorithm* hash) {
  LuksHeader header;
  header.version = 1;
  header.uuid = shown(phdr.uuid);
  header.cipher = cipher;
  header.key_bytes = phdr.key_bytes;
  header.payload_offset = uint64_t{phdr.payload_offset} * sector_bytes;
  header.digests.push_back({hash,
                            phdr.digest_iterations,
                            {phdr.digest_salt.begin(), phdr.digest_salt.end()},
                            {phdr.digest.begin(), phdr.digest.end()}});
  for (size_t i = 0; i < phdr.keyslots.size(); ++i) {
    if (phdr.keyslots[i].active == luks1_slot_inactive) continue;
    if (auto reason = unusable(phdr.keyslots[i])) {
      header.skipped.push_back({static_cast<uint32_t>(i), std::move(*reason)});
    } else {
      header.keyslots.push_back(decode_keyslot(header, phdr.keyslots[i], i, hash));
    }
  }
  return header;
}

} // namespace

Result<LuksHeader> read_luks1(BlockDevice& device, HeaderPlace place) {
  if (device.size() < header_bytes) {
    return invalid("the device has " + std::to_string(device.size()) +
                   " bytes, the header alone takes 1024: is the file cut short?");
  }
  std::array<std::byte, sizeof(Luks1PhdrOnDisk)> bytes;
  if (Status s = device.read(bytes, 0); !s) return propagate(s);
  const auto phdr = load_on_disk<Luks1PhdrOnDisk>(bytes);
  if (phdr.magic != luks_magic || phdr.version != 1) return invalid("no magic and version 1");
  if (Status s = check_strings(phdr); !s) return propagate(s);
  const auto hash = parse_hash(phdr);
  if (!hash) return tl::unexpected(hash.error());
  const auto cipher = parse_cipher(phdr);
  if (!cipher) return tl::unexpected(cipher.error());
  if (phdr.digest_iterations == 0) return invalid("the iterations of the volume key's digest are 0");
  if (Status s = check_layout(phdr, place, device.size()); !s) return propagate(s);

  LuksHeader header = decode(phdr, *cipher, *hash);
  header.fingerprint = luks_fingerprint(std::array{Bytes(bytes)});
  return header;
}

} // namespace qluks
