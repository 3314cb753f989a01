/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/partition/layer.hpp"

#include <algorithm>

#include "base/log.hpp"
#include "base/window.hpp"
#include "formats/partition/table.hpp"

namespace qluks {

namespace {

/* Of a table that has more, the first ones are named. */
constexpr size_t numbers_shown_max = 32;

class PartitionFormat final : public Format {
 public:
  PartitionFormat(uint32_t number, const PartitionRange& range) : number_(number), range_(range) {}

  /* A disk that is shorter by now shows less of the partition. */
  std::unique_ptr<BlockDevice> stack_on(BlockDevice& below) override {
    const uint64_t present = below.size() > range_.offset ? below.size() - range_.offset : 0;
    return std::make_unique<Window>(below, range_.offset, std::min(range_.length, present));
  }

  std::string describe() const override { return "partition " + std::to_string(number_); }

 private:
  const uint32_t number_;
  const PartitionRange range_;
};

std::string numbers_of(const PartitionTable& table) {
  std::string text;
  const size_t shown = std::min(table.entries.size(), numbers_shown_max);
  for (size_t i = 0; i < shown; ++i) text += (i == 0 ? "" : ", ") + std::to_string(table.entries[i].number);
  return shown < table.entries.size() ? text + ", ..." : text;
}

tl::unexpected<Error> not_found(const PartitionTable& table, uint32_t number) {
  const std::string has = table.entries.empty() ? "has none" : "has " + numbers_of(table);
  return fail(Errc::invalid_format,
              "there is no partition " + std::to_string(number) + ": the " + table.name() + " " + has +
                  (table.damage.empty() ? "" : "; " + table.damage),
              EINVAL);
}

Result<PartitionRange> find(const PartitionTable& table, uint32_t number, uint64_t disk_bytes) {
  const auto entry = std::find_if(table.entries.begin(), table.entries.end(),
                                  [&](const PartitionEntry& e) { return e.number == number; });
  if (entry == table.entries.end()) return not_found(table, number);
  return locate_partition(table, *entry, disk_bytes);
}

} // namespace

Result<std::unique_ptr<Format>> open_partition(BlockDevice& disk, uint32_t number) {
  const auto table = read_partition_table(disk);
  if (!table) return tl::unexpected(table.error());
  if (!*table) {
    return fail(Errc::invalid_format,
                "there is no partition " + std::to_string(number) + ": the disk has no partition table (GPT or MBR)",
                EINVAL);
  }
  const auto range = find(**table, number, disk.size());
  if (!range) return tl::unexpected(range.error());
  log_debug(std::string((*table)->name()) + ": partition " + std::to_string(number) + " has " +
            std::to_string(range->length) + " bytes at byte " + std::to_string(range->offset));
  return std::make_unique<PartitionFormat>(number, *range);
}

} // namespace qluks
