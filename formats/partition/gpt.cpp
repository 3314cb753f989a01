/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/partition/gpt.hpp"

#include <zlib.h>

#include <algorithm>
#include <bit>

#include "base/checked.hpp"
#include "base/log.hpp"
#include "formats/partition/ondisk.hpp"
#include "formats/text.hpp"

namespace qluks {

namespace {

constexpr uint32_t sector_sizes[] = {512, 4096};

/* Disks have 128 entries of 128 bytes, which is the least that the specification allows. */
constexpr uint32_t entry_bytes_min = 128;
constexpr uint32_t entry_bytes_max = 4096;
constexpr uint64_t array_bytes_max = 1 << 20;

/* One copy, where it was looked for. */
struct Place {
  uint32_t sector_size;
  uint64_t lba;
  std::string text() const { return "GPT header at byte " + std::to_string(lba * sector_size); }
};

/* A header whose checksum is right, so that it can be believed where the other copy is. */
struct Header {
  Place place;
  GptHeaderOnDisk fields;
};

tl::unexpected<Error> invalid(const Place& place, const std::string& what) {
  return fail(Errc::invalid_format, place.text() + ": " + what, EINVAL);
}

uint32_t crc_of(std::span<const std::byte> bytes) noexcept {
  const auto* data = reinterpret_cast<const Bytef*>(bytes.data());
  return static_cast<uint32_t>(crc32_z(0, data, bytes.size()));
}

Status check_crc(const Place& place, const char* what, uint32_t stored, uint32_t computed) {
  if (stored == computed) return ok();
  return invalid(place,
                 std::string(what) + " " + hex(stored) + " does not fit the bytes, whose CRC32 is " + hex(computed));
}

/* The header's sector; nothing if it does not start as one, or there is no such sector. */
Result<std::optional<std::vector<std::byte>>> read_sector(BlockDevice& disk, const Place& place) {
  const auto offset = checked_mul<uint64_t>(place.lba, place.sector_size);
  if (!offset || !range_fits(*offset, place.sector_size, disk.size())) return std::nullopt;
  std::vector<std::byte> sector(place.sector_size);
  if (Status s = disk.read(sector, *offset); !s) return propagate(s);
  if (load_on_disk<GptHeaderOnDisk>(sector).signature != gpt_signature) return std::nullopt;
  return sector;
}

Result<Header> check_header(std::vector<std::byte> sector, const Place& place) {
  const auto fields = load_on_disk<GptHeaderOnDisk>(sector);
  if (fields.header_size < sizeof(GptHeaderOnDisk) || fields.header_size > place.sector_size) {
    return invalid(place, "header_size " + std::to_string(fields.header_size) + " is not between 92 and " +
                              std::to_string(place.sector_size));
  }
  const auto zeroed = std::span(sector).subspan(offsetof(GptHeaderOnDisk, header_crc32), sizeof(le32));
  std::fill(zeroed.begin(), zeroed.end(), std::byte{0});
  const uint32_t crc = crc_of(std::span(sector).first(fields.header_size));
  if (Status s = check_crc(place, "header_crc32", fields.header_crc32, crc); !s) return propagate(s);
  if (fields.my_lba != place.lba) {
    return invalid(place, "my_lba " + std::to_string(fields.my_lba) + " is not " + std::to_string(place.lba));
  }
  return Header{place, fields};
}

Result<std::vector<std::byte>> read_entries(BlockDevice& disk, const Header& header) {
  const auto& [place, fields] = header;
  const uint32_t size = fields.size_of_partition_entry;
  if (size < entry_bytes_min || size > entry_bytes_max || !std::has_single_bit(size)) {
    return invalid(place, "size_of_partition_entry " + std::to_string(size) + " is no power of two from 128 to 4096");
  }
  const uint64_t bytes = uint64_t{fields.number_of_partition_entries} * size;
  if (bytes > array_bytes_max) {
    return invalid(place, "number_of_partition_entries " + std::to_string(fields.number_of_partition_entries) + " of " +
                              std::to_string(size) + " bytes is more than 1 MiB");
  }
  const auto offset = checked_mul<uint64_t>(fields.partition_entry_lba, place.sector_size);
  if (!offset || !range_fits(*offset, bytes, disk.size())) {
    return invalid(place, "partition_entry_lba " + std::to_string(fields.partition_entry_lba) +
                              ": the entries end behind the disk, which has " + std::to_string(disk.size()) + " bytes");
  }
  std::vector<std::byte> array(bytes);
  if (array.empty()) return array;
  if (Status s = disk.read(array, *offset); !s) return propagate(s);
  return array;
}

PartitionTable decode(const Header& header, std::span<const std::byte> array) {
  PartitionTable table;
  table.scheme = PartitionScheme::gpt;
  table.sector_size = header.place.sector_size;
  const size_t step = header.fields.size_of_partition_entry;
  for (uint32_t number = 1; !array.empty(); ++number, array = array.subspan(step)) {
    const auto entry = load_on_disk<GptEntryOnDisk>(array);
    if (entry.partition_type_guid == std::array<uint8_t, 16>{}) continue;
    table.entries.push_back({.number = number, .first_lba = entry.starting_lba, .last_lba = entry.ending_lba});
  }
  return table;
}

/* Storage that fails is not a damaged copy: which one is used must not depend on the weather. */
bool is_damage(const Error& error) noexcept { return error.code == Errc::invalid_format; }

class Reader {
 public:
  Reader(BlockDevice& disk, bool expected) : disk_(disk), expected_(expected) {}

  Result<std::optional<PartitionTable>> read() {
    for (const uint32_t size : sector_sizes) {
      auto table = try_copy({size, 1});
      if (!table || *table) return table;
    }
    for (const Place& place : backups()) {
      auto table = try_copy(place);
      if (!table) return table;
      if (!*table) continue;
      log_warning("the first GPT of the disk cannot be used, the one at its end is (" +
                  (damage_.empty() ? "no signature at byte 512 or 4096" : damage_) + ")");
      return table;
    }
    if (!damage_.empty()) return fail(Errc::invalid_format, damage_, EINVAL);
    if (!expected_) return std::nullopt;
    return fail(Errc::invalid_format,
                "the MBR says that there is a GPT, but none starts at byte 512 or 4096, nor in the last sector of the "
                "disk, which has " +
                    std::to_string(disk_.size()) + " bytes",
                EINVAL);
  }

 private:
  /* Nothing if there is no copy, or a damaged one. */
  Result<std::optional<PartitionTable>> try_copy(const Place& place) {
    auto sector = read_sector(disk_, place);
    if (!sector) return propagate(sector);
    if (!*sector) return std::nullopt;
    auto header = check_header(std::move(**sector), place);
    if (!header) return note_damage(header.error());
    if (place.lba == 1) alternate_ = Place{place.sector_size, header->fields.alternate_lba};
    auto array = read_entries(disk_, *header);
    if (!array) return note_damage(array.error());
    const uint32_t stored = header->fields.partition_entry_array_crc32;
    Status s = check_crc(place, "partition_entry_array_crc32", stored, crc_of(*array));
    if (!s) return note_damage(s.error());
    return decode(*header, *array);
  }

  Result<std::optional<PartitionTable>> note_damage(const Error& error) {
    if (!is_damage(error)) return tl::unexpected(error);
    damage_ += (damage_.empty() ? "" : "; ") + error.what;
    return std::nullopt;
  }

  /* Where the first copy says, if its header is sound: the disk may have grown since.  Else in the last sector. */
  std::vector<Place> backups() const {
    std::vector<Place> places;
    if (alternate_ && alternate_->lba > 1) places.push_back(*alternate_);
    for (const uint32_t size : sector_sizes) {
      const uint64_t sectors = disk_.size() / size;
      const bool known = alternate_ && alternate_->sector_size == size && alternate_->lba + 1 == sectors;
      if (sectors > 2 && !known) places.push_back({size, sectors - 1});
    }
    return places;
  }

  BlockDevice& disk_;
  bool expected_;
  std::optional<Place> alternate_;
  std::string damage_;
};

} // namespace

Result<std::optional<PartitionTable>> read_gpt(BlockDevice& disk, bool expected) {
  return Reader(disk, expected).read();
}

} // namespace qluks
