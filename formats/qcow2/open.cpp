/* SPDX-License-Identifier: BSD-3-Clause */
#include <algorithm>
#include <vector>

#include "base/log.hpp"
#include "base/window.hpp"
#include "formats/qcow2/image.hpp"
#include "formats/qcow2/layer.hpp"
#include "formats/qcow2/snapshot.hpp"
#include "formats/text.hpp"

namespace qluks {

namespace {

/* Of an L1 table, when a client comes to an image that others have open. */
constexpr uint64_t l1_looked_at = 64 * 1024;

class OpenedQcow2 final : public Qcow2Format {
 public:
  OpenedQcow2(Qcow2Image image, bool is_snapshot) : image_(std::move(image)), is_snapshot_(is_snapshot) {}

  /* An image that must not be written is served read-only. */
  void open_for_writing(BlockDevice& container, const Qcow2Options& options) {
    if (options.read_only || !options.snapshot.empty() || !container.write_abilities().write) return;
    auto writer = Qcow2Writer::open(container, image_.header, image_.map, options.data_file.get(),
                                    options.cache_bytes / changed_tables_part);
    if (!writer) {
      why_read_only_ = "qcow2: " + writer.error().what;
      return;
    }
    image_.writer = std::move(*writer);
    if (!container.write_abilities().flush) {
      log_warning("qcow2: the plugin has no flush, so a power cut may leave the image inconsistent");
    }
  }

  std::unique_ptr<BlockDevice> stack_on(BlockDevice& below) override { return make_qcow2_layer(image_, below); }

  std::string describe() const override {
    const std::string format = "qcow2 v" + std::to_string(image_.header.version);
    return image_.crypt ? format + ", " + image_.crypt->describe() : format;
  }

  std::string why_read_only() const override { return why_read_only_; }

  /* Another program that allocates clusters changes the L1 table, sooner or later. */
  bool has_changed(BlockDevice& below) const override {
    if (image_.writer) return false; /* it changes them itself, and nobody else may */
    const auto now = read_qcow2_header(below);
    if (!now) return false; /* storage that fails now says nothing */
    const Qcow2Header& then = image_.header;
    if (now->size != then.size || now->l1_offset != then.l1_offset || now->l1_entries != then.l1_entries) return true;
    if (is_snapshot_) return false;
    std::vector<std::byte> l1(
        static_cast<size_t>(std::min<uint64_t>(image_.map.l1_entries() * sizeof(be64), l1_looked_at)));
    if (l1.empty() || !read_zero_padded(below, l1, then.l1_offset.bytes)) return false;
    return !std::equal(l1.begin(), l1.end(), image_.map.l1_bytes());
  }

  bool encrypted() const noexcept override { return image_.crypt.has_value(); }

 private:
  /* How much of the cache tables may fill that are not written back yet. */
  static constexpr uint64_t changed_tables_part = 4;

  Qcow2Image image_;
  bool is_snapshot_;
  std::string why_read_only_;
};

Status check_corrupt(const Qcow2Header& header, const Qcow2Options& options) {
  if (!header.has(qcow2_corrupt_bit) || options.read_only) return ok();
  return fail(Errc::corrupt,
              "qcow2 header: the image is marked corrupt (incompatible bit 1): "
              "serve it read-only (nbdkit -r) or repair it (qemu-img check -r all)");
}

/* What the image refers to and what the caller gives must agree. */
Status check_files(const Qcow2Header& header, const Qcow2Options& options) {
  const bool has_data_file = header.has(qcow2_data_file_bit);
  if (has_data_file && options.data_file == nullptr) {
    return fail(Errc::unsupported, "qcow2 header: the data is in an external file, " +
                                       in_quotes(header.data_file_name) + ": give it with qluks-data-file=");
  }
  if (!has_data_file && options.data_file != nullptr) {
    return fail(Errc::invalid_format,
                "qcow2 header: qluks-data-file= is given, but the image has no external data file");
  }
  const bool has_backing = !header.backing_name.empty();
  if (has_backing && options.backing == nullptr) {
    return fail(Errc::unsupported, "qcow2 header: the image has a backing file, " + in_quotes(header.backing_name) +
                                       ": give it with qluks-backing=");
  }
  if (!has_backing && options.backing != nullptr) {
    return fail(Errc::invalid_format, "qcow2 header: a backing file is given, but the image has none");
  }
  return ok();
}

/* The disk itself, or as it was when a snapshot was taken. */
Result<Qcow2Snapshot> choose_disk(BlockDevice& container, const Qcow2Header& header, const std::string& snapshot) {
  if (!snapshot.empty()) return find_qcow2_snapshot(container, header, snapshot);
  return Qcow2Snapshot{header.l1_offset, header.l1_entries, header.size};
}

/* What the L1 table holds beyond the disk is VM state. */
Result<Qcow2Map> load_map(BlockDevice& container, const Qcow2Header& header, const Qcow2Snapshot& disk,
                          std::shared_ptr<Qcow2Cache> cache) {
  const uint32_t needed = *qcow2_l1_entries_needed(header, disk.disk_size);
  return Qcow2Map::load(container, Qcow2Geometry(header), disk.l1_offset, std::min(needed, disk.l1_entries),
                        std::move(cache));
}

Result<std::optional<Qcow2Crypt>> unlock(BlockDevice& container, const Qcow2Header& header, Keyring& keyring) {
  if (header.crypt == Qcow2CryptMethod::none) return std::nullopt;
  auto crypt = Qcow2Crypt::unlock(container, header, keyring);
  if (!crypt) return propagate(crypt);
  return std::move(*crypt);
}

void log_opened(const Qcow2Image& image) {
  const Qcow2Header& h = image.header;
  log_debug("qcow2: version " + std::to_string(h.version) + ", size " + std::to_string(image.size) + ", cluster size " +
            std::to_string(h.cluster_size()) + ", l1_size " + std::to_string(h.l1_entries) + ", incompatible " +
            hex(h.incompatible) + ", compatible " + hex(h.compatible) + ", autoclear " + hex(h.autoclear));
}

} // namespace

Result<bool> probe_qcow2(BlockDevice& device) {
  std::array<std::byte, sizeof(be32)> magic;
  if (Status s = read_zero_padded(device, magic, 0); !s) return propagate(s);
  return load_on_disk<be32>(magic) == qcow2_magic;
}

Result<std::unique_ptr<Qcow2Format>> open_qcow2(BlockDevice& container, Qcow2Header header, Keyring& keyring,
                                                const Qcow2Options& options) {
  if (Status s = check_corrupt(header, options); !s) return propagate(s);
  if (Status s = check_files(header, options); !s) return propagate(s);

  auto disk = choose_disk(container, header, options.snapshot);
  if (!disk) return propagate(disk);
  auto cache = options.cache != nullptr ? options.cache : std::make_shared<Qcow2Cache>(options.cache_bytes);
  auto map = load_map(container, header, *disk, cache);
  if (!map) return propagate(map);
  auto crypt = unlock(container, header, keyring);
  if (!crypt) return propagate(crypt);

  CompressedClusters compressed(header, std::move(cache));
  Qcow2Image image{std::move(header), disk->disk_size,   std::move(*map), std::move(compressed),
                   std::move(*crypt), options.data_file, options.backing};
  log_opened(image);
  auto opened = std::make_unique<OpenedQcow2>(std::move(image), !options.snapshot.empty());
  opened->open_for_writing(container, options);
  return opened;
}

Result<std::unique_ptr<Qcow2Format>> open_qcow2(BlockDevice& container, Keyring& keyring, const Qcow2Options& options) {
  auto header = read_qcow2_header(container);
  if (!header) return propagate(header);
  return open_qcow2(container, std::move(*header), keyring, options);
}

} // namespace qluks
