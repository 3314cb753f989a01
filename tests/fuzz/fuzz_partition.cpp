/* SPDX-License-Identifier: BSD-3-Clause */
/* A disk with any partition table: what the table says, and one partition of it.  The input is that of fuzz_qcow2 with
 * one file; the script's options:
 *
 *      1    the checksums of a GPT are made right, so that what they protect can be anything
 *      2    the first copy of a GPT is left as it is */
#include <zlib.h>

#include <algorithm>

#include "formats/partition/gpt.hpp"
#include "formats/partition/layer.hpp"
#include "formats/partition/ondisk.hpp"
#include "formats/partition/table.hpp"
#include "tests/fuzz/guest_disk.hpp"
#include "tests/fuzz/target.hpp"

namespace qluks::fuzz {

namespace {

constexpr uint8_t seal_option = 1;
constexpr uint8_t only_last_option = 2;

constexpr size_t entries_opened_max = 8;
constexpr size_t array_bytes_max = 64 << 10; /* of those that are sealed: larger ones are slow, and no other way */

using Sector = std::vector<std::byte>;

uint32_t crc_of(std::span<const std::byte> bytes) {
  return static_cast<uint32_t>(crc32(0, reinterpret_cast<const Bytef*>(bytes.data()), static_cast<uInt>(bytes.size())));
}

/* The header at that place with checksums that fit; empty if there is none. */
Sector sealed(SparseDevice& disk, uint64_t lba, uint32_t sector_size) {
  Sector sector(sector_size);
  if (!range_fits(lba * sector_size, sector_size, disk.size())) return {};
  static_cast<void>(disk.read(sector, lba * sector_size));
  auto header = load_on_disk<GptHeaderOnDisk>(sector);
  if (header.signature != gpt_signature || header.header_size > sector_size) return {};
  const uint64_t bytes = uint64_t{header.number_of_partition_entries} * header.size_of_partition_entry;
  if (bytes != 0 && bytes <= array_bytes_max && header.partition_entry_lba <= disk.size() / sector_size &&
      range_fits(header.partition_entry_lba * sector_size, bytes, disk.size())) {
    Sector array(static_cast<size_t>(bytes));
    static_cast<void>(disk.read(array, header.partition_entry_lba * sector_size));
    header.partition_entry_array_crc32 = crc_of(array);
  }
  header.header_crc32 = 0;
  const auto fields = std::as_bytes(std::span(&header, 1));
  std::copy(fields.begin(), fields.end(), sector.begin());
  header.header_crc32 = crc_of(std::span(sector).first(header.header_size));
  std::copy(fields.begin(), fields.end(), sector.begin());
  return sector;
}

void seal(SparseDevice& disk, bool only_last, std::array<Sector, 4>& sectors) {
  size_t next = 0;
  for (const uint32_t size : {512U, 4096U}) {
    const uint64_t count = disk.size() / size;
    for (const uint64_t lba : {uint64_t{1}, count - 1}) {
      if (count < 2 || (only_last && lba == 1)) continue;
      Sector& sector = sectors[next++];
      sector = sealed(disk, lba, size);
      if (!sector.empty()) disk.add(lba * size, sector);
    }
  }
}

bool same_entries(const PartitionTable& a, const PartitionTable& b) {
  return std::equal(a.entries.begin(), a.entries.end(), b.entries.begin(), b.entries.end(),
                    [](const PartitionEntry& x, const PartitionEntry& y) {
                      return x.number == y.number && x.first_lba == y.first_lba && x.last_lba == y.last_lba;
                    });
}

void check_partition(SparseDevice& disk, const PartitionTable& table, const PartitionEntry& entry,
                     const ScriptOnDisk& script) {
  const auto range = locate_partition(table, entry, disk.size());
  const auto format = open_partition(disk, entry.number);
  check(succeeded(range) == succeeded(format), "a partition opens if it lies on the disk");
  if (!range) return;
  check(range->length != 0 && range_fits(range->offset, range->length, disk.size()), "a partition lies on the disk");
  check((*format)->stack_on(disk)->size() == range->length, "a partition has the size that the table says");
  use_format(**format, disk, script);
}

} // namespace

void run_target(std::span<const std::byte> input) {
  const auto script = take<ScriptOnDisk>(input);
  if (!script) return;
  SparseDevice disk = gather_file(*script, input, 0);
  std::array<Sector, 4> sectors;
  if ((script->options & seal_option) != 0) seal(disk, (script->options & only_last_option) != 0, sectors);

  static_cast<void>(succeeded(open_partition(disk, script->place)));
  const auto table = read_partition_table(disk);
  if (!succeeded(table) || !*table) return;
  const auto again = read_partition_table(disk);
  check(again && *again && same_entries(**table, **again), "the same disk has the same partitions");
  check((*table)->entries.size() <= 8192, "there are not too many partitions");
  for (size_t i = 0; i < std::min((*table)->entries.size(), entries_opened_max); ++i) {
    check_partition(disk, **table, (*table)->entries[i], *script);
  }
}

} // namespace qluks::fuzz
