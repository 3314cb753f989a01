/* SPDX-License-Identifier: BSD-3-Clause */
#include "plugin/luks_partitions.hpp"

#include <vector>

#include "base/window.hpp"
#include "formats/luks/header.hpp"
#include "formats/partition/table.hpp"

namespace qluks {

namespace {

/* Each costs a read, perhaps over a network. */
constexpr size_t probed_max = 128;

/* Of what to type. */
constexpr size_t shown_max = 16;

struct Probed {
  std::vector<uint32_t> with_luks; /* numbers */
  size_t partitions = 0;           /* that there are */
  bool cut = false;                /* not all of them were looked at */
};

/* Partitions that do not lie on the disk hold nothing.  The first failure of the storage ends it. */
Probed probe(BlockDevice& disk, const PartitionTable& table) {
  Probed probed;
  for (const PartitionEntry& entry : table.entries) {
    if (entry.extended) continue;
    ++probed.partitions;
    if (probed.cut) continue;
    probed.cut = probed.partitions > probed_max;
    const auto range = locate_partition(table, entry, disk.size());
    if (probed.cut || !range) continue;
    Window partition(disk, range->offset, range->length);
    const auto luks = starts_as_luks(partition);
    probed.cut = !luks;
    if (luks && *luks) probed.with_luks.push_back(entry.number);
  }
  return probed;
}

/* "2", "2 and 3", "2, 3 and 5". */
std::string joined(const std::vector<std::string>& items, const char* last) {
  std::string text;
  for (size_t i = 0; i < items.size(); ++i) {
    if (i != 0) text += i + 1 == items.size() ? last : ", ";
    text += items[i];
  }
  return text;
}

std::string what_there_is(const Probed& probed, const PartitionTable& table, const std::string& layers_below) {
  const std::string cut = probed.cut ? " (not all were looked at)" : "";
  const std::string of_table = std::string(" of its ") + table.name();
  if (probed.with_luks.empty()) {
    const std::string count = std::to_string(probed.partitions);
    return (probed.partitions == 1 ? "the only partition" + of_table + " holds no LUKS"
                                   : "none of the " + count + " partitions" + of_table + " holds LUKS") +
           cut;
  }
  std::vector<std::string> numbers;
  std::vector<std::string> lists;
  for (const uint32_t number : probed.with_luks) {
    if (numbers.size() == shown_max) break;
    numbers.push_back(std::to_string(number));
    lists.push_back("qluks-layers=" + layers_below + "partition:" + numbers.back() + ",luks");
  }
  const size_t left_out = probed.with_luks.size() - numbers.size();
  if (left_out != 0) numbers.push_back(std::to_string(left_out) + " more");
  return (numbers.size() == 1 ? "partition " : "partitions ") + joined(numbers, " and ") + of_table +
         (numbers.size() == 1 ? " holds LUKS" : " hold LUKS") + cut + ": to open " +
         (numbers.size() == 1 ? "it" : "one") + ", say " + joined(lists, " or ");
}

} // namespace

LuksPartitions find_luks_partitions(BlockDevice& disk, const std::string& layers_below) {
  const auto table = read_partition_table(disk);
  if (!table) {
    if (table.error().code != Errc::invalid_format) return {};
    return {.text = "its partition table cannot be used (" + table.error().what + ")"};
  }
  if (!*table) return {};
  const Probed probed = probe(disk, **table);
  if (probed.partitions == 0) return {};
  return {.found = !probed.with_luks.empty(), .text = what_there_is(probed, **table, layers_below)};
}

} // namespace qluks
