/* SPDX-License-Identifier: BSD-3-Clause */
/* What the metadata of a LUKS2 header may say: one change to a valid volume each, made to both copies with right
 * checksums, and the verdict. */
#include "formats/luks/luks2.hpp"
#include "formats/luks/keyring.hpp"

#include <gtest/gtest.h>

#include <functional>

#include "formats/luks/layer.hpp"
#include "tests/support/luks_builder.hpp"
#include "tests/support/memory_device.hpp"

namespace qluks {
namespace {

using Json = nlohmann::ordered_json;
using test::Luks2Volume;
using test::make_luks2;
using test::MemoryDevice;
using test::set_text;
using Change = std::function<void(Luks2Volume&)>;

/* What comes of opening the volume with its secret. */
struct Case {
  std::string name;
  std::optional<Errc> refused;
  std::string message;
  Change change;
  HeaderPlace place = HeaderPlace::attached;
};

void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

Case opens(std::string name, Change change) { return {std::move(name), std::nullopt, "", std::move(change)}; }

Case invalid(std::string name, std::string message, Change change) {
  return {std::move(name), Errc::invalid_format, std::move(message), std::move(change)};
}

Case unsupported(std::string name, std::string message, Change change) {
  return {std::move(name), Errc::unsupported, std::move(message), std::move(change)};
}

Case detached(Case c) {
  c.place = HeaderPlace::detached;
  return c;
}

/* Set one member. */
Change set(const std::string& pointer, Json value) {
  return [=](Luks2Volume& v) { v.json[Json::json_pointer(pointer)] = value; };
}

Change remove(const std::string& object, const std::string& member) {
  return [=](Luks2Volume& v) { v.json[Json::json_pointer(object)].erase(member); };
}

/* Replace the first `from` in the text. */
Change edit_text(const std::string& from, const std::string& to) {
  return [=](Luks2Volume& v) {
    v.text = v.json.dump();
    v.text.replace(v.text.find(from), from.size(), to);
  };
}

/* Of the dynamic segment, at 8 KiB. */
void split_segment(Luks2Volume& v) { v.split_segment(8192); }

/* ... and change the second half. */
Change split_and_set(const std::string& member, Json value) {
  return [=](Luks2Volume& v) {
    split_segment(v);
    v.json["segments"]["1"][member] = value;
  };
}

/* A second key slot that is a copy of the first. */
void add_slot(Luks2Volume& v) {
  v.json["keyslots"]["1"] = v.slot();
  v.json["keyslots"]["1"]["area"]["offset"] = std::to_string(32768 + 131072);
  v.digest()["keyslots"].push_back("1");
}

Change add_slot_and_set(const std::string& pointer, Json value) {
  return [=](Luks2Volume& v) {
    add_slot(v);
    v.json["keyslots"]["1"][Json::json_pointer(pointer)] = value;
  };
}

const std::string slot = "/keyslots/0", area = "/keyslots/0/area", af = "/keyslots/0/af", kdf = "/keyslots/0/kdf",
                  segment = "/segments/0", digest = "/digests/0";

std::vector<Case> text_cases() {
  return {
      opens("WhiteSpaceBehindText", [](Luks2Volume& v) { v.text = v.json.dump() + " \n\t "; }),
      opens("IndentedText", [](Luks2Volume& v) { v.text = v.json.dump(2); }),
      invalid("SpaceInFrontOfText", "JSON: the first byte is not '{'",
              [](Luks2Volume& v) { v.text = " " + v.json.dump(); }),
      invalid("TopLevelArray", "the first byte is not '{'", [](Luks2Volume& v) { v.text = "[]"; }),
      invalid("EmptyText", "the first byte is not '{'", [](Luks2Volume& v) { v.text = std::string(1, '\0'); }),
      invalid("TextFillsArea", "no NUL ends the text",
              [](Luks2Volume& v) { v.text = v.json.dump().append(12288 - v.json.dump().size(), ' '); }),
      invalid("BytesBehindNul", "bytes other than NUL follow",
              [](Luks2Volume& v) { v.text = v.json.dump() + std::string("\0x", 2); }),
      invalid("ByteAtEndOfArea", "bytes other than NUL follow",
              [](Luks2Volume& v) {
                v.text = v.json.dump();
                v.text.append(12287 - v.text.size(), '\0').append("x");
              }),
      invalid("SecondObject", "syntax error", [](Luks2Volume& v) { v.text = v.json.dump() + "{}"; }),
      invalid("UnclosedObject", "syntax error",
              [](Luks2Volume& v) { v.text = v.json.dump().substr(0, v.json.dump().size() - 1); }),
      invalid("DuplicateMember", "member \"sector_size\" appears twice",
              edit_text("\"sector_size\":", "\"sector_size\":512,\"sector_size\":")),
      invalid("DuplicateKeyslot", "member \"0\" appears twice", edit_text("\"keyslots\":{", "\"keyslots\":{\"0\":{},")),
      invalid("DeepToken", "nested deeper than 32",
              [](Luks2Volume& v) {
                v.text = v.json.dump();
                v.text.insert(1, "\"x\":" + std::string(32, '[') + std::string(32, ']') + ",");
              }),
      opens("NestedUnknownMember",
            [](Luks2Volume& v) {
              v.text = v.json.dump();
              v.text.insert(1, "\"x\":" + std::string(15, '[') + std::string(15, ']') + ",");
            }),
      opens("UnknownMembers",
            [](Luks2Volume& v) { v.json["x"] = v.slot()["x"] = v.segment()["x"] = v.digest()["x"] = 1; }),
  };
}

std::vector<Case> config_cases() {
  std::vector<Case> cases = {
      opens("Unchanged", [](Luks2Volume&) {}),
      detached(opens("UnchangedDetached", [](Luks2Volume&) {})),
      opens("ConfigFlags", set("/config/flags", {"allow-discards", "no-such-flag"})),
      opens("NoRequirements", set("/config/requirements", Json::object())),
      opens("EmptyRequirements", set("/config/requirements", {{"mandatory", Json::array()}})),
      invalid("FlagsNotArray", "config.flags: not an array", set("/config/flags", "allow-discards")),
      invalid("FlagNotString", "config.flags: an element is not a string", set("/config/flags", {1})),
      invalid("RequirementsArray", "config.requirements: not an object", set("/config/requirements", {"opal"})),
      invalid("MandatoryNotArray", "config.requirements.mandatory: not an array",
              set("/config/requirements", {{"mandatory", "opal"}})),
      invalid("MandatoryNotString", "mandatory: an element is not a string",
              set("/config/requirements", {{"mandatory", {1}}})),
      invalid("JsonSizeMissing", "config.json_size: missing", remove("/config", "json_size")),
      invalid("JsonSizeNumber", "config.json_size: not a string", set("/config/json_size", 12288)),
      invalid("JsonSizeOfOtherHeader", "config.json_size: 28672 does not fit the header's size 16384",
              set("/config/json_size", "28672")),
      invalid("KeyslotsSizeMissing", "config.keyslots_size: missing", remove("/config", "keyslots_size")),
      invalid("KeyslotsSizeUnaligned", "keyslots_size: 262145 is not a multiple of 4096",
              set("/config/keyslots_size", "262145")),
      invalid("KeyslotsSizeAbove128M", "keyslots_size: 134221824", set("/config/keyslots_size", "134221824")),
      invalid("KeyslotsSizeHuge", "keyslots_size: 18446744073709547520",
              set("/config/keyslots_size", "18446744073709547520")),
      invalid("KeyslotsSizeBehindDevice", "the header takes 1081344 bytes, its device has 360448",
              [](Luks2Volume& v) {
                v.json["config"]["keyslots_size"] = "1048576";
                v.segment()["offset"] = "2097152";
              }),
      invalid("KeyslotsSizeReachesPayload", "overlaps the header, which ends at 303104",
              set("/config/keyslots_size", "270336")),
  };
  for (const char* name : {"config", "keyslots", "segments", "digests", "tokens"}) {
    cases.push_back(invalid(std::string("No_") + name, std::string(name) + ": missing", remove("", name)));
    cases.push_back(invalid(std::string("Array_") + name, std::string(name) + ": not an object",
                            set(std::string("/") + name, Json::array())));
  }
  for (const char* name : {"online-reencrypt", "online-reencrypt-v2", "online-reencrypt-v3", "offline-reencrypt"}) {
    std::string title = std::string("Requirement_") + name;
    std::replace(title.begin(), title.end(), '-', '_');
    cases.push_back(unsupported(title, std::string("requirement \"") + name + "\" is not supported: a reencryption",
                                set("/config/requirements", {{"mandatory", {name}}})));
  }
  for (const char* name : {"opal", "opal-v2", "inline-hw-tags", "no-such-thing", ""}) {
    std::string title = std::string("Requirement_") + name;
    std::replace(title.begin(), title.end(), '-', '_');
    cases.push_back(unsupported(title, std::string("requirement \"") + name + "\" is not supported",
                                set("/config/requirements", {{"mandatory", {name}}})));
  }
  return cases;
}

std::vector<Case> segment_cases() {
  return {
      opens("FixedSize", set(segment + "/size", "65536")),
      opens("EmptySegmentFlags", set(segment + "/flags", Json::array())),
      opens("UnknownSegmentFlag", set(segment + "/flags", {"no-such-flag"})),
      opens("TwoSegmentsAsOneRange", split_segment),
      invalid("NoSegments", "segments: there is none for data",
              [](Luks2Volume& v) {
                v.json["segments"] = Json::object();
                v.digest()["segments"] = Json::array();
              }),
      invalid("SegmentNamedByWord", "segments: name \"zero\" is not a number",
              [](Luks2Volume& v) { v.json["segments"]["zero"] = v.segment(); }),
      invalid("SegmentNegative", "segments: name \"-1\"",
              [](Luks2Volume& v) { v.json["segments"]["-1"] = v.segment(); }),
      invalid("SegmentNamed00", "segments: name \"00\"",
              [](Luks2Volume& v) { v.json["segments"]["00"] = v.segment(); }),
      invalid("Segment32", "segments: name \"32\" is not a number below 32",
              [](Luks2Volume& v) { v.json["segments"]["32"] = v.segment(); }),
      invalid("SegmentNumbersHaveAGap", "segments: there is no segment 1",
              [](Luks2Volume& v) {
                split_segment(v);
                v.json["segments"]["2"] = v.json["segments"]["1"];
                v.json["segments"].erase("1");
                v.digest()["segments"] = {"0", "2"};
              }),
      invalid("SegmentsStartAt1", "there is no segment 0",
              [](Luks2Volume& v) {
                v.json["segments"]["1"] = v.segment();
                v.json["segments"].erase("0");
                v.digest()["segments"] = {"1"};
              }),
      invalid("SegmentNotObject", "segments.0 is not an object", set(segment, 1)),
      invalid("SegmentWithoutType", "segments.0.type: missing", remove(segment, "type")),
      invalid("SegmentTypeEmpty", "segments.0.type: empty", set(segment + "/type", "")),
      invalid("SegmentTypeNumber", "segments.0.type: not a string", set(segment + "/type", 1)),
      invalid("SegmentWithoutOffset", "segments.0.offset: missing", remove(segment, "offset")),
      invalid("SegmentOffsetNumber", "segments.0.offset: not a string", set(segment + "/offset", 294912)),
      invalid("SegmentOffsetNegative", "segments.0.offset: \"-512\"", set(segment + "/offset", "-512")),
      invalid("SegmentOffsetHex", "segments.0.offset: \"0x48000\"", set(segment + "/offset", "0x48000")),
      invalid("SegmentOffsetAbove64Bits", "\"18446744073709551616\" is not a decimal",
              set(segment + "/offset", "18446744073709551616")),
      invalid("SegmentOffsetUnaligned", "segments.0.offset: 294913 is not a multiple of 512",
              set(segment + "/offset", "294913")),
      invalid("SegmentOffset0", "offset 0 overlaps the header", set(segment + "/offset", "0")),
      detached(opens("SegmentOffset0Detached", set(segment + "/offset", "0"))),
      invalid("SegmentInHeader", "segments.0.offset 294400 overlaps the header, which ends at 294912",
              set(segment + "/offset", "294400")),
      invalid("SegmentWithoutSize", "segments.0.size: missing", remove(segment, "size")),
      invalid("SegmentSize0", "segments.0.size: 0 is 0 or not a multiple", set(segment + "/size", "0")),
      invalid("SegmentSizeUnaligned", "segments.0.size: 513", set(segment + "/size", "513")),
      invalid("SegmentSizeNegative", "segments.0.size: \"-1\"", set(segment + "/size", "-1")),
      invalid("SegmentSizeWord", "segments.0.size: \"static\"", set(segment + "/size", "static")),
      invalid("SegmentSizeEmpty", "segments.0.size: empty", set(segment + "/size", "")),
      invalid("SegmentEndOverflows", "ends beyond 2^64", set(segment + "/size", "18446744073709551104")),
      invalid("SegmentBehindDevice", "the payload starts at byte 1099511627776, behind the device",
              set(segment + "/offset", "1099511627776")),
      invalid("SegmentEndsBehindDevice", "the payload of 66048 bytes at byte 294912 ends behind the device",
              set(segment + "/size", "66048")),
      invalid("SegmentFlagsNotArray", "segments.0.flags: not an array", set(segment + "/flags", "x")),
      invalid("SegmentFlagNotString", "segments.0.flags: an element", set(segment + "/flags", {1})),
      invalid("SegmentInNoDigest", "segments.0 is in no digest",
              [](Luks2Volume& v) { v.digest()["segments"] = Json::array(); }),
      invalid("SegmentWithoutTweak", "segments.0.iv_tweak: missing", remove(segment, "iv_tweak")),
      invalid("SegmentTweakNumber", "segments.0.iv_tweak: not a string", set(segment + "/iv_tweak", 0)),
      invalid("SegmentTweakNegative", "segments.0.iv_tweak: \"-1\"", set(segment + "/iv_tweak", "-1")),
      invalid("SegmentTweakInsideSector", "iv_tweak 9 is not a multiple of the sector's 4096 bytes",
              [](Luks2Volume& v) {
                v.segment()["sector_size"] = 4096;
                v.segment()["iv_tweak"] = "9";
              }),
      invalid("SegmentWithoutEncryption", "segments.0.encryption: missing", remove(segment, "encryption")),
      invalid("SegmentEncryptionEmpty", "segments.0.encryption: empty", set(segment + "/encryption", "")),
      unsupported("SegmentCipherUnknown", "segment 0: cipher \"rot13-xts-plain64\"",
                  set(segment + "/encryption", "rot13-xts-plain64")),
      unsupported("SegmentCipherNull", "null cipher", set(segment + "/encryption", "cipher_null-ecb")),
      unsupported("SegmentCipherNullShort", "null", set(segment + "/encryption", "null")),
      opens("SegmentCipherCapi", set(segment + "/encryption", "capi:xts(aes)-plain64")),
      unsupported("SegmentCipherNullCapi", "null cipher", set(segment + "/encryption", "capi:ecb(cipher_null)-null")),
      unsupported("SegmentCipherEmptyParts", "cipher", set(segment + "/encryption", "--")),
      invalid("SectorSizeMissing", "segments.0.sector_size: missing", remove(segment, "sector_size")),
      invalid("SectorSizeString", "segments.0.sector_size: not an integer", set(segment + "/sector_size", "512")),
      invalid("SectorSize0", "segments.0.sector_size: 0 is not a multiple of 512", set(segment + "/sector_size", 0)),
      invalid("SectorSizeNegative", "segments.0.sector_size: -512", set(segment + "/sector_size", -512)),
      invalid("SectorSize513", "segments.0.sector_size: 513", set(segment + "/sector_size", 513)),
      invalid("SectorSizeAbove32Bits", "sector_size: 4294967808 is not between",
              set(segment + "/sector_size", 4294967808)),
      unsupported("SectorSize1536", "sector_size 1536 is none of 512", set(segment + "/sector_size", 1536)),
      unsupported("SectorSize8192", "sector_size 8192 is none of 512", set(segment + "/sector_size", 8192)),
      invalid("SizeIsNoMultipleOfSectorSize", "segments.0.size: 512 is not a multiple of sector_size 4096",
              [](Luks2Volume& v) {
                v.segment()["sector_size"] = 4096;
                v.segment()["size"] = "512";
              }),
      unsupported("SegmentLinear", "segment 0: type \"linear\" is not supported", set(segment + "/type", "linear")),
      unsupported("SegmentOpal", "segment 0: type \"hw-opal\" is not supported", set(segment + "/type", "hw-opal")),
      unsupported("SegmentOpalCrypt", "type \"hw-opal-crypt\"", set(segment + "/type", "hw-opal-crypt")),
      unsupported("SegmentUnknownType", "type \"no-such-type\"", set(segment + "/type", "no-such-type")),
      unsupported("SegmentInReencryption", "flag \"in-reencryption\"", set(segment + "/flags", {"in-reencryption"})),
      unsupported("SegmentIntegrity", "segment 0: integrity",
                  set(segment + "/integrity",
                      {{"type", "hmac(sha256)"}, {"journal_encryption", "none"}, {"journal_integrity", "none"}})),
      invalid("IntegrityNotObject", "segments.0.integrity: not an object", set(segment + "/integrity", "aead")),
      invalid("IntegrityWithoutJournal", "segments.0.integrity.journal_encryption: missing",
              set(segment + "/integrity", {{"type", "aead"}})),
      unsupported("BackupSegment", "segment 1: flag \"backup-final\"",
                  [](Luks2Volume& v) {
                    v.json["segments"]["1"] = v.segment();
                    v.json["segments"]["1"]["flags"] = {"backup-final"};
                    v.digest()["segments"] = {"0", "1"};
                  }),
      invalid("OnlyBackupSegments", "segments: there is none for data", set(segment + "/flags", {"backup-previous"})),
      invalid("RegularBehindBackup", "segments.1 follows a backup segment",
              [](Luks2Volume& v) {
                split_segment(v);
                v.segment()["flags"] = {"backup-previous"};
              }),
      invalid("SegmentsOverlap", "segments.1 overlaps segments.0", split_and_set("offset", "295424")),
      invalid("FirstOfTwoDynamic", "segments.0.size is dynamic, but it is not the last",
              [](Luks2Volume& v) {
                split_segment(v);
                v.segment()["size"] = "dynamic";
              }),
      unsupported("GapBetweenSegments", "segment 1 does not continue", split_and_set("offset", "303616")),
      unsupported("SegmentsOfOtherCiphers", "does not continue", split_and_set("encryption", "aes-cbc-plain64")),
      unsupported("SegmentsOfOtherSectorSizes", "does not continue", split_and_set("sector_size", 1024)),
      unsupported("SegmentRestartsTweak", "does not continue", split_and_set("iv_tweak", "0")),
      unsupported("SegmentsOfOtherKeys", "does not continue",
                  [](Luks2Volume& v) {
                    split_segment(v);
                    v.json["digests"]["1"] = v.digest();
                    v.json["digests"]["1"]["keyslots"] = Json::array();
                    v.json["digests"]["1"]["segments"] = {"1"};
                    v.digest()["segments"] = {"0"};
                  }),
  };
}

std::vector<Case> keyslot_cases() {
  return {
      opens("Priority", set(slot + "/priority", 2)),
      opens("LeftoverKdfMembers", set(kdf + "/time", 4)),
      opens("LargerArea", set(area + "/size", "262144")),
      opens("UnknownKeyslotIsNotTried",
            [](Luks2Volume& v) {
              v.json["keyslots"]["1"] = {{"type", "no-such-type"},
                                         {"key_size", 1},
                                         {"area", {{"type", "none"}, {"offset", "163840"}, {"size", "4096"}}}};
            }),
      opens("UnusableSlotBesideAGoodOne", add_slot_and_set("/kdf/type", "no-such-kdf")),
      opens("StripesOfAnotherSlot", add_slot_and_set("/af/stripes", 4001)),
      opens("IterationsOfAnotherSlot", add_slot_and_set("/kdf/iterations", 0)),
      invalid("KeyslotNotObject", "keyslots.0 is not an object", set(slot, 1)),
      invalid("KeyslotNamedByWord", "keyslots: name \"x\"", [](Luks2Volume& v) { v.json["keyslots"]["x"] = v.slot(); }),
      invalid("Keyslot32", "keyslots: name \"32\"", [](Luks2Volume& v) { v.json["keyslots"]["32"] = v.slot(); }),
      invalid("KeyslotWithoutType", "keyslots.0.type: missing", remove(slot, "type")),
      invalid("KeyslotWithoutKeySize", "keyslots.0.key_size: missing", remove(slot, "key_size")),
      invalid("KeyslotKeySizeString", "keyslots.0.key_size: not an integer", set(slot + "/key_size", "32")),
      invalid("KeyslotKeySizeNegative", "keyslots.0.key_size: -32", set(slot + "/key_size", -32)),
      invalid("PriorityString", "keyslots.0.priority: not an integer", set(slot + "/priority", "2")),
      invalid("KeyslotWithoutArea", "keyslots.0.area: missing", remove(slot, "area")),
      invalid("AreaNotObject", "keyslots.0.area: not an object", set(area, "raw")),
      invalid("AreaWithoutType", "keyslots.0.area.type: missing", remove(area, "type")),
      invalid("AreaOfOtherType", "keyslots.0.area.type: \"datashift\" is not \"raw\"",
              set(area + "/type", "datashift")),
      invalid("AreaWithoutOffset", "keyslots.0.area.offset: missing", remove(area, "offset")),
      invalid("AreaWithoutSize", "keyslots.0.area.size: missing", remove(area, "size")),
      invalid("AreaSize0", "keyslots.0.area: 0 bytes at offset 32768", set(area + "/size", "0")),
      invalid("AreaOffset0", "are not inside the keyslots area (32768 to 294912)", set(area + "/offset", "0")),
      invalid("AreaInSecondaryHeader", "131072 bytes at offset 28672", set(area + "/offset", "28672")),
      invalid("AreaBehindKeyslots", "are not inside", set(area + "/offset", "294912")),
      invalid("AreaEndsBehindKeyslots", "are not inside", set(area + "/size", "266240")),
      invalid("AreaEndOverflows", "18446744073709547520 bytes at", set(area + "/size", "18446744073709547520")),
      invalid("AreaOffsetHuge", "are not inside", set(area + "/offset", "18446744073709551104")),
      invalid("AreaOffsetNegative", "area.offset: \"-1\"", set(area + "/offset", "-1")),
      invalid("AreaOfUnknownKeyslotOutside", "keyslots.1.area: 4096 bytes at offset 0",
              [](Luks2Volume& v) {
                v.json["keyslots"]["1"] = {{"type", "no-such-type"},
                                           {"key_size", 1},
                                           {"area", {{"type", "none"}, {"offset", "0"}, {"size", "4096"}}}};
              }),
      invalid("AreasOverlap", "keyslots.1.area overlaps that of keyslots.0",
              add_slot_and_set("/area/offset", "159744")),
      invalid("AreasAtOneOffset", "area overlaps that of", add_slot_and_set("/area/offset", "32768")),
      invalid("AreaOfUnknownKeyslotOverlaps", "area overlaps that of", add_slot_and_set("/area/offset", "36864")),
      invalid("AreaWithoutEncryption", "keyslots.0.area.encryption: missing", remove(area, "encryption")),
      invalid("AreaWithoutKeySize", "keyslots.0.area.key_size: missing", remove(area, "key_size")),
      invalid("KeyslotWithoutAf", "keyslots.0.af: missing", remove(slot, "af")),
      invalid("AfWithoutType", "keyslots.0.af.type: missing", remove(af, "type")),
      invalid("AfOfOtherType", "keyslots.0.af.type: \"luks2\" is not \"luks1\"", set(af + "/type", "luks2")),
      invalid("AfWithoutHash", "keyslots.0.af.hash: missing", remove(af, "hash")),
      invalid("AfWithoutStripes", "keyslots.0.af.stripes: missing", remove(af, "stripes")),
      unsupported("AfStripes", "not tried: af: stripes 4001 is not 4000", set(af + "/stripes", 4001)),
      invalid("KeyslotWithoutKdf", "keyslots.0.kdf: missing", remove(slot, "kdf")),
      invalid("KdfWithoutType", "keyslots.0.kdf.type: missing", remove(kdf, "type")),
      invalid("KdfWithoutSalt", "keyslots.0.kdf.salt: missing", remove(kdf, "salt")),
      invalid("Pbkdf2WithoutHash", "keyslots.0.kdf.hash: missing", remove(kdf, "hash")),
      invalid("Pbkdf2WithoutIterations", "keyslots.0.kdf.iterations: missing", remove(kdf, "iterations")),
      invalid("Pbkdf2IterationsString", "kdf.iterations: not an integer", set(kdf + "/iterations", "2")),
      invalid("Argon2WithoutMemory", "keyslots.0.kdf.memory: missing",
              set(kdf, {{"type", "argon2id"}, {"time", 1}, {"cpus", 1}, {"salt", "AAAA"}})),
      invalid("Argon2WithoutTime", "keyslots.0.kdf.time: missing",
              set(kdf, {{"type", "argon2i"}, {"memory", 32}, {"cpus", 1}, {"salt", "AAAA"}})),
      invalid("Argon2WithoutCpus", "keyslots.0.kdf.cpus: missing",
              set(kdf, {{"type", "argon2i"}, {"memory", 32}, {"time", 1}, {"salt", "AAAA"}})),
      invalid("KeyslotInNoDigest", "keyslots.0 is in 0 digests instead of one",
              set(digest + "/keyslots", Json::array())),
      invalid("KeyslotInTwoDigests", "keyslots.0 is in 2 digests",
              [](Luks2Volume& v) { v.json["digests"]["1"] = v.digest(); }),
      unsupported("ReencryptKeyslot", "key slot 1: type \"reencrypt\": a reencryption is in progress",
                  [](Luks2Volume& v) {
                    v.json["keyslots"]["1"] = {
                        {"type", "reencrypt"},
                        {"key_size", 1},
                        {"area", {{"type", "checksum"}, {"offset", "163840"}, {"size", "4096"}}}};
                  }),
      unsupported("NullKeyslotCipher", "key slot 0: null cipher \"cipher_null-ecb\"",
                  set(area + "/encryption", "cipher_null-ecb")),
      unsupported("NullKeyslotCipherShort", "key slot 0: null cipher \"null\"", set(area + "/encryption", "null")),
      unsupported("NullKeyslotCipherWithMode", "null cipher", set(area + "/encryption", "null-cbc-plain")),
      unsupported("NullKeyslotCipherByCapi", "null cipher", set(area + "/encryption", "capi:ecb(cipher_null)-null")),
      unsupported("NullCipherOfAnySlot", "key slot 1: null cipher",
                  add_slot_and_set("/area/encryption", "cipher_null-ecb")),

      unsupported("OnlyUnknownKdf", "key slot 0 is not tried: kdf: unknown type \"scrypt\"",
                  set(kdf + "/type", "scrypt")),
      unsupported("UnknownKdfHash", "not tried: kdf: unknown hash \"sha257\"", set(kdf + "/hash", "sha257")),
      unsupported("KdfIterations0", "not tried: kdf: iterations is 0", set(kdf + "/iterations", 0)),
      unsupported("KdfSaltNotBase64", "kdf: the salt is not base64 of 32 bytes", set(kdf + "/salt", "!!!!")),
      unsupported("KdfSaltShort", "kdf: the salt is not base64 of 32 bytes", set(kdf + "/salt", "AAAA")),
      unsupported("UnknownAfHash", "not tried: af: unknown hash \"sha257\"", set(af + "/hash", "sha257")),
      unsupported("UnknownAreaCipher", "not tried: area: cipher \"rot13-xts-plain64\"",
                  set(area + "/encryption", "rot13-xts-plain64")),
      unsupported("CapiAreaCipher", "not tried: area: cipher", set(area + "/encryption", "capi:xts(aes)-plain64")),
      unsupported("AreaKeySizeIllegal", "area: key_size 31 is no key size of aes-xts-plain64",
                  set(area + "/key_size", 31)),
      unsupported("AreaKeySizeHuge", "area: key_size 4294967295", set(area + "/key_size", UINT32_MAX)),
      unsupported("AreaTooSmall", "area: size 126976 does not hold the key material of 128000 bytes",
                  set(area + "/size", "126976")),
      unsupported("KeySizeIllegal", "not tried: key_size 33 is no key size of aes-xts-plain64",
                  set(slot + "/key_size", 33)),
      unsupported("KeySize0", "not tried: key_size 0", set(slot + "/key_size", 0)),
      unsupported("KeySizeHuge", "not tried: key_size 4294967295", set(slot + "/key_size", UINT32_MAX)),
      unsupported("UnknownKeyslotType", "key slot 0 is not tried: unknown type \"luks3\"",
                  set(slot + "/type", "luks3")),
  };
}

std::vector<Case> digest_cases() {
  return {
      invalid("DigestNotObject", "digests.0 is not an object", set(digest, "x")),
      invalid("DigestNamedByWord", "digests: name \"a\"", [](Luks2Volume& v) { v.json["digests"]["a"] = v.digest(); }),
      invalid("DigestWithoutType", "digests.0.type: missing", remove(digest, "type")),
      invalid("DigestWithoutKeyslots", "digests.0.keyslots: missing", remove(digest, "keyslots")),
      invalid("DigestWithoutSegments", "digests.0.segments: missing", remove(digest, "segments")),
      invalid("DigestKeyslotNumber", "digests.0.keyslots: an element is not a string", set(digest + "/keyslots", {0})),
      invalid("DigestOfNoKeyslot", "digests.0.keyslots: \"7\" does not exist", set(digest + "/keyslots", {"0", "7"})),
      invalid("DigestOfNoSegment", "digests.0.segments: \"1\" does not exist", set(digest + "/segments", {"0", "1"})),
      invalid("DigestWithoutHash", "digests.0.hash: missing", remove(digest, "hash")),
      invalid("DigestWithoutSalt", "digests.0.salt: missing", remove(digest, "salt")),
      invalid("DigestWithoutDigest", "digests.0.digest: missing", remove(digest, "digest")),
      invalid("DigestWithoutIterations", "digests.0.iterations: missing", remove(digest, "iterations")),
      unsupported("DigestOfUnknownType", "digest 0: unknown type \"hkdf\"", set(digest + "/type", "hkdf")),
      unsupported("DigestOfUnknownHash", "digest 0: unknown hash \"sha257\"", set(digest + "/hash", "sha257")),
      unsupported("DigestIterations0", "digest 0: iterations is 0", set(digest + "/iterations", 0)),
      unsupported("DigestSaltShort", "digest 0: the salt is not base64 of 32 bytes", set(digest + "/salt", "AAAA")),
      unsupported("DigestShort", "digest 0: the digest is not base64 of 20 or 32 bytes",
                  set(digest + "/digest", "AAAA")),
      unsupported("DigestEmpty", "digest 0: the digest is not base64", set(digest + "/digest", "====")),
      unsupported("Digest24Bytes", "of 20 or 32 bytes", set(digest + "/digest", std::string(32, 'A'))),
      {"DigestOfAnotherKey", Errc::wrong_passphrase, "1 secret tried on 1 key slot (0)",
       set(digest + "/digest", std::string(43, 'A') + "=")},
      {"DigestOf20Bytes", Errc::wrong_passphrase, "1 secret tried",
       set(digest + "/digest", std::string(27, 'A') + "=")},
  };
}

std::vector<Case> token_cases() {
  return {
      opens("Token", set("/tokens/0", {{"type", "clevis"}, {"keyslots", {"0"}}, {"jwe", {{"tag", "x"}}}})),
      opens("TokenOfNoKeyslot", set("/tokens/31", {{"type", "luks2-keyring"}, {"keyslots", Json::array()}})),
      invalid("TokenNotObject", "tokens.0 is not an object", set("/tokens/0", "x")),
      invalid("TokenNamedByWord", "tokens: name \"x\"", set("/tokens/x", {{"type", "a"}, {"keyslots", Json::array()}})),
      invalid("Token32", "tokens: name \"32\"", set("/tokens/32", {{"type", "a"}, {"keyslots", Json::array()}})),
      invalid("TokenWithoutType", "tokens.0.type: missing", set("/tokens/0", {{"keyslots", Json::array()}})),
      invalid("TokenTypeEmpty", "tokens.0.type: empty", set("/tokens/0", {{"type", ""}, {"keyslots", Json::array()}})),
      invalid("TokenWithoutKeyslots", "tokens.0.keyslots: missing", set("/tokens/0", {{"type", "a"}})),
      invalid("TokenKeyslotNumber", "tokens.0.keyslots: an element",
              set("/tokens/0", {{"type", "a"}, {"keyslots", {0}}})),
      invalid("TokenOfAbsentKeyslot", "tokens.0.keyslots: \"5\" does not exist",
              set("/tokens/0", {{"type", "a"}, {"keyslots", {"5"}}})),
  };
}

class Luks2Volumes : public ::testing::TestWithParam<Case> {};

/* What a header in a file of its own opens: the image, or the payload alone if it is to start at 0. */
std::vector<std::byte> detached_payload(Luks2Volume& volume) {
  if (volume.segment()["offset"] != "0") return volume.image();
  return {volume.rest.end() - static_cast<ptrdiff_t>(volume.plain.size()), volume.rest.end()};
}

Result<std::vector<std::byte>> read_all(Format& format, BlockDevice& device) {
  const auto layer = format.stack_on(device);
  std::vector<std::byte> read(static_cast<size_t>(layer->size()));
  if (Status s = layer->read(read, 0); !s) return propagate(s);
  return read;
}

/* The whole way, so that "opens" means that the right bytes come out. */
Result<std::vector<std::byte>> read_volume(Luks2Volume& volume, HeaderPlace place) {
  MemoryDevice device(volume.image());
  Keyring keyring;
  keyring.add_secret(test::secret_of("secret"));
  if (place == HeaderPlace::attached) {
    auto format = open_luks(device, keyring);
    if (!format) return propagate(format);
    return read_all(**format, device);
  }
  auto header = DetachedHeader::open(device, keyring);
  if (!header) return propagate(header);
  MemoryDevice payload(detached_payload(volume));
  auto format = (*header)->open_payload(payload);
  if (!format) return propagate(format);
  return read_all(**format, payload);
}

TEST_P(Luks2Volumes, HaveTheirVerdict) {
  const Case& c = GetParam();
  Luks2Volume volume = make_luks2();
  c.change(volume);
  if (!c.refused)
    test::keep_image(c.name + (c.place == HeaderPlace::detached ? ".luks2-header" : ".luks2"), volume.image());
  const auto read = read_volume(volume, c.place);
  if (!c.refused) {
    ASSERT_TRUE(read) << read.error().what;
    EXPECT_EQ(*read, volume.plain);
    return;
  }
  ASSERT_FALSE(read);
  EXPECT_EQ(read.error().code, *c.refused) << read.error().what;
  EXPECT_NE(read.error().what.find(c.message), std::string::npos) << read.error().what;
  EXPECT_EQ(read.error().what.find('\n'), std::string::npos);
}

std::string name_of(const ::testing::TestParamInfo<Case>& info) { return info.param.name; }

INSTANTIATE_TEST_SUITE_P(Text, Luks2Volumes, ::testing::ValuesIn(text_cases()), name_of);
INSTANTIATE_TEST_SUITE_P(Config, Luks2Volumes, ::testing::ValuesIn(config_cases()), name_of);
INSTANTIATE_TEST_SUITE_P(Segment, Luks2Volumes, ::testing::ValuesIn(segment_cases()), name_of);
INSTANTIATE_TEST_SUITE_P(Keyslot, Luks2Volumes, ::testing::ValuesIn(keyslot_cases()), name_of);
INSTANTIATE_TEST_SUITE_P(Digest, Luks2Volumes, ::testing::ValuesIn(digest_cases()), name_of);
INSTANTIATE_TEST_SUITE_P(Token, Luks2Volumes, ::testing::ValuesIn(token_cases()), name_of);

} // namespace
} // namespace qluks
