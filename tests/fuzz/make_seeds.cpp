/* SPDX-License-Identifier: BSD-3-Clause */
/* fuzz_seeds FOLDER: writes the inputs that fuzzing starts from, FOLDER/TARGET/NAME: images of every kind that is
 * served, and what goes with them.  Linked with kdf_stub.cpp, so that the volumes open there. */
#include <filesystem>
#include <fstream>
#include <string>

#include "crypto/cipher_spec.hpp"
#include "formats/luks/luks1_ondisk.hpp"
#include "formats/qcow2/ondisk.hpp"
#include "tests/fuzz/fuzz_case.hpp"
#include "tests/support/luks_builder.hpp"
#include "tests/support/partition_builder.hpp"
#include "tests/support/qcow2_image.hpp"
#include "tests/support/stored_image.hpp"
#include "tests/support/streams.hpp"

namespace {

using namespace qluks;
using namespace qluks::fuzz;
using test::Content;
using test::Qcow2Image;
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

void put(Content& target, uint64_t at, std::span<const std::byte> bytes) {
  if (target.size() < at + bytes.size()) target.resize(at + bytes.size());
  std::copy(bytes.begin(), bytes.end(), target.begin() + static_cast<ptrdiff_t>(at));
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

void append_files(Content& seed, const std::vector<Content>& files) {
  append_pieces(seed, files[0], 0);
  if (files.size() > 1) append_pieces(seed, files[1], second_file_flag);
}

void write_qcow2(const std::string& name, ScriptOnDisk script, const std::vector<Content>& files) {
  script.sectors[0] = sectors_of(files[0]);
  Content seed;
  append_struct(seed, script);
  append_files(seed, files);
  write("fuzz_qcow2", name, seed);
  write("fuzz_info", "qcow2_" + name, seed);
}

void write_stored_qcow2(StoredImage image) {
  ScriptOnDisk script = script_for(image);
  const bool has_data_file = image.name == "qcow2, data file";
  if (image.name == "qcow2, backing chain") script.options = 4 | 8;
  if (has_data_file) script.options = 2;
  if (image.name == "LUKS in qcow2") script.options = 16;
  if (image.name == "qcow2, snapshot") test::set_text(script.snapshot, "before");
  if (image.name == "qcow2 with LUKS" || image.name == "LUKS in qcow2") drop_key_material(image);
  if (image.luks_headers.empty()) cut(image.files[0]);
  if (image.files.size() > 1) image.files[1].resize(std::min<size_t>(image.files[1].size(), 16 << 10));
  write_qcow2(image.test_name(), script, image.files);
}

/* Three clusters of data, a zero cluster and a hole. */
Qcow2Image small_qcow2(uint32_t version = 3) {
  Qcow2Image image({.size = 40 << 10, .cluster_bits = 12, .version = version});
  for (const uint64_t cluster : {0U, 1U, 5U}) image.set_l2(cluster, image.add_cluster(0x33));
  image.set_l2(2, version == 3 ? Qcow2Image::zero_flag : 0);
  return image;
}

ScriptOnDisk script_with(uint8_t options) {
  ScriptOnDisk script{};
  script.options = options;
  script.requests[0].length = 40 << 10;
  script.requests[1] = {.kind = 2, .shift = 0, .offset = 3 << 12, .length = 40 << 10};
  script.requests[2] = {.kind = 3, .shift = 0, .offset = 3 << 12, .length = 40 << 10};
  return script;
}

/* The same with a backing file of that name, whose format may be recorded. */
Qcow2Image small_overlay(std::string_view name, std::string_view format = "") {
  Qcow2Image image = small_qcow2();
  image.header().backing_file_offset = 1024;
  image.header().backing_file_size = static_cast<uint32_t>(name.size());
  put(image.bytes(), 1024, std::as_bytes(std::span(name)));
  if (!format.empty()) image.add_extension(qcow2_ext_backing_format, text_of(format));
  return image;
}

void write_backing_files() {
  const Content overlay = small_overlay("base").bytes();
  write_qcow2("backing_raw", script_with(4), {overlay, test::compressible(20000)});
  write_qcow2("backing_qcow2", script_with(4 | 8), {overlay, small_qcow2(2).bytes()});
}

void write_extensions() {
  Qcow2Image image = small_qcow2();
  image.header().incompatible_features = uint64_t{3} << 60;
  std::array<Qcow2FeatureNameOnDisk, 2> features{};
  features[0].bit = 60;
  test::set_text(features[0].name, "from the future");
  image.add_extension(qcow2_ext_feature_names, std::as_bytes(std::span(features)).first(60)); /* no second record */
  write_qcow2("unknown_feature", script_with(0), {image.bytes()});

  image = small_qcow2();
  image.header().autoclear_features = 1U << qcow2_bitmaps_bit;
  const Qcow2BitmapsOnDisk bitmaps{.nb_bitmaps = 1, .reserved = 0, .directory_size = 64, .directory_offset = 4096};
  image.add_extension(qcow2_ext_bitmaps, std::as_bytes(std::span(&bitmaps, 1)));
  write_qcow2("bitmaps", script_with(0), {image.bytes()});

  image = small_qcow2();
  image.header().autoclear_features = 1U << qcow2_bitmaps_bit;
  image.add_extension(qcow2_ext_bitmaps, Content(sizeof(Qcow2BitmapsOnDisk)));
  write_qcow2("no_bitmaps", script_with(0), {image.bytes()});

  image = small_qcow2();
  image.add_extension(qcow2_ext_backing_format, text_of("a long format name"));
  write_qcow2("long_backing_format", script_with(0), {image.bytes()});
}

/* A snapshot with ID 7. */
void add_snapshot(Qcow2Image& image, uint64_t l1_offset, uint64_t disk_size) {
  const uint64_t table = image.add_cluster(0);
  Qcow2SnapshotOnDisk disk{};
  disk.l1_table_offset = l1_offset;
  disk.l1_size = 1;
  disk.id_size = 1;
  disk.extra_data_size = 16;
  put(image.bytes(), table, std::as_bytes(std::span(&disk, 1)));
  image.put_u64(table + sizeof disk + 8, disk_size);
  put(image.bytes(), table + sizeof disk + 16, text_of("7"));
  image.header().nb_snapshots = 1;
  image.header().snapshots_offset = table;
}

/* A disk of that size, of which the L1 table covers 2 MiB. */
void write_snapshot(const std::string& name, uint64_t disk_size) {
  Qcow2Image image = small_qcow2();
  add_snapshot(image, image.l1_offset(), disk_size);
  ScriptOnDisk script = script_with(0);
  script.snapshot[0] = '7';
  script.requests[3].offset = 2 << 20;
  write_qcow2(name, script, {image.bytes()});
}

/* ── qcow2, to be written ── */

/* Inside of a cluster, across three, whole ones; zeroes, trim, flush, and once more after opening it again. */
WritingOnDisk writing_with(uint8_t storage = 0, uint8_t fail_at = 0) {
  WritingOnDisk writing{};
  writing.storage = storage;
  writing.fail_at = fail_at;
  writing.lost = 0x5a5a5a5a;
  uint32_t n = 0;
  for (const uint8_t kind : std::array<uint8_t, 12>{0, 1, 6, 3, 2, 5, 7, 0x41, 0x44, 6, 0, 1}) {
    writing.operations[n] = {.kind = kind, .shift = 0, .offset = 3000 * n + 100, .length = 1500 + 1111 * n};
    ++n;
  }
  return writing;
}

void write_for_writing(const std::string& name, ScriptOnDisk script, const WritingOnDisk& writing,
                       const std::vector<Content>& files) {
  constexpr uint32_t room = 512;
  script.sectors[0] = sectors_of(files[0]) + room;
  Content seed;
  append_struct(seed, script);
  append_struct(seed, writing);
  append_files(seed, files);
  constexpr size_t seed_bytes_max = 68 << 10; /* what run.sh lets libFuzzer take */
  if (seed.size() > seed_bytes_max) return;
  write("fuzz_qcow2_write", name, seed);
}

/* Each cluster of it is used once. */
Content writable(Content image) {
  Qcow2Image::count_clusters(image);
  Qcow2Image::set_copied(image);
  return image;
}

void write_writable(const std::string& name, Qcow2Image image, const WritingOnDisk& writing = writing_with()) {
  write_for_writing(name, script_with(0), writing, {writable(image.bytes())});
}

Qcow2Image small_qcow2_with(uint32_t refcount_order) {
  Qcow2Image image = small_qcow2();
  image.header().refcount_order = refcount_order;
  return image;
}

void write_extended_l2() {
  Qcow2Image image({.size = 256 << 10, .cluster_bits = 14, .extended_l2 = true});
  image.set_l2(0, image.add_cluster(0x33), 0x0000ff00000000ff);
  image.set_l2(3, 0, uint64_t{0xffffffff} << 32);
  write_writable("extended_l2", image);
}

/* In an image of which all clusters have been counted, in 16 bits each. */
void count_twice(Content& image, uint64_t cluster) {
  const uint64_t block = image.size() - (uint64_t{1} << load_on_disk<Qcow2HeaderOnDisk>(image).cluster_bits);
  const be16 two = 2;
  put(image, block + sizeof two * cluster, std::as_bytes(std::span(&two, 1)));
}

/* Two streams in one host cluster. */
void write_compressed_for_writing() {
  Qcow2Image image = small_qcow2();
  const uint64_t at = image.add_cluster(0);
  const Content stream = test::deflated(test::compressible(4096));
  const uint64_t sectors = (stream.size() + sector_bytes - 1) / sector_bytes;
  for (const uint64_t n : {0U, 1U}) {
    put(image.bytes(), at + n * 2048, stream);
    image.set_l2(6 + n, Qcow2Image::compressed_flag | (sectors - 1) << (62 - 4) | (at + n * 2048));
  }
  Content bytes = writable(image.bytes());
  count_twice(bytes, at / image.cluster_size());
  write_for_writing("compressed", script_with(0), writing_with(), {bytes});
}

/* Everything is shared with the one snapshot: the L2 table and three clusters of data. */
void write_shared() {
  Qcow2Image image = small_qcow2();
  const uint64_t l1 = image.add_cluster(0);
  image.put_u64(l1, load_on_disk<be64>(std::span(image.bytes()).subspan(image.l1_offset())));
  add_snapshot(image, l1, 40 << 10);
  Content bytes = image.bytes();
  Qcow2Image::count_clusters(bytes);
  for (uint64_t shared = 3; shared < 7; ++shared) count_twice(bytes, shared);
  write_for_writing("shared", script_with(0), writing_with(), {bytes});
}

void write_all_for_writing(const std::vector<StoredImage>& images) {
  write_writable("version_2", small_qcow2(2));
  for (const uint32_t order : {0U, 1U, 3U, 4U, 6U}) {
    write_writable("refcount_order_" + std::to_string(order), small_qcow2_with(order));
  }
  write_writable("storage_fails", small_qcow2(), writing_with(0, 9));
  write_writable("storage_fails_for_ever", small_qcow2(), writing_with(storage_fails_for_ever, 9));
  write_writable("power_cut", small_qcow2(), writing_with(storage_loses_power));
  write_writable("power_cut_fua", small_qcow2(), writing_with(storage_loses_power | storage_has_fua));
  write_for_writing("not_counted", script_with(0), writing_with(), {small_qcow2().bytes()});
  write_extended_l2();
  write_compressed_for_writing();
  write_shared();
  write_for_writing("backing", script_with(0), writing_with(),
                    {writable(small_overlay("base", "raw").bytes()), test::compressible(20000)});
  for (StoredImage image : images) {
    if (image.files[0][0] != std::byte{'Q'} || image.files.size() > 1) continue;
    if (image.name == "qcow2 with LUKS" || image.name == "LUKS in qcow2") drop_key_material(image);
    write_for_writing(image.test_name(), script_for(image), writing_with(), {writable(image.files[0])});
  }
}

/* ── LUKS ── */

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
  for (const char* name : {"aes-xts-plain64",
                           "aes-cbc-essiv:sha256",
                           "aes-cbc-plain",
                           "serpent-xts-plain64be",
                           "twofish-cbc-eboiv",
                           "camellia-xts-benbi",
                           "cast5-cbc-plain64",
                           "xchacha20,aes-adiantum-plain64",
                           "aes-ctr-null",
                           "aes-ecb",
                           "aes",
                           "aes-plain",
                           "capi:xts(aes)-plain64",
                           "capi:essiv(cbc(aes),sha256)-plain64",
                           "cipher_null-ecb",
                           "serpent-cbc-essiv:whirlpool",
                           "blowfish-cbc-plain",
                           "des3_ede-pcbc-plain64",
                           "aes-lrw-benbi",
                           "twofish-cfb-plain",
                           "camellia-ofb-null",
                           "aes-xctr-plain64",
                           "xchacha12,aes-adiantum-benbi"}) {
    write("fuzz_cipher_spec", std::to_string(count++), text_of(name));
  }
}

void write_parameters(const std::string& name, std::string_view lines, std::span<const std::byte> image) {
  Content content = text_of(std::string(lines) + "\n");
  append(content, image);
  write("fuzz_parameters", name, content);
}

void write_luks_parameters(std::span<const std::byte> luks1) {
  write_parameters("auto", "qluks-passphrase=secret\nqluks-discard=false\n", luks1);
  write_parameters("command", "qluks-key-command=echo\nqluks-layers=luks\nqluks-key-slot=1\nqluks-kdf-time=5\n", luks1);
  write_parameters("no_such_slot", "qluks-key-slot=32\n", {});
  write_parameters("header", "qluks-header=file\nqluks-key-file=null\nqluks-key-file-offset=0\nqluks-passphrase=x\n",
                   luks1);
  write_parameters("snapshot_of_luks", "qluks-snapshot=a\nqluks-passphrase=secret\n", luks1);
  write_parameters("volume_key", "qluks-volume-key-file=key\nqluks-kdf-memory=1048576\nqluks-layers=luks,qcow2\n",
                   luks1);
  write_parameters("key_file", "qluks-key-file=-\nqluks-key-file-size=32\nqluks-layers=raw\n", {});
  write_parameters("key_file_part", "qluks-key-file=key\nqluks-key-file-offset=3\nqluks-key-file-size=32\n", luks1);
  write_parameters("key_file_short", "qluks-key-file=key\nqluks-key-file-size=1000\n", luks1);
  write_parameters("key_file_large", "qluks-key-file=key\nqluks-key-file-size=10000000\n", luks1);
}

/* `image` with a file beside it: one that is named by a number is so many 4 KiB behind the image's start (see
 * fuzz_parameters.cpp). */
constexpr size_t beside = 20;

Content with_beside(Content image, std::span<const std::byte> file) {
  image.resize(beside * 4096);
  append(image, file);
  return image;
}

void write_files_beside(std::span<const std::byte> luks1, const Content& encrypted, const Content& with_data_file) {
  const Content overlay = small_overlay("base", "raw").bytes();
  const auto seed = [&](const std::string& name, std::string_view lines, std::span<const std::byte> file) {
    write_parameters(name, lines, with_beside(overlay, file));
  };
  seed("backing", "qluks-backing=nbd://host/b\nqluks-backing=luks:a\n", {});
  seed("backing_raw", "qluks-backing=raw:20\n", test::compressible(10000));
  seed("backing_recorded", "qluks-backing=20\n", {});
  seed("backing_qcow2", "qluks-backing=qcow2:20\n", small_qcow2(2).bytes());
  seed("backing_luks", "qluks-backing=luks:20\nqluks-passphrase=secret\n", luks1);
  std::string same_again;
  for (int i = 0; i < 65; ++i) same_again += "qluks-backing=qcow2:0\n";
  seed("backing_itself", same_again, {});
  write_parameters("backing_unknown", "qluks-backing=20\n", small_overlay("base", "vmdk").bytes());

  constexpr std::string_view dir = "qluks-backing-dir=d\nqluks-engine=nettle\n";
  write_parameters("backing_dir", dir, small_overlay("a/b", "qcow2").bytes());
  write_parameters("backing_inside", dir, small_overlay("/nonexistent/d/b", "qcow2").bytes());
  write_parameters("backing_outside", dir, small_overlay("/b", "qcow2").bytes());
  Qcow2Image image = small_qcow2();
  image.header().incompatible_features = 1U << qcow2_data_file_bit;
  image.add_extension(qcow2_ext_data_file, text_of("data"));
  write_parameters("data_in_dir", dir, image.bytes());

  write_parameters("data_file", "qluks-data-file=missing\nqluks-layers=auto\n", with_data_file);
  write_parameters("no_data_file", "qluks-data-file=3\n", small_qcow2().bytes());
  constexpr std::string_view header = "qluks-header=20\nqluks-passphrase=secret\n";
  write_parameters("header_on_qcow2", header, with_beside(small_qcow2().bytes(), luks1));
  write_parameters("header_on_encrypted", header, with_beside(encrypted, luks1));
}

/* ── partition tables ── */

void write_disk(const std::string& name, const Content& disk, uint8_t number, uint8_t options = 1) {
  ScriptOnDisk script = script_with(options);
  script.place = number;
  script.sectors[0] = sectors_of(disk);
  Content seed;
  append_struct(seed, script);
  append_pieces(seed, disk, 0);
  write("fuzz_partition", name, seed);
  write("fuzz_info", "partition_" + name, seed);
}

void write_gpts() {
  for (const uint32_t sector : {512U, 4096U}) {
    const std::string name = "gpt_" + std::to_string(sector);
    test::GptDisk disk(150, sector, 8);
    disk.set(1, 40, 59);
    disk.set(5, 60, 99);
    write_disk(name, disk.bytes, 5);
    write_disk(name + "_cut", Content(disk.bytes.begin(), disk.bytes.begin() + 70 * sector), 5);
    disk.entry(false, 1).starting_lba = 41;
    write_disk(name + "_last_copy", disk.bytes, 1, 2 | 1);
    disk.entry(true, 1).starting_lba = 41;
    write_disk(name + "_damaged", disk.bytes, 1, 0);
    disk.header(false).signature[0] = 'X';
    disk.header(true).signature[0] = 'X';
    write_disk(name + "_gone", disk.bytes, 1);
  }
}

void write_mbrs() {
  test::MbrDisk disk(1000);
  disk.set(0, 0, 0x83, 10, 20);
  disk.set(0, 2, 0x05, 100, 800);
  disk.set(100, 0, 0x83, 10, 100);
  disk.set(100, 1, 0x05, 200, 200);
  disk.set(300, 0, 0x83, 10, 100);
  disk.set(300, 2, 0x83, 150, 20);
  write_disk("mbr", disk.bytes, 6);
  disk.set(300, 1, 0x05, 0, 100);
  write_disk("mbr_loop", disk.bytes, 6);
  disk.set(300, 1, 0x05, 5000, 100);
  write_disk("mbr_cut", disk.bytes, 8);
}

void write_all_parameters(const std::vector<StoredImage>& images) {
  const auto image = [&](std::string_view name) -> const Content& {
    return std::find_if(images.begin(), images.end(), [&](const StoredImage& i) { return i.name == name; })->files[0];
  };
  const auto luks1 = std::span(image("LUKS1")).first(sizeof(Luks1PhdrOnDisk));
  write_luks_parameters(luks1);
  write_files_beside(luks1, image("qcow2, AES"), image("qcow2, data file"));
  write_parameters("snapshot", "qluks-snapshot=before\nqluks-cache-size=65536\nqluks-layers=qcow2\n",
                   image("qcow2, snapshot"));
  write_parameters("secret", "qluks-passphrase=secret\n", small_qcow2().bytes());
  test::MbrDisk disk(200);
  disk.set(0, 1, 0x83, 8, 190);
  put(disk.bytes, 8 * sector_bytes, luks1);
  write_parameters("partition", "qluks-passphrase=secret\nqluks-layers=partition:2,luks\n", disk.bytes);
  write_parameters("partition_not_named", "qluks-passphrase=secret\n", disk.bytes);
  write_parameters("many_layers", "qluks-layers=luks,partition:1,qcow2,luks,luks,qcow2,partition:8192,luks\n", luks1);
}

} // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  folder = argv[1];
  const auto images = test::stored_images();
  for (const StoredImage& image : images) {
    if (image.files[0][0] == std::byte{'Q'}) write_stored_qcow2(image);
  }
  write_backing_files();
  write_extensions();
  write_snapshot("snapshot_too_large", uint64_t{1} << 63);
  write_snapshot("snapshot_beyond_table", 4 << 20);
  write_all_for_writing(images);
  write_luks1();
  write_all_luks2();
  write_compressed();
  write_cipher_specs();
  write_all_parameters(images);
  write_gpts();
  write_mbrs();
  return 0;
}
