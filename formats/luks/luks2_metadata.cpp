/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/luks/luks2_metadata.hpp"

#include <algorithm>
#include <utility>

#include "base/checked.hpp"
#include "base/units.hpp"
#include "formats/luks/luks2_json.hpp"
#include "formats/luks/luks2_ondisk.hpp"
#include "formats/text.hpp"

namespace qluks {

namespace {

constexpr uint64_t keyslots_size_max = 128 << 20;

tl::unexpected<Error> invalid(std::string what) { return fail(Errc::invalid_format, std::move(what)); }

std::string numbered(std::string_view kind, uint32_t number) {
  return std::string(kind) + "." + std::to_string(number);
}

/* ── Decoding: one function for each kind of object ── */

void decode_config(const JsonFields& root, Luks2Metadata& metadata) {
  const JsonFields config = root.object("config");
  const uint64_t json_size = config.decimal("json_size");
  if (json_size != metadata.hdr_size - luks2_binary_bytes) {
    config.refuse("json_size",
                  std::to_string(json_size) + " does not fit the header's size " + std::to_string(metadata.hdr_size));
  }
  metadata.keyslots_size = config.decimal("keyslots_size");
  if (!is_aligned<uint64_t>(metadata.keyslots_size, 4096) || metadata.keyslots_size > keyslots_size_max) {
    config.refuse("keyslots_size", std::to_string(metadata.keyslots_size) + " is not a multiple of 4096, at most " +
                                       std::to_string(keyslots_size_max));
  }
  if (config.has("flags")) config.strings("flags");
  if (!config.has("requirements")) return;
  const JsonFields requirements = config.object("requirements");
  if (requirements.has("mandatory")) metadata.requirements = requirements.strings("mandatory");
}

/* Members that a kdf does not have are ignored, as cryptsetup does: converted slots carry some of their old kind. */
Luks2Kdf decode_kdf(const JsonFields& fields) {
  Luks2Kdf kdf;
  kdf.type = fields.string("type");
  if (kdf.type == "pbkdf2") {
    kdf.salt = fields.string("salt");
    kdf.hash = fields.string("hash");
    kdf.iterations = fields.integer("iterations");
  } else if (kdf.type == "argon2i" || kdf.type == "argon2id") {
    kdf.salt = fields.string("salt");
    kdf.time = fields.integer("time");
    kdf.memory_kib = fields.integer("memory");
    kdf.cpus = fields.integer("cpus");
  }
  return kdf;
}

Luks2Keyslot decode_keyslot(uint32_t number, const JsonFields& fields) {
  Luks2Keyslot slot;
  slot.number = number;
  slot.type = fields.string("type");
  slot.key_size = fields.integer("key_size");
  if (fields.has("priority")) slot.priority = fields.integer("priority");
  const JsonFields area = fields.object("area");
  slot.area.type = area.string("type");
  slot.area.offset = area.decimal("offset");
  slot.area.size = area.decimal("size");
  if (slot.type != "luks2") return slot;

  if (slot.area.type != "raw") area.refuse("type", in_quotes(slot.area.type) + " is not \"raw\"");
  slot.area.encryption = area.string("encryption");
  slot.area.key_size = area.integer("key_size");
  const JsonFields af = fields.object("af");
  const std::string af_type = af.string("type");
  if (af_type != "luks1") af.refuse("type", in_quotes(af_type) + " is not \"luks1\"");
  slot.af_stripes = af.integer("stripes");
  slot.af_hash = af.string("hash");
  slot.kdf = decode_kdf(fields.object("kdf"));
  return slot;
}

void decode_crypt_segment(const JsonFields& fields, Luks2Segment& segment) {
  segment.iv_tweak = fields.decimal("iv_tweak");
  segment.encryption = fields.string("encryption");
  segment.sector_size = fields.integer("sector_size");
  if (segment.sector_size == 0 || segment.sector_size % sector_bytes != 0) {
    fields.refuse("sector_size", std::to_string(segment.sector_size) + " is not a multiple of 512");
  } else if (segment.size && *segment.size % segment.sector_size != 0) {
    fields.refuse("size", std::to_string(*segment.size) + " is not a multiple of sector_size " +
                              std::to_string(segment.sector_size));
  }
  segment.has_integrity = fields.has("integrity");
  if (!segment.has_integrity) return;
  const JsonFields integrity = fields.object("integrity");
  for (const char* name : {"type", "journal_encryption", "journal_integrity"}) integrity.string(name);
}

Luks2Segment decode_segment(uint32_t number, const JsonFields& fields) {
  Luks2Segment segment;
  segment.number = number;
  segment.type = fields.string("type");
  segment.offset = fields.decimal("offset");
  if (fields.string("size") != "dynamic") segment.size = fields.decimal("size");
  if (!is_aligned<uint64_t>(segment.offset, sector_bytes)) {
    fields.refuse("offset", std::to_string(segment.offset) + " is not a multiple of 512");
  }
  if (segment.size && (*segment.size == 0 || !is_aligned<uint64_t>(*segment.size, sector_bytes))) {
    fields.refuse("size", std::to_string(*segment.size) + " is 0 or not a multiple of 512");
  }
  if (segment.size && !checked_add(segment.offset, *segment.size)) {
    fields.refuse(
        "size", std::to_string(*segment.size) + " from offset " + std::to_string(segment.offset) + " ends beyond 2^64");
  }
  if (fields.has("flags")) segment.flags = fields.strings("flags");
  if (segment.type == "crypt") decode_crypt_segment(fields, segment);
  return segment;
}

/* An array of names of objects that exist. */
template <class Object>
std::vector<uint32_t> decode_references(const JsonFields& fields, std::string_view name,
                                        const std::vector<Object>& objects) {
  std::vector<uint32_t> numbers;
  for (const std::string& text : fields.strings(name)) {
    const auto named =
        std::find_if(objects.begin(), objects.end(), [&](const Object& o) { return std::to_string(o.number) == text; });
    if (named == objects.end()) {
      fields.refuse(name, in_quotes(text) + " does not exist");
      return {};
    }
    numbers.push_back(named->number);
  }
  return numbers;
}

Luks2Digest decode_digest(uint32_t number, const JsonFields& fields, const Luks2Metadata& metadata) {
  Luks2Digest digest;
  digest.number = number;
  digest.type = fields.string("type");
  digest.keyslots = decode_references(fields, "keyslots", metadata.keyslots);
  digest.segments = decode_references(fields, "segments", metadata.segments);
  if (digest.type != "pbkdf2") return digest;
  digest.salt = fields.string("salt");
  digest.digest = fields.string("digest");
  digest.hash = fields.string("hash");
  digest.iterations = fields.integer("iterations");
  return digest;
}

void decode(const JsonFields& root, Luks2Metadata& metadata) {
  decode_config(root, metadata);
  for (const auto& [number, fields] : root.numbered("keyslots", luks2_objects_max)) {
    metadata.keyslots.push_back(decode_keyslot(number, fields));
  }
  for (const auto& [number, fields] : root.numbered("segments", luks2_objects_max)) {
    metadata.segments.push_back(decode_segment(number, fields));
  }
  for (const auto& [number, fields] : root.numbered("digests", luks2_objects_max)) {
    metadata.digests.push_back(decode_digest(number, fields, metadata));
  }
  metadata.tokens = root.text("tokens");
  for (const auto& [number, fields] : root.numbered("tokens", luks2_objects_max)) {
    fields.string("type");
    decode_references(fields, "keyslots", metadata.keyslots);
  }
}

/* ── Rules between objects ── */

/* The areas of all key slots, also of unknown types, lie in the keyslots area and do not meet. */
Status check_areas(const Luks2Metadata& metadata) {
  std::vector<const Luks2Keyslot*> slots;
  for (const Luks2Keyslot& slot : metadata.keyslots) {
    const auto end = checked_add(slot.area.offset, slot.area.size);
    if (slot.area.size == 0 || slot.area.offset < 2 * metadata.hdr_size || !end || *end > metadata.keyslots_end()) {
      return invalid(numbered("keyslots", slot.number) + ".area: " + std::to_string(slot.area.size) +
                     " bytes at offset " + std::to_string(slot.area.offset) + " are not inside the keyslots area (" +
                     std::to_string(2 * metadata.hdr_size) + " to " + std::to_string(metadata.keyslots_end()) + ")");
    }
    slots.push_back(&slot);
  }
  std::sort(slots.begin(), slots.end(),
            [](const Luks2Keyslot* a, const Luks2Keyslot* b) { return a->area.offset < b->area.offset; });
  for (size_t i = 1; i < slots.size(); ++i) {
    const Luks2Area& before = slots[i - 1]->area;
    if (before.offset + before.size <= slots[i]->area.offset) continue;
    return invalid(numbered("keyslots", slots[i]->number) + ".area overlaps that of " +
                   numbered("keyslots", slots[i - 1]->number));
  }
  return ok();
}

/* A key slot that can be opened is bound to exactly one digest. */
Status check_digests_of_keyslots(const Luks2Metadata& metadata) {
  for (const Luks2Keyslot& slot : metadata.keyslots) {
    if (slot.type != "luks2") continue;
    const auto count = std::count_if(metadata.digests.begin(), metadata.digests.end(), [&](const Luks2Digest& d) {
      return std::count(d.keyslots.begin(), d.keyslots.end(), slot.number) != 0;
    });
    if (count == 1) continue;
    return invalid(numbered("keyslots", slot.number) + " is in " + std::to_string(count) + " digests instead of one");
  }
  return ok();
}

/* Regular segments come first, numbered without gaps; only the last of them may be of dynamic size. */
Status check_segment_order(const Luks2Metadata& metadata) {
  const auto& segments = metadata.segments;
  for (size_t i = 0; i < segments.size(); ++i) {
    if (segments[i].number != i) return invalid("segments: there is no segment " + std::to_string(i));
    const bool last = i + 1 == segments.size() || segments[i + 1].is_backup();
    if (segments[i].is_backup()) continue;
    if (i != 0 && segments[i - 1].is_backup()) {
      return invalid(numbered("segments", segments[i].number) + " follows a backup segment");
    }
    if (!last && !segments[i].size) {
      return invalid(numbered("segments", segments[i].number) + ".size is dynamic, but it is not the last segment");
    }
  }
  if (segments.empty() || segments[0].is_backup()) return invalid("segments: there is none for data");
  return ok();
}

Status check_segment_overlap(const Luks2Metadata& metadata) {
  std::vector<const Luks2Segment*> regular;
  for (const Luks2Segment& s : metadata.segments) {
    if (!s.is_backup()) regular.push_back(&s);
  }
  std::sort(regular.begin(), regular.end(),
            [](const Luks2Segment* a, const Luks2Segment* b) { return a->offset < b->offset; });
  for (size_t i = 1; i < regular.size(); ++i) {
    const Luks2Segment& before = *regular[i - 1];
    if (before.size && before.offset + *before.size <= regular[i]->offset) continue;
    return invalid(numbered("segments", regular[i]->number) + " overlaps " + numbered("segments", before.number));
  }
  return ok();
}

Status check_digests_of_segments(const Luks2Metadata& metadata) {
  for (const Luks2Segment& segment : metadata.segments) {
    if (segment.type != "crypt") continue;
    const bool listed = std::any_of(metadata.digests.begin(), metadata.digests.end(), [&](const Luks2Digest& d) {
      return std::count(d.segments.begin(), d.segments.end(), segment.number) != 0;
    });
    if (!listed) return invalid(numbered("segments", segment.number) + " is in no digest");
  }
  return ok();
}

} // namespace

bool Luks2Segment::is_backup() const {
  return std::any_of(flags.begin(), flags.end(), [](const std::string& f) { return f.starts_with("backup-"); });
}

Result<Luks2Metadata> parse_luks2_metadata(std::string_view json, uint64_t hdr_size) {
  const Result<Json> root = parse_json(json);
  if (!root) return tl::unexpected(root.error());
  Luks2Metadata metadata;
  metadata.hdr_size = hdr_size;
  Status status = ok();
  decode(JsonFields(*root, "", status), metadata);
  if (!status) return propagate(status);
  std::sort(metadata.segments.begin(), metadata.segments.end(),
            [](const Luks2Segment& a, const Luks2Segment& b) { return a.number < b.number; });
  for (const auto check : {check_areas, check_digests_of_keyslots, check_segment_order, check_segment_overlap,
                           check_digests_of_segments}) {
    if (Status s = check(metadata); !s) return propagate(s);
  }
  return metadata;
}

} // namespace qluks
