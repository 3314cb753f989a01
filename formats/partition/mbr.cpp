/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/partition/mbr.hpp"

#include <algorithm>
#include <set>

#include "base/checked.hpp"
#include "base/units.hpp"

namespace qluks {

namespace {

/* Linux has 255 partitions at the most on a disk, and gives up when 100 EBRs on end hold none. */
constexpr size_t ebrs_max = 256;

constexpr uint32_t first_logical = 5;

bool is_used(const MbrEntryOnDisk& entry) noexcept { return entry.size_in_lba != 0; }

/* By DOS, by Windows with LBA, by Linux. */
bool is_extended(const MbrEntryOnDisk& entry) noexcept {
  return entry.os_type == 0x05 || entry.os_type == 0x0f || entry.os_type == 0x85;
}

/* No field is wider than 32 bits, so none of the sums overflows. */
PartitionEntry decode(const MbrEntryOnDisk& entry, uint32_t number, uint64_t counted_from) noexcept {
  const uint64_t first = counted_from + entry.starting_lba;
  return {.number = number, .first_lba = first, .last_lba = first + entry.size_in_lba - 1};
}

/* Follows the chain of one extended partition. */
class Chain {
 public:
  Chain(BlockDevice& disk, const PartitionEntry& extended, PartitionTable& table)
      : disk_(disk), extended_(extended), table_(table) {}

  Status follow(uint32_t& next_number) {
    for (std::optional<uint64_t> at = extended_.first_lba; at;) {
      if (Status s = note_visit(*at); !s) return s;
      if (!range_fits(*at * sector_bytes, sector_bytes, disk_.size())) return end_damaged(*at, "lies behind the disk");
      auto ebr = read_ebr(*at);
      if (!ebr) return propagate(ebr);
      if (ebr->signature != mbr_signature) return end_damaged(*at, "does not end in the signature 55 aa");
      add_partitions(*ebr, *at, next_number);
      at = next_link(*ebr);
    }
    return ok();
  }

 private:
  Status note_visit(uint64_t at) {
    if (!visited_.insert(at).second) {
      return fail(Errc::invalid_format,
                  "MBR: the chain of logical partitions comes back to the EBR at sector " + std::to_string(at), EINVAL);
    }
    if (visited_.size() <= ebrs_max) return ok();
    return fail(Errc::invalid_format,
                "MBR: the chain of logical partitions has more than " + std::to_string(ebrs_max) + " EBRs", EINVAL);
  }

  Status end_damaged(uint64_t at, const char* why) {
    table_.damage = "the EBR at sector " + std::to_string(at) + " " + why;
    return ok();
  }

  Result<MbrOnDisk> read_ebr(uint64_t at) {
    std::array<std::byte, sizeof(MbrOnDisk)> bytes;
    if (Status s = disk_.read(bytes, at * sector_bytes); !s) return propagate(s);
    return load_on_disk<MbrOnDisk>(bytes);
  }

  bool lies_inside(const PartitionEntry& entry) const noexcept {
    return entry.first_lba >= extended_.first_lba && entry.last_lba <= extended_.last_lba;
  }

  /* What is in the third and fourth entry may be garbage, and counts only if it can be a partition. */
  void add_partitions(const MbrOnDisk& ebr, uint64_t at, uint32_t& next_number) {
    for (size_t i = 0; i < ebr.entries.size(); ++i) {
      if (!is_used(ebr.entries[i]) || is_extended(ebr.entries[i])) continue;
      const PartitionEntry entry = decode(ebr.entries[i], next_number, at);
      if (i >= 2 && !lies_inside(entry)) continue;
      table_.entries.push_back(entry);
      ++next_number;
    }
  }

  std::optional<uint64_t> next_link(const MbrOnDisk& ebr) const {
    const auto link = std::find_if(ebr.entries.begin(), ebr.entries.end(),
                                   [](const MbrEntryOnDisk& entry) { return is_used(entry) && is_extended(entry); });
    if (link == ebr.entries.end()) return std::nullopt;
    return extended_.first_lba + link->starting_lba;
  }

  BlockDevice& disk_;
  const PartitionEntry extended_;
  PartitionTable& table_;
  std::set<uint64_t> visited_;
};

} // namespace

bool is_mbr(const MbrOnDisk& mbr) noexcept {
  return mbr.signature == mbr_signature &&
         std::all_of(mbr.entries.begin(), mbr.entries.end(), [](const MbrEntryOnDisk& entry) {
           return entry.boot_indicator == 0 || entry.boot_indicator == 0x80;
         });
}

bool protects_gpt(const MbrOnDisk& mbr) noexcept {
  return std::any_of(mbr.entries.begin(), mbr.entries.end(),
                     [](const MbrEntryOnDisk& entry) { return entry.os_type == mbr_type_gpt; });
}

Result<PartitionTable> read_mbr_partitions(BlockDevice& disk, const MbrOnDisk& mbr) {
  PartitionTable table;
  for (size_t i = 0; i < mbr.entries.size(); ++i) {
    if (!is_used(mbr.entries[i])) continue;
    table.entries.push_back(decode(mbr.entries[i], static_cast<uint32_t>(i + 1), 0));
    table.entries.back().extended = is_extended(mbr.entries[i]);
  }
  uint32_t next_number = first_logical;
  const auto primary = table.entries; // what follows adds to the table
  for (const PartitionEntry& entry : primary) {
    if (!entry.extended) continue;
    if (Status s = Chain(disk, entry, table).follow(next_number); !s) return propagate(s);
  }
  return table;
}

} // namespace qluks
