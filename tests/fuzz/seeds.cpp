/* SPDX-License-Identifier: BSD-3-Clause */
/* What the seeds of several targets are made of. */
#include "tests/fuzz/seeds.hpp"

#include <filesystem>
#include <fstream>

#include "formats/qcow2/ondisk.hpp"

namespace qluks::fuzz {

namespace {

std::filesystem::path folder;

} // namespace

void set_folder(const char* name) { folder = name; }

void write(const std::string& target, const std::string& name, const Content& content) {
  std::filesystem::create_directories(folder / target);
  std::ofstream file(folder / target / name, std::ios::binary);
  file.write(reinterpret_cast<const char*>(content.data()), static_cast<std::streamsize>(content.size()));
  if (!file) throw std::runtime_error("cannot write " + name);
}

void append(Content& target, std::span<const std::byte> bytes) {
  target.insert(target.end(), bytes.begin(), bytes.end());
}

void put(Content& target, uint64_t at, std::span<const std::byte> bytes) {
  if (target.size() < at + bytes.size()) target.resize(at + bytes.size());
  std::copy(bytes.begin(), bytes.end(), target.begin() + static_cast<ptrdiff_t>(at));
}

Content text_of(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

ScriptOnDisk script_for(const StoredImage& image, uint8_t keyring) {
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

ScriptOnDisk script_with(uint8_t options) {
  ScriptOnDisk script{};
  script.options = options;
  script.requests[0].length = 40 << 10;
  script.requests[1] = {.kind = 2, .shift = 0, .offset = 3 << 12, .length = 40 << 10};
  script.requests[2] = {.kind = 3, .shift = 0, .offset = 3 << 12, .length = 40 << 10};
  return script;
}

WritingOnDisk writing_with(uint8_t storage, uint8_t fail_at) {
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

uint32_t sectors_of(const Content& file) { return static_cast<uint32_t>((file.size() + 511) / 512); }

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

void append_files(Content& seed, const std::vector<Content>& files) {
  append_pieces(seed, files[0], 0);
  if (files.size() > 1) append_pieces(seed, files[1], second_file_flag);
}

void drop_key_material(StoredImage& image) {
  for (const auto& [file, offset] : image.luks_headers) {
    const auto begin = image.files[file].begin() + static_cast<ptrdiff_t>(offset) + 4096;
    std::fill(begin, begin + (8 * 32 * 4000), std::byte{0});
  }
}

Qcow2Image small_qcow2(uint32_t version) {
  Qcow2Image image({.size = 40 << 10, .cluster_bits = 12, .version = version});
  for (const uint64_t cluster : {0U, 1U, 5U}) image.set_l2(cluster, image.add_cluster(0x33));
  image.set_l2(2, version == 3 ? Qcow2Image::zero_flag : 0);
  return image;
}

Qcow2Image small_overlay(std::string_view name, std::string_view format) {
  Qcow2Image image = small_qcow2();
  image.header().backing_file_offset = 1024;
  image.header().backing_file_size = static_cast<uint32_t>(name.size());
  put(image.bytes(), 1024, std::as_bytes(std::span(name)));
  if (!format.empty()) image.add_extension(qcow2_ext_backing_format, text_of(format));
  return image;
}

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

} // namespace qluks::fuzz
