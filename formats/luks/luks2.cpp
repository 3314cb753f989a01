/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/luks/luks2.hpp"

#include <algorithm>
#include <map>

#include "base/checked.hpp"
#include "base/log.hpp"
#include "base/units.hpp"
#include "formats/luks/luks2_binary.hpp"
#include "formats/luks/luks2_metadata.hpp"
#include "formats/luks/text.hpp"
#include "formats/text.hpp"

namespace qluks {

namespace {

constexpr size_t salt_bytes = 32;
constexpr size_t digest_bytes_min = 20; /* of a volume converted from LUKS1 */
constexpr uint32_t priority_normal = 1;
constexpr uint32_t priority_prefer = 2;

tl::unexpected<Error> invalid(std::string what) { return fail(Errc::invalid_format, std::move(what)); }
tl::unexpected<Error> unsupported(std::string what) { return fail(Errc::unsupported, std::move(what)); }

/* ── Which copy ── */

struct ValidCopy {
  Luks2Copy copy;
  Luks2Metadata metadata;
};

/* With a detached header the offset counts on the device of the payload alone. */
Status check_payload_offset(const Luks2Metadata& metadata, HeaderPlace place) {
  if (place == HeaderPlace::detached) return ok();
  for (const Luks2Segment& segment : metadata.segments) {
    if (segment.is_backup() || segment.offset >= metadata.keyslots_end()) continue;
    return invalid("segments." + std::to_string(segment.number) + ".offset " + std::to_string(segment.offset) +
                   " overlaps the header, which ends at " + std::to_string(metadata.keyslots_end()) +
                   " (a detached header needs qluks-header=)");
  }
  return ok();
}

Result<ValidCopy> validate(Result<Luks2Copy> copy, const BlockDevice& device, HeaderPlace place) {
  if (!copy) return propagate(copy);
  const auto json = copy->json_text();
  if (!json) return tl::unexpected(json.error());
  auto metadata = parse_luks2_metadata(*json, copy->hdr_size);
  if (!metadata) return propagate(metadata);
  if (metadata->keyslots_end() > device.size()) {
    return invalid("the header takes " + std::to_string(metadata->keyslots_end()) + " bytes, its device has " +
                   std::to_string(device.size()) + ": is the file cut short?");
  }
  if (Status s = check_payload_offset(*metadata, place); !s) return propagate(s);
  return ValidCopy{std::move(*copy), std::move(*metadata)};
}

void warn_about(std::string_view which, const Error& error, std::string_view used) {
  log_warning("LUKS2: the " + std::string(which) + " header is damaged (" + error.what + "): using the " +
              std::string(used) + " one; \"cryptsetup repair\" restores it");
}

Result<ValidCopy> choose_copy(BlockDevice& device, HeaderPlace place) {
  Result<Luks2Copy> first = read_luks2_copy(device, 0);
  if (!first && is_storage_failure(first.error())) return propagate(first);
  /* A primary copy with a good checksum says where the secondary one is, even if its JSON turns out to be bad. */
  Result<Luks2Copy> second = first ? read_luks2_copy(device, first->hdr_size) : find_luks2_secondary(device);
  if (!second && is_storage_failure(second.error())) return propagate(second);

  Result<ValidCopy> primary = validate(std::move(first), device, place);
  Result<ValidCopy> secondary = validate(std::move(second), device, place);
  if (!primary && !secondary) {
    return invalid("LUKS2: no valid header: primary: " + primary.error().what +
                   "; secondary: " + secondary.error().what);
  }
  if (!secondary) {
    warn_about("secondary", secondary.error(), "primary");
    return primary;
  }
  if (!primary) {
    warn_about("primary", primary.error(), "secondary");
    return secondary;
  }
  return secondary->copy.seqid > primary->copy.seqid ? std::move(secondary) : std::move(primary);
}

/* ── What is not served ── */

Status refuse_requirements(const Luks2Metadata& metadata) {
  if (metadata.requirements.empty()) return ok();
  std::string names;
  bool reencryption = false;
  for (const std::string& name : metadata.requirements) {
    names += (names.empty() ? "" : ", ") + in_quotes(name);
    reencryption = reencryption || name.find("-reencrypt") != std::string::npos;
  }
  return unsupported("requirement " + names + " is not supported" +
                     (reencryption ? ": a reencryption is in progress, finish it with \"cryptsetup reencrypt\"" : ""));
}

/* In every spelling that dm-crypt takes. */
bool is_null_cipher(std::string_view encryption) {
  return encryption == "null" || encryption.starts_with("null-") ||
         encryption.find("cipher_null") != std::string_view::npos;
}

Status refuse_segment(const Luks2Segment& segment) {
  const std::string where = "segment " + std::to_string(segment.number) + ": ";
  for (const std::string& flag : segment.flags) {
    if (flag == "in-reencryption" || flag.starts_with("backup-")) {
      return unsupported(where + "flag " + in_quotes(flag) + " is not supported: a reencryption is in progress");
    }
  }
  if (segment.type != "crypt") return unsupported(where + "type " + in_quotes(segment.type) + " is not supported");
  if (segment.has_integrity) return unsupported(where + "integrity (dm-integrity or inline tags) is not supported");
  return ok();
}

Status refuse_unsupported(const Luks2Metadata& metadata) {
  if (Status s = refuse_requirements(metadata); !s) return s;
  for (const Luks2Keyslot& slot : metadata.keyslots) {
    const std::string where = "key slot " + std::to_string(slot.number) + ": ";
    if (slot.type == "reencrypt") return unsupported(where + "type \"reencrypt\": a reencryption is in progress");
    if (is_null_cipher(slot.area.encryption)) {
      return unsupported(where + "null cipher " + in_quotes(slot.area.encryption) +
                         ": it would open with any passphrase");
    }
  }
  for (const Luks2Segment& segment : metadata.segments) {
    if (Status s = refuse_segment(segment); !s) return s;
  }
  return ok();
}

/* ── The payload ── */

/* Does `next` go on where `range` ends, as if it were one segment? */
bool continues(const Luks2Segment& range, const Luks2Segment& next, const Luks2Metadata& metadata) {
  const auto same_digests = [&](const Luks2Digest& d) {
    return std::count(d.segments.begin(), d.segments.end(), range.number) ==
           std::count(d.segments.begin(), d.segments.end(), next.number);
  };
  return next.encryption == range.encryption && next.sector_size == range.sector_size && range.size &&
         next.offset == range.offset + *range.size && next.iv_tweak == range.iv_tweak + *range.size / sector_bytes &&
         std::all_of(metadata.digests.begin(), metadata.digests.end(), same_digests);
}

/* All segments as one. */
Result<Luks2Segment> join_segments(const Luks2Metadata& metadata) {
  Luks2Segment range = metadata.segments.front();
  for (size_t i = 1; i < metadata.segments.size(); ++i) {
    const Luks2Segment& next = metadata.segments[i];
    if (!continues(range, next, metadata)) {
      return unsupported("segment " + std::to_string(next.number) +
                         " does not continue the one in front of it: several segments are only served as one range");
    }
    range.size = next.size ? std::optional(*range.size + *next.size) : std::nullopt;
  }
  return range;
}

Status set_payload(LuksHeader& header, const Luks2Segment& segment) {
  auto cipher = parse_cipher_spec(segment.encryption);
  if (!cipher) return propagate(cipher, "segment " + std::to_string(segment.number));
  if (segment.sector_size > 4096 || (segment.sector_size & (segment.sector_size - 1)) != 0) {
    return unsupported("segment " + std::to_string(segment.number) + ": sector_size " +
                       std::to_string(segment.sector_size) + " is none of 512, 1024, 2048, 4096");
  }
  if (segment.iv_tweak % (segment.sector_size / sector_bytes) != 0) {
    return invalid("segment " + std::to_string(segment.number) + ": iv_tweak " + std::to_string(segment.iv_tweak) +
                   " is not a multiple of the sector's " + std::to_string(segment.sector_size) + " bytes");
  }
  header.cipher = *cipher;
  header.sector_size = segment.sector_size;
  header.iv_tweak = segment.iv_tweak;
  header.payload_offset = segment.offset;
  header.payload_bytes = segment.size;
  return ok();
}

/* ── Key slots ── */

Result<const HashAlgorithm*> parse_hash(const std::string& name, const std::string& where) {
  if (const HashAlgorithm* hash = find_hash(name)) return hash;
  return unsupported(where + ": unknown hash " + in_quotes(name));
}

Result<std::vector<std::byte>> parse_salt(const std::string& text, const std::string& where) {
  auto salt = decode_base64(text);
  if (salt && salt->size() == salt_bytes) return std::move(*salt);
  return invalid(where + ": the salt is not base64 of 32 bytes");
}

Result<LuksDigest> decode_digest(const Luks2Digest& digest) {
  const std::string where = "digest " + std::to_string(digest.number);
  if (digest.type != "pbkdf2") return unsupported(where + ": unknown type " + in_quotes(digest.type));
  const auto hash = parse_hash(digest.hash, where);
  if (!hash) return tl::unexpected(hash.error());
  auto salt = parse_salt(digest.salt, where);
  if (!salt) return propagate(salt);
  auto bytes = decode_base64(digest.digest);
  if (!bytes || (bytes->size() != digest_bytes_min && bytes->size() != (*hash)->digest_bytes()) ||
      bytes->size() < digest_bytes_min) {
    return invalid(where + ": the digest is not base64 of 20 or " + std::to_string((*hash)->digest_bytes()) + " bytes");
  }
  if (digest.iterations == 0) return invalid(where + ": iterations is 0");
  return LuksDigest{*hash, digest.iterations, std::move(*salt), std::move(*bytes)};
}

Status decode_kdf(const Luks2Kdf& kdf, LuksKeyslot& slot) {
  if (kdf.type == "pbkdf2") {
    const auto hash = parse_hash(kdf.hash, "kdf");
    if (!hash) return tl::unexpected(hash.error());
    if (kdf.iterations == 0) return invalid("kdf: iterations is 0");
    slot.kdf = Pbkdf2Params{*hash, kdf.iterations};
  } else if (kdf.type == "argon2i" || kdf.type == "argon2id") {
    const auto type = kdf.type == "argon2i" ? Argon2Type::i : Argon2Type::id;
    slot.kdf = Argon2Params{type, {kdf.time, kdf.memory_kib, kdf.cpus}};
  } else {
    return unsupported("kdf: unknown type " + in_quotes(kdf.type));
  }
  auto salt = parse_salt(kdf.salt, "kdf");
  if (!salt) return propagate(salt);
  slot.salt = std::move(*salt);
  return ok();
}

Status decode_area(const Luks2Area& area, LuksKeyslot& slot) {
  const auto cipher = parse_cipher_spec(area.encryption, CipherUse::key_slot);
  if (!cipher) return fail(cipher.error().code, "area: " + cipher.error().what);
  if (!cipher->accepts_key_bytes(area.key_size)) {
    return invalid("area: key_size " + std::to_string(area.key_size) + " is no key size of " + cipher->name());
  }
  const uint64_t material_bytes = *checked_align_up<uint64_t>(uint64_t{slot.key_bytes} * af_stripes, sector_bytes);
  if (area.size < material_bytes) {
    return invalid("area: size " + std::to_string(area.size) + " does not hold the key material of " +
                   std::to_string(material_bytes) + " bytes");
  }
  slot.area_cipher = *cipher;
  slot.area_key_bytes = area.key_size;
  slot.area_offset = area.offset;
  return ok();
}

/* The slot as it will be tried, except for its digest. */
Result<LuksKeyslot> decode_keyslot(const Luks2Keyslot& slot, const CipherSpec& cipher) {
  LuksKeyslot decoded;
  decoded.number = slot.number;
  decoded.key_bytes = slot.key_size;
  decoded.only_when_named = slot.priority != priority_normal && slot.priority != priority_prefer;
  if (!cipher.accepts_key_bytes(slot.key_size)) {
    return invalid("key_size " + std::to_string(slot.key_size) + " is no key size of " + cipher.name());
  }
  if (Status s = decode_area(slot.area, decoded); !s) return propagate(s);
  if (Status s = decode_kdf(slot.kdf, decoded); !s) return propagate(s);
  const auto af_hash = parse_hash(slot.af_hash, "af");
  if (!af_hash) return tl::unexpected(af_hash.error());
  if (slot.af_stripes != af_stripes) {
    return invalid("af: stripes " + std::to_string(slot.af_stripes) + " is not " + std::to_string(af_stripes));
  }
  decoded.af_hash = *af_hash;
  return decoded;
}

const Luks2Digest& digest_of(const Luks2Keyslot& slot, const Luks2Metadata& metadata) {
  return *std::find_if(metadata.digests.begin(), metadata.digests.end(), [&](const Luks2Digest& d) {
    return std::count(d.keyslots.begin(), d.keyslots.end(), slot.number) != 0;
  });
}

/* A slot whose digest does not list the payload's segment is "unbound": it holds some other key. */
bool is_bound(const Luks2Digest& digest) { return std::count(digest.segments.begin(), digest.segments.end(), 0U) != 0; }

/* By number: where the digest is in LuksHeader::digests, or why it is not. */
using DigestIndex = std::map<uint32_t, Result<size_t>>;

DigestIndex add_digests(LuksHeader& header, const Luks2Metadata& metadata) {
  DigestIndex index;
  for (const Luks2Digest& digest : metadata.digests) {
    if (!is_bound(digest)) continue;
    Result<LuksDigest> decoded = decode_digest(digest);
    if (!decoded) {
      index.emplace(digest.number, propagate(decoded));
      continue;
    }
    index.emplace(digest.number, header.digests.size());
    header.digests.push_back(std::move(*decoded));
  }
  return index;
}

void add_keyslot(LuksHeader& header, const Luks2Keyslot& slot, const Result<size_t>& digest) {
  Result<LuksKeyslot> decoded = decode_keyslot(slot, header.cipher);
  if (!decoded || !digest) {
    header.skipped.push_back({slot.number, !decoded ? decoded.error().what : digest.error().what});
    return;
  }
  decoded->digest = *digest;
  header.keyslots.push_back(std::move(*decoded));
}

void add_keyslots(LuksHeader& header, const Luks2Metadata& metadata) {
  const DigestIndex digests = add_digests(header, metadata);
  std::vector<Luks2Keyslot> slots = metadata.keyslots;
  std::stable_partition(slots.begin(), slots.end(), [](const auto& slot) { return slot.priority == priority_prefer; });
  for (const Luks2Keyslot& slot : slots) {
    if (slot.type != "luks2") {
      header.skipped.push_back({slot.number, "unknown type " + in_quotes(slot.type)});
      continue;
    }
    const auto digest = digests.find(digest_of(slot, metadata).number);
    if (digest != digests.end()) add_keyslot(header, slot, digest->second);
  }
}

Result<LuksHeader> interpret(const ValidCopy& valid) {
  if (Status s = refuse_unsupported(valid.metadata); !s) return propagate(s);
  const auto segment = join_segments(valid.metadata);
  if (!segment) return tl::unexpected(segment.error());
  LuksHeader header;
  header.version = 2;
  header.uuid = valid.copy.uuid;
  header.label = valid.copy.label;
  header.tokens = valid.metadata.tokens;
  if (Status s = set_payload(header, *segment); !s) return propagate(s);
  add_keyslots(header, valid.metadata);
  header.fingerprint = luks_fingerprint(std::array{Bytes(valid.copy.bytes)});
  return header;
}

} // namespace

Result<LuksHeader> read_luks2(BlockDevice& device, HeaderPlace place) {
  Result<ValidCopy> valid = choose_copy(device, place);
  if (!valid) return propagate(valid);
  Result<LuksHeader> header = interpret(*valid);
  if (!header) return propagate(header, "LUKS2");
  return header;
}

} // namespace qluks
