/* SPDX-License-Identifier: BSD-3-Clause */
#include "info/luks_report.hpp"

#include <cmath>

#include "formats/luks/kdf.hpp"

namespace qluks::info {

namespace {

Report kdf_report(const LuksKeyslot& slot) {
  if (const auto* pbkdf2 = std::get_if<Pbkdf2Params>(&slot.kdf)) {
    return {{"type", "pbkdf2"}, {"hash", std::string(pbkdf2->hash->name)}, {"iterations", pbkdf2->iterations}};
  }
  const auto& [type, cost] = std::get<Argon2Params>(slot.kdf);
  return {{"type", type == Argon2Type::i ? "argon2i" : "argon2id"},
          {"time", cost.time},
          {"memory-kib", cost.memory_kib},
          {"cpus", cost.lanes}};
}

Report slot_report(const LuksHeader& header, const LuksKeyslot& slot, KdfMeter& meter) {
  Report report = {{"number", slot.number},
                   {"key-bits", uint64_t{slot.key_bytes} * 8},
                   {"cipher", slot.area_cipher.name()},
                   {"kdf", kdf_report(slot)}};
  const auto seconds = meter.seconds_of(slot, header.digests[slot.digest]);
  if (seconds) report["seconds-here"] = std::round(*seconds * 1000) / 1000;
  if (slot.only_when_named) report["priority"] = "ignore";
  return report;
}

/* The types only: what else is in a token concerns the program that it is for. */
Report token_report(const std::string& tokens) {
  Report report = Report::array();
  const auto parsed = nlohmann::json::parse(tokens, nullptr, false);
  if (!parsed.is_object()) return report;
  for (const auto& [number, token] : parsed.items()) {
    if (!token.is_object() || !token.contains("type") || !token["type"].is_string()) continue;
    report.push_back({{"number", number}, {"type", token["type"].get<std::string>()}});
  }
  return report;
}

uint32_t key_bytes(const LuksHeader& header) {
  if (header.key_bytes != 0 || header.keyslots.empty()) return header.key_bytes;
  return header.keyslots.front().key_bytes;
}

} // namespace

Report luks_report(const LuksHeader& header) {
  Report report = {{"type", "luks"}, {"version", header.version}, {"uuid", header.uuid}};
  if (!header.label.empty()) report["label"] = header.label;
  report["cipher"] = header.cipher.name();
  report["key-bits"] = uint64_t{key_bytes(header)} * 8;
  report["sector-size"] = header.sector_size;
  if (header.place != HeaderPlace::in_qcow2) report["payload-offset"] = header.payload_offset;
  if (header.payload_bytes) report["payload-size"] = *header.payload_bytes;
  KdfMeter meter;
  report["key-slots"] = Report::array();
  for (const LuksKeyslot& slot : header.keyslots) report["key-slots"].push_back(slot_report(header, slot, meter));
  for (const LuksSkippedSlot& slot : header.skipped) {
    report["key-slots"].push_back({{"number", slot.number}, {"not-usable", slot.reason}});
  }
  if (Report tokens = token_report(header.tokens); !tokens.empty()) report["tokens"] = std::move(tokens);
  return report;
}

} // namespace qluks::info
