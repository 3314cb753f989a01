/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/qcow2/snapshot.hpp"

#include <algorithm>
#include <optional>
#include <vector>

#include "base/checked.hpp"
#include "base/window.hpp"
#include "formats/text.hpp"

namespace qluks {

namespace {

constexpr uint32_t extra_bytes_max = 1024;
constexpr uint64_t table_bytes_max = uint64_t{64} << 20;
constexpr size_t listed_max = 10;

/* Version 3 images have both; their sizes may grow. */
struct ExtraOnDisk {
  be64 vm_state_size_large;
  be64 disk_size;
};
static_assert(sizeof(ExtraOnDisk) == 16);

/* The table from front to back, read in large pieces. */
class TableReader {
 public:
  TableReader(BlockDevice& container, HostOffset table)
      : container_(container), table_(table.bytes), at_(table.bytes) {}

  /* The next `length` bytes, valid until the next call. */
  Result<std::span<const std::byte>> next(size_t length) {
    if (!range_fits(table_ + consumed_, length, container_.size())) {
      return past_the_end("qcow2 snapshot: table at " + hex(table_), table_ + consumed_, length, container_.size());
    }
    return take(length);
  }

  /* To the next multiple of 8 bytes.  QEMU does not write the padding of the last entry: the file may end there. */
  Status skip_padding() {
    auto padding = take(static_cast<size_t>(-consumed_ & 7));
    if (!padding) return propagate(padding);
    return ok();
  }

  uint64_t consumed() const noexcept { return consumed_; }

 private:
  Result<std::span<const std::byte>> take(size_t length) {
    if (buffer_.size() - used_ < length) {
      if (Status s = refill(length); !s) return propagate(s);
    }
    const auto bytes = std::span<const std::byte>(buffer_).subspan(used_, length);
    used_ += length;
    consumed_ += length;
    return bytes;
  }

  Status refill(size_t length) {
    buffer_.erase(buffer_.begin(), buffer_.begin() + static_cast<ptrdiff_t>(used_));
    used_ = 0;
    const size_t had = buffer_.size();
    buffer_.resize(std::max(length, piece_bytes));
    Status s = read_zero_padded(container_, std::span(buffer_).subspan(had), at_);
    at_ += buffer_.size() - had;
    return s;
  }

  static constexpr size_t piece_bytes = 64 * 1024;

  BlockDevice& container_;
  uint64_t table_;
  uint64_t at_; /* what is read next */
  std::vector<std::byte> buffer_;
  size_t used_ = 0;
  uint64_t consumed_ = 0;
};

struct Entry {
  Qcow2Snapshot snapshot;
  bool says_size = false; /* else it has the size that the disk has now */
  std::string id;
  std::string name;
};

Result<std::string> read_string(TableReader& table, uint16_t length) {
  auto bytes = table.next(length);
  if (!bytes) return propagate(bytes);
  return std::string(reinterpret_cast<const char*>(bytes->data()), bytes->size());
}

/* An image of version 2 may lack the size. */
Result<std::optional<uint64_t>> read_disk_size(TableReader& table, uint32_t extra_bytes) {
  if (extra_bytes > extra_bytes_max) {
    return fail(Errc::invalid_format, "qcow2 snapshot: extra data of " + std::to_string(extra_bytes) +
                                          " bytes is longer than " + std::to_string(extra_bytes_max));
  }
  auto extra = table.next(extra_bytes);
  if (!extra) return propagate(extra);
  if (extra_bytes < sizeof(ExtraOnDisk)) return std::nullopt;
  return align_down<uint64_t>(load_on_disk<ExtraOnDisk>(*extra).disk_size, sector_bytes);
}

Result<Entry> read_entry(TableReader& table, const Qcow2Header& header) {
  auto fixed = table.next(sizeof(Qcow2SnapshotOnDisk));
  if (!fixed) return propagate(fixed);
  const auto disk = load_on_disk<Qcow2SnapshotOnDisk>(*fixed);
  auto size = read_disk_size(table, disk.extra_data_size);
  if (!size) return propagate(size);
  auto id = read_string(table, disk.id_size);
  if (!id) return propagate(id);
  auto name = read_string(table, disk.name_size);
  if (!name) return propagate(name);
  if (Status s = table.skip_padding(); !s) return propagate(s);
  if (table.consumed() > table_bytes_max) {
    return fail(Errc::invalid_format,
                "qcow2 snapshot: the table is longer than " + std::to_string(table_bytes_max) + " bytes");
  }
  return Entry{{{disk.l1_table_offset}, disk.l1_size, size->value_or(header.size)},
               size->has_value(),
               std::move(*id),
               std::move(*name)};
}

/* The L1 table covers the disk as it was then.  If only the size of now is known, the disk may have grown since: what
 * the table does not cover is not allocated. */
Result<Qcow2Snapshot> checked(const Entry& entry, const Qcow2Header& header) {
  const Qcow2Snapshot& found = entry.snapshot;
  const uint64_t bytes = uint64_t{found.l1_entries} * sizeof(be64);
  if (Status s = check_qcow2_table(header, "l1_table of the snapshot", found.l1_offset, bytes, qcow2_l1_bytes_max);
      !s) {
    return propagate(s);
  }
  const auto needed = qcow2_l1_entries_needed(header, found.disk_size);
  if (!needed) {
    return fail(Errc::invalid_format, "qcow2 snapshot: disk_size " + std::to_string(found.disk_size) + " is too big");
  }
  if (entry.says_size && found.l1_entries < *needed) {
    return fail(Errc::invalid_format, "qcow2 snapshot: l1_size " + std::to_string(found.l1_entries) +
                                          " is less than the " + std::to_string(*needed) + " entries that disk_size " +
                                          std::to_string(found.disk_size) + " needs");
  }
  return found;
}

/* Collects the names of the first few, for the message. */
class Listing {
 public:
  void add(const Entry& entry) {
    if (++count_ > listed_max) return;
    text_ += (text_.empty() ? "" : ", ") + in_quotes(entry.name) + " (ID " + in_quotes(entry.id) + ")";
  }

  std::string text() const {
    if (count_ == 0) return "there are none";
    if (count_ <= listed_max) return "there are " + text_;
    return "there are " + text_ + " and " + std::to_string(count_ - listed_max) + " more";
  }

 private:
  size_t count_ = 0;
  std::string text_;
};

} // namespace

Result<Qcow2Snapshots> list_qcow2_snapshots(BlockDevice& container, const Qcow2Header& header) {
  TableReader table(container, header.snapshots_offset);
  Qcow2Snapshots all;
  for (uint32_t i = 0; i < header.snapshots; ++i) {
    auto entry = read_entry(table, header);
    if (!entry) return propagate(entry);
    all.snapshots.push_back(entry->snapshot);
  }
  all.table_bytes = table.consumed();
  return all;
}

Result<std::vector<Qcow2SnapshotName>> name_qcow2_snapshots(BlockDevice& container, const Qcow2Header& header,
                                                            uint32_t most) {
  TableReader table(container, header.snapshots_offset);
  std::vector<Qcow2SnapshotName> names;
  for (uint32_t i = 0; i < std::min(header.snapshots, most); ++i) {
    auto entry = read_entry(table, header);
    if (!entry) return propagate(entry);
    names.push_back({std::move(entry->id), std::move(entry->name), entry->snapshot.disk_size});
  }
  return names;
}

Result<Qcow2Snapshot> find_qcow2_snapshot(BlockDevice& container, const Qcow2Header& header,
                                          const std::string& wanted) {
  TableReader table(container, header.snapshots_offset);
  std::optional<Entry> named;
  Listing listing;
  for (uint32_t i = 0; i < header.snapshots; ++i) {
    auto entry = read_entry(table, header);
    if (!entry) return propagate(entry);
    if (entry->id == wanted) return checked(*entry, header);
    listing.add(*entry);
    if (!named && entry->name == wanted) named = std::move(*entry);
  }
  if (named) return checked(*named, header);
  return fail(Errc::invalid_format, "qcow2 has no snapshot " + in_quotes(wanted) + ": " + listing.text());
}

} // namespace qluks
