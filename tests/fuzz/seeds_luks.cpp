/* SPDX-License-Identifier: BSD-3-Clause */
/* Seeds of fuzz_luks1, fuzz_luks2 and fuzz_luks_write: headers. */
#include "formats/luks/luks1_ondisk.hpp"
#include "tests/fuzz/seeds.hpp"
#include "tests/support/luks_builder.hpp"

namespace qluks::fuzz {

namespace {

void write_luks_info(const std::string& name, const ScriptOnDisk& script, const Content& header) {
  Content seed;
  append_struct(seed, script);
  append_pieces(seed, header, 0);
  write("fuzz_info", name, seed);
}

/* The header alone; the payload lies behind it, and is zero. */
void write_luks(const std::string& target, const std::string& name, const Content& image, size_t header_bytes,
                uint8_t keyring = 1, uint8_t place = 0) {
  ScriptOnDisk script{};
  script.keyring = keyring;
  script.place = place;
  script.sectors = {sectors_of(image), 256};
  script.requests[0] = {.kind = 0, .shift = 0, .offset = 100, .length = 9000};
  script.requests[1] = {.kind = 2, .shift = 0, .offset = 0, .length = 65536};
  Content seed;
  append_struct(seed, script);
  const auto header = std::span(image).first(header_bytes);
  append(seed, header);
  write(target, name, seed);
  write_luks_info(target.substr(target.find('_') + 1) + "_" + name, script, {header.begin(), header.end()});
  if (place != 0) return;
  const WritingOnDisk writing = writing_with(static_cast<uint8_t>(name.size() % 8));
  const auto bytes = std::as_bytes(std::span(&writing, 1));
  seed.insert(seed.begin() + sizeof script, bytes.begin(), bytes.end());
  write("fuzz_luks_write", target + "_" + name, seed);
}

/* Of a payload of 8 MiB, so that a read that is not aligned is cut into its ends and its middle. */
void write_large_reads(const Content& image, size_t header_bytes) {
  ScriptOnDisk script{};
  script.keyring = 1;
  script.sectors[0] = sectors_of(image) + (16 << 10);
  script.requests[0] = {.kind = large_request, .shift = 0, .offset = 100, .length = (2 << 20) - 300};
  script.requests[1] = {.kind = large_request | 2, .shift = 0, .offset = 0, .length = 8 << 20};
  Content seed;
  append_struct(seed, script);
  append(seed, std::span(image).first(header_bytes));
  write("fuzz_luks1", "large_reads", seed);
}

void write_luks2(const std::string& name, const test::Luks2Volume& volume, uint8_t keyring = 1, uint8_t place = 0) {
  write_luks("fuzz_luks2", name, volume.image(), 2 * static_cast<size_t>(volume.hdr.hdr_size), keyring, place);
}

test::Luks2Volume two_segments() {
  test::Luks2Volume volume = test::make_luks2();
  volume.split_segment(32768);
  return volume;
}

void write_segments() {
  write_luks2("segments", two_segments());

  auto volume = two_segments();
  volume.json["segments"]["1"]["iv_tweak"] = "0";
  write_luks2("segments_apart", volume);

  volume = two_segments();
  volume.segment()["size"] = "dynamic";
  write_luks2("segments_dynamic", volume);

  volume = two_segments();
  volume.json["segments"]["1"]["flags"] = {"backup-previous"};
  write_luks2("segment_backup", volume);

  volume = two_segments();
  volume.segment()["flags"] = {"backup-previous"};
  write_luks2("segment_backup_first", volume);
}

void write_payload_sizes() {
  auto volume = test::make_luks2();
  volume.segment()["offset"] = std::to_string(~uint64_t{511});
  volume.segment()["size"] = "1024";
  write_luks2("segment_overflow", volume);

  volume = test::make_luks2();
  volume.segment()["size"] = "1073741824";
  write_luks2("payload_missing", volume);

  volume = test::make_luks2({.sector_size = 4096, .payload_bytes = 4096});
  volume.rest.resize(volume.rest.size() - 3584);
  write_luks2("payload_short", volume);
}

/* A device that ends within the second copy, and one that ends within the key material. */
void write_cut_headers() {
  ScriptOnDisk script{};
  script.keyring = 1;
  const Content image = test::make_luks2().image();
  for (const size_t bytes : {size_t{(32 << 10) - 512}, size_t{(32 << 10) + 512}}) {
    Content seed;
    append_struct(seed, script);
    append(seed, std::span(image).first(bytes));
    write("fuzz_luks2", "cut_at_" + std::to_string(bytes), seed);
  }
}

void write_json_kinds() {
  auto volume = test::make_luks2();
  volume.json["tokens"]["0"] = {{"type", "x"}, {"values", {nullptr, true, 1.5, ~uint64_t{0}, "\x01\"\\", {{"a", -1}}}}};
  write_luks2("json_kinds", volume);

  volume = test::make_luks2();
  volume.json["config"]["flags"] = {1};
  write_luks2("flag_not_text", volume);

  volume = test::make_luks2();
  volume.slot() = 5;
  write_luks2("keyslot_not_object", volume);
}

} // namespace

void write_luks1() {
  constexpr size_t bytes = sizeof(Luks1PhdrOnDisk);
  write_luks("fuzz_luks1", "xts", test::make_luks1({.secrets = {"a", "secret"}}).image(), bytes);
  write_luks("fuzz_luks1", "one_slot", test::make_luks1({.secrets = {"a", "secret"}}).image(), bytes, 2);
  write_luks("fuzz_luks1", "volume_key", test::make_luks1().image(), bytes, 4);
  write_luks("fuzz_luks1", "volume_key_512", test::make_luks1({.key_bytes = 64}).image(), bytes, 5);
  write_luks("fuzz_luks1", "in_qcow2", test::make_luks1().image(), bytes, 1, 2);
  write_luks("fuzz_luks1", "essiv",
             test::make_luks1({.cipher_mode = "cbc-essiv:sha256", .hash = "sha1", .key_bytes = 16}).image(), bytes, 3);
  write_large_reads(test::make_luks1().image(), bytes);
  auto detached = test::make_luks1({.cipher_name = "serpent", .hash = "sha512", .payload_bytes = 0});
  detached.phdr.payload_offset = 0;
  write_luks("fuzz_luks1", "detached", detached.image(), bytes, 1, 1);
}

void write_all_luks2() {
  auto volume = test::make_luks2({.slots = {{"a"}, {"secret", true}}});
  write_luks2("argon2", volume);
  write_luks2("one_slot", volume, 2);
  write_luks2("source", volume, 3);
  write_luks2("sector_4096", test::make_luks2({.sector_size = 4096, .iv_tweak = 8}));
  write_luks2("volume_key", test::make_luks2(), 4);
  write_luks2("volume_key_512", test::make_luks2({.key_bytes = 64}), 5);
  write_luks2("large_header", test::make_luks2({.hdr_size = 32 << 10}));
  write_luks2("unbound", test::make_luks2({.slots = {{"secret", false, 2}, {"b", false, 0}, {"c", false, -1, false}}}));

  volume = test::make_luks2();
  volume.segment()["offset"] = "0";
  write_luks2("detached", volume, 1, 1);

  volume = test::make_luks2();
  volume.json["tokens"]["0"] = {{"type", "clevis"}, {"keyslots", {"0"}}, {"jwe", {{"ciphertext", "x"}}}};
  volume.json["config"]["flags"] = {"allow-discards"};
  volume.json["config"]["requirements"]["mandatory"] = {"online-reencrypt-v2"};
  write_luks2("requirements", volume);

  volume = test::make_luks2();
  volume.segment()["integrity"] = {
      {"type", "hmac(sha256)"}, {"journal_encryption", "none"}, {"journal_integrity", "none"}};
  write_luks2("integrity", volume);

  write_segments();
  write_payload_sizes();
  write_cut_headers();
  write_json_kinds();

  volume = test::make_luks2({.slots = {{"secret", true}}});
  volume.slot()["kdf"]["memory"] = 4 << 20;
  write_luks2("much_memory", volume);

  volume = test::make_luks2(); /* lies where a header of 32 KiB has its second copy */
  Content image(32 << 10);
  append(image, volume.copy(32 << 10));
  write_luks("fuzz_luks2", "misplaced_secondary", image, image.size());
}

} // namespace qluks::fuzz
