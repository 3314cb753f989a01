/* SPDX-License-Identifier: BSD-3-Clause */
#include "info/report.hpp"

#include "base/window.hpp"
#include "formats/luks/keyring.hpp"
#include "formats/partition/table.hpp"
#include "formats/qcow2/layer.hpp"
#include "formats/qcow2/snapshot.hpp"
#include "formats/text.hpp"
#include "info/luks_report.hpp"

namespace qluks::info {

namespace {

constexpr uint32_t snapshots_shown_max = 100;
constexpr size_t partitions_shown_max = 128; /* each costs a read */

/* Tables are read, hardly any data. */
constexpr uint64_t cache_bytes = 4 << 20;

constexpr unsigned lazy_refcounts_bit = 0; /* of compatible_features */

constexpr const char* ask_for_passphrase = "qluks-passphrase=-";

std::string joined(const std::string& a, const std::string& b) { return a.empty() || b.empty() ? a + b : a + " " + b; }

std::string layers(const std::string& below, const std::string& list) { return "qluks-layers=" + below + list; }

Result<Report> snapshots_report(BlockDevice& container, const Qcow2Header& header) {
  auto names = name_qcow2_snapshots(container, header, snapshots_shown_max);
  if (!names) return propagate(names);
  Report report = Report::array();
  for (const Qcow2SnapshotName& s : *names) {
    report.push_back({{"id", s.id}, {"name", s.name}, {"disk-size", s.disk_size}});
  }
  return report;
}

Report features_report(const Qcow2Header& header) {
  Report report = {{"refcount-bits", 1U << header.refcount_order},
                   {"compression-type", header.compression == Qcow2Compression::zstd ? "zstd" : "zlib"},
                   {"lazy-refcounts", ((header.compatible >> lazy_refcounts_bit) & 1) != 0},
                   {"extended-l2", header.has(qcow2_extended_l2_bit)},
                   {"dirty", header.has(qcow2_dirty_bit)},
                   {"corrupt", header.has(qcow2_corrupt_bit)},
                   {"bitmaps", header.bitmap_directory.has_value()}};
  return report;
}

void add_files(const Qcow2Header& header, Found& found) {
  if (!header.backing_name.empty()) {
    found.layer["backing-file"] = header.backing_name;
    if (!header.backing_format.empty()) found.layer["backing-format"] = header.backing_format;
    found.parameters = joined(found.parameters, "qluks-backing=FILE");
  }
  if (header.has(qcow2_data_file_bit)) {
    found.layer["data-file"] = header.data_file_name;
    found.layer["data-file-raw"] = header.has_autoclear(qcow2_raw_data_file_bit);
    found.parameters = joined(found.parameters, "qluks-data-file=FILE");
  }
}

Status add_encryption(BlockDevice& container, const Qcow2Header& header, Found& found) {
  if (header.crypt == Qcow2CryptMethod::none) return ok();
  found.parameters = joined(found.parameters, ask_for_passphrase);
  if (header.crypt == Qcow2CryptMethod::aes) {
    found.layer["encryption"] = {{"type", "aes"}, {"cipher", "aes-cbc-plain64"}, {"key-bits", 128}};
    return ok();
  }
  Window clusters(container, header.encryption->at.bytes, header.encryption->length);
  const auto luks = read_luks_header(clusters, HeaderPlace::in_qcow2);
  if (!luks) return tl::unexpected(luks.error());
  found.layer["encryption"] = luks_report(*luks);
  return ok();
}

/* The partitions of a disk, each with its LUKS header if it has one.  Not found: the disk has no partition table. */
Result<Found> describe_partitions(BlockDevice& disk, const std::string& below) {
  const auto table = read_partition_table(disk);
  if (!table) return tl::unexpected(table.error());
  Found found;
  if (!*table) return found;
  Report list = Report::array();
  for (const PartitionEntry& entry : (*table)->entries) {
    if (list.size() == partitions_shown_max) break;
    Report partition = {{"number", entry.number}};
    const auto range = locate_partition(**table, entry, disk.size());
    if (entry.extended) partition["extended"] = true;
    if (!range && !entry.extended) partition["error"] = range.error().what;
    if (range) {
      partition["offset"] = range->offset;
      partition["size"] = range->length;
      Window window(disk, range->offset, range->length);
      const auto luks = starts_as_luks(window);
      if (!luks) return tl::unexpected(luks.error());
      if (*luks) {
        const auto header = read_luks_header(window, HeaderPlace::attached);
        partition["guest"] = header ? luks_report(*header) : Report{{"type", "luks"}, {"error", header.error().what}};
        if (header && found.parameters.empty()) {
          found.parameters = layers(below, "partition:" + std::to_string(entry.number) + ",luks ") + ask_for_passphrase;
        }
      }
    }
    list.push_back(std::move(partition));
  }
  found.layer = {{"type", "partitions"},
                 {"table", (*table)->name()},
                 {"sector-size", (*table)->sector_size},
                 {"partitions", std::move(list)}};
  if (!(*table)->damage.empty()) found.layer["damage"] = (*table)->damage;
  return found;
}

Result<Found> describe_luks(BlockDevice& device) {
  const auto header = read_luks_header(device, HeaderPlace::attached);
  if (header) return Found{.layer = luks_report(*header), .parameters = ask_for_passphrase};
  const auto detached = read_luks_header(device, HeaderPlace::detached);
  if (!detached) return tl::unexpected(header.error());
  Found found{.layer = luks_report(*detached), .parameters = ask_for_passphrase, .header_only = true};
  found.layer["detached"] = true;
  return found;
}

/* What the guest disk of a qcow2 holds, where that can be known without a secret or another file. */
Status add_guest(BlockDevice& container, const Qcow2Header& header, Found& found) {
  if (header.crypt != Qcow2CryptMethod::none || !header.backing_name.empty() || header.has(qcow2_data_file_bit)) {
    return ok();
  }
  Keyring no_secrets;
  const auto qcow2 = open_qcow2(container, header, no_secrets, {.cache_bytes = cache_bytes, .read_only = true});
  if (!qcow2) return tl::unexpected(qcow2.error());
  const auto disk = (*qcow2)->stack_on(container);
  const auto is_luks = probe_luks(*disk);
  if (!is_luks) return tl::unexpected(is_luks.error());
  auto guest = *is_luks ? describe_luks(*disk) : describe_partitions(*disk, "qcow2,");
  if (!guest) { /* of no concern to the qcow2 itself */
    found.layer["guest"] = {{"type", *is_luks ? "luks" : "partitions"}, {"error", guest.error().what}};
  } else if (!guest->layer.is_null()) {
    found.layer["guest"] = std::move(guest->layer);
    found.parameters = joined(found.parameters, guest->parameters);
  }
  return ok();
}

Result<Found> describe_qcow2(BlockDevice& container) {
  const auto header = read_qcow2_header(container);
  if (!header) return tl::unexpected(header.error());
  Found found;
  found.layer = {{"type", "qcow2"},
                 {"version", header->version},
                 {"virtual-size", header->size},
                 {"cluster-size", header->cluster_size()},
                 {"features", features_report(*header)}};
  add_files(*header, found);
  if (header->snapshots != 0) {
    auto names = snapshots_report(container, *header);
    if (!names) return propagate(names);
    found.layer["snapshot-count"] = header->snapshots;
    found.layer["snapshots"] = std::move(*names);
  }
  if (Status s = add_encryption(container, *header, found); !s) return propagate(s);
  if (Status s = add_guest(container, *header, found); !s) return propagate(s);
  return found;
}

} // namespace

Result<Found> describe_image(BlockDevice& image) {
  const auto qcow2 = probe_qcow2(image);
  if (!qcow2) return tl::unexpected(qcow2.error());
  if (*qcow2) return describe_qcow2(image);
  const auto luks = probe_luks(image);
  if (!luks) return tl::unexpected(luks.error());
  if (*luks) return describe_luks(image);
  auto disk = describe_partitions(image, "");
  if (!disk || !disk->layer.is_null()) return disk;
  return fail(Errc::invalid_format, "the image is neither qcow2 nor LUKS, and has no partition table");
}

namespace {

std::string value_text(const Report& value) {
  return value.is_string() ? in_quotes(value.get_ref<const std::string&>()) : value.dump();
}

void print(const Report& object, size_t depth, std::string& out) {
  const std::string margin(2 * depth, ' ');
  for (const auto& [name, value] : object.items()) {
    if (value.is_object()) {
      out += margin + name + ":\n";
      print(value, depth + 1, out);
    } else if (value.is_array()) {
      for (const Report& item : value) {
        out += margin + name + ":\n";
        print(item, depth + 1, out);
      }
    } else {
      out += margin + name + ": " + value_text(value) + "\n";
    }
  }
}

} // namespace

std::string as_text(const Report& report) {
  std::string out;
  print(report, 0, out);
  return out;
}

std::string as_json(const Report& report) { return report.dump(4, ' ', true, Report::error_handler_t::replace) + "\n"; }

} // namespace qluks::info
