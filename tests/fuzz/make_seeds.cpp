/* SPDX-License-Identifier: BSD-3-Clause */
/* fuzz_seeds FOLDER: writes the inputs that fuzzing starts from, FOLDER/TARGET/NAME: images of every kind that is
 * served, and what goes with them.  Linked with kdf_stub.cpp, so that the volumes open there. */
#include <filesystem>
#include <fstream>
#include <string>

#include "crypto/cipher_spec.hpp"
#include "formats/luks1_ondisk.hpp"
#include "formats/qcow2_ondisk.hpp"
#include "tests/fuzz/fuzz_case.hpp"
#include "tests/support/luks_builder.hpp"
#include "tests/support/stored_image.hpp"
#include "tests/support/streams.hpp"

namespace {

using namespace qluks;
using namespace qluks::fuzz;
using test::Content;
using test::StoredImage;

std::filesystem::path folder;

void write(const std::string& target, const std::string& name, const Content& content) {
  std::filesystem::create_directories(folder / target);
  std::ofstream file(folder / target / name, std::ios::binary);
  file.write(reinterpret_cast<const char*>(content.data()), static_cast<std::streamsize>(content.size()));
  if (!file) throw std::runtime_error("cannot write " + name);
}

void append(Content& target, std::span<const std::byte> bytes) {
  target.insert(target.end(), bytes.begin(), bytes.end());
}

template <class OnDisk>
void append_struct(Content& target, const OnDisk& disk) {
  append(target, std::as_bytes(std::span(&disk, 1)));
}

Content text_of(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

/* Reads across the start, in the middle and at the end, and an extent over all of it. */
ScriptOnDisk script_for(const StoredImage& image, uint8_t keyring = 1) {
  ScriptOnDisk script{};
  script.keyring = keyring;
  script.cache = 2;
  const auto size = static_cast<uint32_t>(image.guest.size());
  script.requests = {{{.kind = large_request, .shift = 0, .offset = 0, .length = size - 1},
                      {.kind = 1, .shift = 0, .offset = size / 2 + 77, .length = 3000},
                      {.kind = 2, .shift = 0, .offset = 0, .length = size - 1},
                      {.kind = 3, .shift = 0, .offset = 4096, .length = 8192}}};
  return script;
}

/* ── qcow2 ── */

void append_pieces(Content& target, const Content& file, uint32_t flag) {
  constexpr size_t piece_sectors_max = 64;
  const auto is_zero = [&](size_t sector) {
    const auto bytes = std::span(file).subspan(sector * sector_bytes);
    return std::all_of(bytes.begin(),
                       bytes.begin() + static_cast<ptrdiff_t>(std::min<size_t>(bytes.size(), sector_bytes)),
                       [](std::byte b) { return b == std::byte{0}; });
  };
  const size_t sectors = (file.size() + sector_bytes - 1) / sector_bytes;
  for (size_t begin = 0; begin < sectors;) {
    size_t end = begin;
    while (end < sectors && end - begin < piece_sectors_max && !is_zero(end)) ++end;
    if (end > begin) {
      const auto bytes = std::span(file)
                             .subspan(begin * sector_bytes)
                             .first(std::min(file.size(), end * sector_bytes) - begin * sector_bytes);
      append_struct(target, PieceOnDisk{static_cast<uint32_t>(begin) | flag, static_cast<uint16_t>(bytes.size())});
      append(target, bytes);
    }
    begin = std::max(end, begin + 1);
  }
}

uint32_t sectors_of(const Content& file) { return static_cast<uint32_t>((file.size() + 511) / 512); }

/* What is cut off reads as zeroes, like what was never written; a smaller input is one that is changed where it counts.
 */
void cut(Content& qcow2) {
  constexpr size_t clusters = 10;
  const auto cluster_bits = load_on_disk<Qcow2HeaderOnDisk>(qcow2).cluster_bits;
  qcow2.resize(std::min(qcow2.size(), clusters << cluster_bits));
}

/* Key material may be anything here: without it an input stays small. */
void drop_key_material(StoredImage& image) {
  for (const auto& [file, offset] : image.luks_headers) {
    const auto begin = image.files[file].begin() + static_cast<ptrdiff_t>(offset) + 4096;
    std::fill(begin, begin + (8 * 32 * 4000), std::byte{0});
  }
}

void write_qcow2(StoredImage image) {
  ScriptOnDisk script = script_for(image);
  const bool has_data_file = image.name == "qcow2, data file";
  if (image.name == "qcow2, backing chain") script.options = 4 | 8;
  if (has_data_file) script.options = 2;
  if (image.name == "LUKS in qcow2") script.options = 16;
  if (image.name == "qcow2, snapshot") test::set_text(script.snapshot, "before");
  if (image.name == "qcow2 with LUKS" || image.name == "LUKS in qcow2") drop_key_material(image);
  if (image.luks_headers.empty()) cut(image.files[0]);
  if (image.files.size() > 1) image.files[1].resize(std::min<size_t>(image.files[1].size(), 16 << 10));
  script.sectors[0] = sectors_of(image.files[0]);
  Content seed;
  append_struct(seed, script);
  append_pieces(seed, image.files[0], 0);
  if (image.files.size() > 1) append_pieces(seed, image.files[1], second_file_flag);
  write("fuzz_qcow2", image.test_name(), seed);
}

/* ── LUKS ── */

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
  append(seed, std::span(image).first(header_bytes));
  write(target, name, seed);
}

void write_luks1() {
  constexpr size_t bytes = sizeof(Luks1PhdrOnDisk);
  write_luks("fuzz_luks1", "xts", test::make_luks1({.secrets = {"a", "secret"}}).image(), bytes);
  write_luks("fuzz_luks1", "one_slot", test::make_luks1({.secrets = {"a", "secret"}}).image(), bytes, 2);
  write_luks("fuzz_luks1", "volume_key", test::make_luks1().image(), bytes, 4);
  write_luks("fuzz_luks1", "volume_key_512", test::make_luks1({.key_bytes = 64}).image(), bytes, 5);
  write_luks("fuzz_luks1", "in_qcow2", test::make_luks1().image(), bytes, 1, 2);
  write_luks("fuzz_luks1", "essiv",
             test::make_luks1({.cipher_mode = "cbc-essiv:sha256", .hash = "sha1", .key_bytes = 16}).image(), bytes, 3);
  auto detached = test::make_luks1({.cipher_name = "serpent", .hash = "sha512", .payload_bytes = 0});
  detached.phdr.payload_offset = 0;
  write_luks("fuzz_luks1", "detached", detached.image(), bytes, 1, 1);
}

void write_luks2(const std::string& name, const test::Luks2Volume& volume, uint8_t keyring = 1, uint8_t place = 0) {
  write_luks("fuzz_luks2", name, volume.image(), 2 * static_cast<size_t>(volume.hdr.hdr_size), keyring, place);
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

  volume = test::make_luks2();
  volume.segment()["size"] = "32768";
  volume.json["segments"]["1"] = volume.segment();
  volume.json["segments"]["1"]["offset"] = std::to_string(2 * 16384 + 2 * 131072 + 32768);
  volume.json["segments"]["1"]["iv_tweak"] = "64";
  volume.json["segments"]["2"] = volume.segment();
  volume.json["segments"]["2"]["flags"] = {"backup-previous"};
  volume.digest()["segments"] = {"0", "1", "2"};
  write_luks2("segments", volume);
}

/* ── Others ── */

void write_compressed() {
  const Content plain = test::compressible(4096);
  const auto seed = [](uint8_t type, uint8_t bits, const Content& stream) {
    Content bytes = {std::byte{type}, std::byte{bits}, std::byte{0}, std::byte{100}};
    append(bytes, text_of(std::string_view("\0\0\0\7\0\0\1\0", 8)));
    append(bytes, stream);
    return bytes;
  };
  write("fuzz_compressed", "deflate", seed(0, 3, test::deflated(plain)));
  write("fuzz_compressed", "deflate_longer", seed(0, 3, test::deflated(test::compressible(5000))));
  write("fuzz_compressed", "deflate_without_end", seed(0, 3, test::deflated(plain, Z_SYNC_FLUSH)));
  write("fuzz_compressed", "deflate_zeroes", seed(0, 7, test::deflated(Content(65536))));
  write("fuzz_compressed", "zstd", seed(1, 3, test::zstd_frame(plain)));
  write("fuzz_compressed", "zstd_checksum", seed(1, 3, test::zstd_frame(plain, 10, true)));
  write("fuzz_compressed", "zstd_zeroes", seed(1, 7, test::zstd_frame(Content(65536))));
  Content two = test::zstd_frame(Content(plain.begin(), plain.begin() + 1000));
  append(two, test::zstd_frame(Content(plain.begin() + 1000, plain.end())));
  write("fuzz_compressed", "zstd_two_frames", seed(1, 3, two));
}

void write_cipher_specs() {
  unsigned count = 0;
  for (const char* name :
       {"aes-xts-plain64", "aes-cbc-essiv:sha256", "aes-cbc-plain", "serpent-xts-plain64be", "twofish-cbc-eboiv",
        "camellia-xts-benbi", "cast5-cbc-plain64", "xchacha20,aes-adiantum-plain64", "aes-ctr-null", "aes-ecb", "aes",
        "aes-plain", "capi:xts(aes)-plain64", "cipher_null-ecb", "serpent-cbc-essiv:whirlpool"}) {
    write("fuzz_cipher_spec", std::to_string(count++), text_of(name));
  }
}

void write_parameters(const std::vector<StoredImage>& images) {
  const auto image = [&](std::string_view name) -> const Content& {
    return std::find_if(images.begin(), images.end(), [&](const StoredImage& i) { return i.name == name; })->files[0];
  };
  const auto seed = [](const std::string& name, std::string_view lines, std::span<const std::byte> bytes) {
    Content content = text_of(std::string(lines) + "\n");
    append(content, bytes);
    write("fuzz_parameters", name, content);
  };
  const auto luks1 = std::span(image("LUKS1")).first(sizeof(Luks1PhdrOnDisk));
  seed("auto", "qluks-passphrase=secret\nqluks-discard=false\n", luks1);
  seed("command", "qluks-key-command=echo\nqluks-layers=luks\nqluks-key-slot=1\nqluks-kdf-time=5\n", luks1);
  seed("header", "qluks-header=file\nqluks-key-file=null\nqluks-key-file-offset=0\nqluks-passphrase=x\n", luks1);
  seed("snapshot", "qluks-snapshot=before\nqluks-cache-size=65536\nqluks-layers=qcow2\n", image("qcow2, snapshot"));
  seed("backing", "qluks-backing=luks:a\nqluks-backing=nbd://host/b\n", image("qcow2, backing chain"));
  seed("backing_dir", "qluks-backing-dir=d\nqluks-engine=nettle\n", image("qcow2, backing chain"));
  seed("data_file", "qluks-data-file=missing\nqluks-layers=auto\n", image("qcow2, data file"));
  seed("volume_key", "qluks-volume-key-file=null\nqluks-kdf-memory=1048576\nqluks-layers=luks,qcow2\n", luks1);
  seed("key_file", "qluks-key-file=-\nqluks-key-file-size=32\nqluks-layers=raw\n", {});
}

} // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  folder = argv[1];
  const auto images = test::stored_images();
  for (const StoredImage& image : images) {
    if (image.files[0][0] == std::byte{'Q'}) write_qcow2(image);
  }
  write_luks1();
  write_all_luks2();
  write_compressed();
  write_cipher_specs();
  write_parameters(images);
  return 0;
}
