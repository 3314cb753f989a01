/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/qcow2/header.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <vector>

#include "base/checked.hpp"
#include "base/window.hpp"
#include "formats/text.hpp"

namespace qluks {

namespace {

/* Most images have all of their header and extensions in here. */
constexpr uint64_t first_read_bytes = 64 * 1024;

constexpr uint64_t refcount_table_bytes_max = 8 << 20;
constexpr uint32_t snapshots_max = 65536;
constexpr uint64_t snapshot_bytes_min = 40;
constexpr uint32_t backing_name_bytes_max = 1023;
constexpr uint32_t backing_format_bytes_max = 15;
constexpr uint32_t bitmaps_max = 65535;
constexpr uint64_t bitmap_directory_bytes_max = uint64_t{1024} * bitmaps_max;
constexpr uint64_t known_incompatible_bits = (1 << qcow2_dirty_bit) | (1 << qcow2_corrupt_bit) |
                                             (1 << qcow2_data_file_bit) | (1 << qcow2_compression_bit) |
                                             (1 << qcow2_extended_l2_bit);
constexpr unsigned extended_l2_cluster_bits_min = 14; /* 32 subclusters of at least 512 bytes */
/* A LUKS1 header with eight slots of the longest key needs 2 MiB. */
constexpr uint64_t encryption_header_bytes_max = 16 << 20;

template <class... Parts>
tl::unexpected<Error> invalid(const Parts&... parts) {
  return fail(Errc::invalid_format, (std::string("qcow2 header: ") + ... + parts));
}

std::string text(uint64_t value) { return std::to_string(value); }

/* The start of cluster 0, read as far as it is needed and never twice. */
class HeaderArea {
 public:
  explicit HeaderArea(BlockDevice& container) : container_(container) {}

  /* [offset, offset + length), valid until the next call; at most one cluster is ever asked for.  The area doubles,
   * so that a long list of extensions does not cost a read each. */
  Result<std::span<const std::byte>> at(uint64_t offset, uint64_t length) {
    const uint64_t end = offset + length;
    if (end > container_.size()) return past_the_end("qcow2 header", offset, length, container_.size());
    if (end > bytes_.size()) {
      const size_t had = bytes_.size();
      bytes_.resize(static_cast<size_t>(std::max<uint64_t>({end, first_read_bytes, 2 * had})));
      if (Status s = read_zero_padded(container_, std::span(bytes_).subspan(had), had); !s) return propagate(s);
    }
    return std::span<const std::byte>(bytes_).subspan(static_cast<size_t>(offset), static_cast<size_t>(length));
  }

  Result<std::string> string_at(uint64_t offset, uint64_t length) {
    auto bytes = at(offset, length);
    if (!bytes) return propagate(bytes);
    return std::string(reinterpret_cast<const char*>(bytes->data()), bytes->size());
  }

  /* The fields that every version has, and the others as far as the file goes. */
  Result<Qcow2HeaderOnDisk> load_header() {
    std::array<std::byte, sizeof(Qcow2HeaderOnDisk)> fields{};
    auto bytes = at(0, std::clamp<uint64_t>(container_.size(), qcow2_v2_header_length, fields.size()));
    if (!bytes) return propagate(bytes);
    std::copy(bytes->begin(), bytes->end(), fields.begin());
    return load_on_disk<Qcow2HeaderOnDisk>(fields);
  }

  template <class OnDisk>
  Result<OnDisk> load(uint64_t offset) {
    auto bytes = at(offset, sizeof(OnDisk));
    if (!bytes) return propagate(bytes);
    return load_on_disk<OnDisk>(*bytes);
  }

 private:
  BlockDevice& container_;
  std::vector<std::byte> bytes_;
};

struct Extension {
  uint32_t magic;
  uint32_t length;
  uint64_t offset; /* of the payload */
};

/* What the fields mean, before they are known to make sense. */
struct Decoded {
  Qcow2Header header;
  uint64_t backing_offset = 0;
  uint32_t backing_bytes = 0;
  uint32_t header_length = qcow2_v2_header_length;
  uint32_t crypt_method = 0;
  unsigned compression_type = 0;

  uint64_t extensions_end() const noexcept { return backing_offset != 0 ? backing_offset : header.cluster_size(); }
};

/* Magic, version and cluster size: without them no other field can be judged. */
Status check_kind(const Qcow2HeaderOnDisk& disk) {
  if (disk.magic != qcow2_magic) return invalid("magic ", hex(disk.magic), " is not ", hex(qcow2_magic));
  if (disk.version != 2 && disk.version != 3) {
    return fail(Errc::unsupported,
                "qcow2 header: version " + text(disk.version) + " is not 2 or 3" +
                    (disk.version == 1 ? ": this is a QCOW1 image, convert it with qemu-img convert -O qcow2" : ""));
  }
  if (disk.cluster_bits < 9 || disk.cluster_bits > 21) {
    return invalid("cluster_bits ", text(disk.cluster_bits), " is not in 9 to 21");
  }
  return ok();
}

Decoded decode(const Qcow2HeaderOnDisk& disk) {
  Decoded d;
  d.header.version = disk.version;
  d.header.cluster_bits = disk.cluster_bits;
  d.header.size = align_down<uint64_t>(disk.size, sector_bytes); /* QEMU counts whole sectors */
  d.header.l1_offset = {disk.l1_table_offset};
  d.header.l1_entries = disk.l1_size;
  d.header.refcount_table_offset = {disk.refcount_table_offset};
  d.header.refcount_table_clusters = disk.refcount_table_clusters;
  d.header.snapshots_offset = {disk.snapshots_offset};
  d.header.snapshots = disk.nb_snapshots;
  d.backing_offset = disk.backing_file_offset;
  d.backing_bytes = disk.backing_file_size;
  d.crypt_method = disk.crypt_method;
  if (disk.version == 2) return d;

  d.header.incompatible = disk.incompatible_features;
  d.header.compatible = disk.compatible_features;
  d.header.autoclear = disk.autoclear_features;
  d.header.refcount_order = disk.refcount_order;
  d.header_length = disk.header_length;
  if (d.header_length > offsetof(Qcow2HeaderOnDisk, compression_type)) d.compression_type = disk.compression_type;
  return d;
}

Status check_lengths(const Decoded& d) {
  const uint64_t cluster_size = d.header.cluster_size();
  if (d.header.version == 3 && d.header_length < qcow2_v3_header_length_min) {
    return invalid("header_length ", text(d.header_length), " is less than ", text(qcow2_v3_header_length_min));
  }
  if (d.header_length > cluster_size) {
    return invalid("header_length ", text(d.header_length), " is more than a cluster (", text(cluster_size), ")");
  }
  if (d.backing_offset > cluster_size) {
    return invalid("backing_file_offset ", text(d.backing_offset), " is beyond the first cluster (", text(cluster_size),
                   ")");
  }
  return ok();
}

/* END is not mandatory; its own length is checked like any other, as QEMU does. */
Result<std::vector<Extension>> list_extensions(HeaderArea& area, const Decoded& d) {
  std::vector<Extension> list;
  const uint64_t end = d.extensions_end();
  uint64_t offset = d.header_length;
  while (offset < end) {
    if (end - offset < sizeof(Qcow2ExtensionOnDisk)) {
      return invalid("the extension at ", text(offset), " does not end before ", text(end));
    }
    auto disk = area.load<Qcow2ExtensionOnDisk>(offset);
    if (!disk) return propagate(disk);
    offset += sizeof(Qcow2ExtensionOnDisk);
    if (disk->length > end - offset) {
      return invalid("extension ", hex(disk->magic), " of ", text(disk->length), " bytes does not end before ",
                     text(end));
    }
    if (disk->magic == qcow2_ext_end) break;
    list.push_back({disk->magic, disk->length, offset});
    offset += align_down<uint64_t>(uint64_t{disk->length} + 7, 8);
  }
  return list;
}

/* The image's own name for an incompatible bit, or its number. */
Result<std::string> feature_name(HeaderArea& area, const std::vector<Extension>& extensions, unsigned bit) {
  for (const Extension& e : extensions) {
    if (e.magic != qcow2_ext_feature_names) continue;
    for (uint32_t at = 0; e.length - at >= sizeof(Qcow2FeatureNameOnDisk); at += sizeof(Qcow2FeatureNameOnDisk)) {
      auto record = area.load<Qcow2FeatureNameOnDisk>(e.offset + at);
      if (!record) return propagate(record);
      if (record->type != 0 || record->bit != bit) continue;
      const std::string_view name(record->name.data(), record->name.size());
      return "bit " + text(bit) + " " + in_quotes(name.substr(0, name.find('\0')));
    }
  }
  return "bit " + text(bit);
}

Status check_features(HeaderArea& area, const std::vector<Extension>& extensions, const Decoded& d) {
  std::string unknown;
  for (unsigned bit = 0; bit < 64; ++bit) {
    if (!d.header.has(bit) || ((known_incompatible_bits >> bit) & 1) != 0) continue;
    auto name = feature_name(area, extensions, bit);
    if (!name) return propagate(name);
    unknown += (unknown.empty() ? "" : ", ") + *name;
  }
  if (!unknown.empty()) {
    return fail(Errc::unsupported, "qcow2 header: incompatible_features that are not known: " + unknown);
  }
  if (d.header.has(qcow2_extended_l2_bit) && d.header.cluster_bits < extended_l2_cluster_bits_min) {
    return invalid("cluster_bits ", text(d.header.cluster_bits), " is less than ", text(extended_l2_cluster_bits_min),
                   ", which extended L2 entries need");
  }
  if (d.header.has_autoclear(qcow2_raw_data_file_bit) && !d.header.has(qcow2_data_file_bit)) {
    return invalid("autoclear bit 1 (raw external data) is set without an external data file");
  }
  return ok();
}

Status check_compression(Decoded& d) {
  if (d.compression_type > 1) {
    return fail(Errc::unsupported,
                "qcow2 header: compression_type " + text(d.compression_type) + " is not 0 (zlib) or 1 (zstd)");
  }
  if ((d.compression_type != 0) != d.header.has(qcow2_compression_bit)) {
    return invalid("compression_type ", text(d.compression_type), " and incompatible bit 3 contradict each other");
  }
  d.header.compression = static_cast<Qcow2Compression>(d.compression_type);
  return ok();
}

Status check_crypt_method(Decoded& d) {
  if (d.crypt_method > 2) {
    return fail(Errc::unsupported,
                "qcow2 header: crypt_method " + text(d.crypt_method) + " is not 0 (none), 1 (AES) or 2 (LUKS)");
  }
  d.header.crypt = static_cast<Qcow2CryptMethod>(d.crypt_method);
  return ok();
}

Status check_refcounts(const Qcow2Header& h) {
  if (h.refcount_order > 6) return invalid("refcount_order ", text(h.refcount_order), " is more than 6");
  if (h.refcount_table_clusters == 0) return invalid("refcount_table_clusters is 0");
  return check_qcow2_table(h, "refcount_table", h.refcount_table_offset, h.refcount_table_clusters * h.cluster_size(),
                           refcount_table_bytes_max);
}

/* The offset is checked for no snapshots as well, as in QEMU. */
Status check_snapshots(const Qcow2Header& h) {
  if (h.snapshots > snapshots_max) {
    return invalid("nb_snapshots ", text(h.snapshots), " is more than ", text(snapshots_max));
  }
  return check_qcow2_table(h, "snapshots", h.snapshots_offset, h.snapshots * snapshot_bytes_min,
                           snapshots_max * snapshot_bytes_min);
}

Status check_l1(const Qcow2Header& h) {
  const auto needed = qcow2_l1_entries_needed(h, h.size);
  if (!needed) return invalid("size ", text(h.size), " is too big for clusters of ", text(h.cluster_size()), " bytes");
  if (h.l1_entries < *needed) {
    return invalid("l1_size ", text(h.l1_entries), " is less than the ", text(*needed), " entries that size ",
                   text(h.size), " needs");
  }
  return check_qcow2_table(h, "l1_table", h.l1_offset, uint64_t{h.l1_entries} * sizeof(be64), qcow2_l1_bytes_max);
}

Status read_encryption(HeaderArea& area, const Extension& e, Qcow2Header& h) {
  if (h.crypt != Qcow2CryptMethod::luks) return invalid("an encryption extension without crypt_method 2 (LUKS)");
  if (e.length != sizeof(Qcow2EncryptionOnDisk)) {
    return invalid("the encryption extension has ", text(e.length), " bytes, not ",
                   text(sizeof(Qcow2EncryptionOnDisk)));
  }
  auto disk = area.load<Qcow2EncryptionOnDisk>(e.offset);
  if (!disk) return propagate(disk);
  h.encryption = HostRange{{disk->offset}, disk->length};
  return check_qcow2_table(h, "encryption header", h.encryption->at, h.encryption->length, encryption_header_bytes_max);
}

/* Bitmaps are not served, but an image whose bitmaps make no sense is refused, as by QEMU. */
Status check_bitmaps(HeaderArea& area, const Extension& e, Qcow2Header& h) {
  if (e.length != sizeof(Qcow2BitmapsOnDisk)) {
    return invalid("the bitmaps extension has ", text(e.length), " bytes, not ", text(sizeof(Qcow2BitmapsOnDisk)));
  }
  if (!h.has_autoclear(qcow2_bitmaps_bit)) return ok(); /* stale: a writer that knew no bitmaps came by */
  auto disk = area.load<Qcow2BitmapsOnDisk>(e.offset);
  if (!disk) return propagate(disk);
  if (disk->reserved != 0) return invalid("the reserved field of the bitmaps extension is not 0");
  if (disk->nb_bitmaps == 0 || disk->nb_bitmaps > bitmaps_max) {
    return invalid("nb_bitmaps ", text(disk->nb_bitmaps), " is not in 1 to ", text(bitmaps_max));
  }
  h.bitmap_directory = HostRange{{disk->directory_offset}, disk->directory_size};
  return check_qcow2_table(h, "bitmap directory", {disk->directory_offset}, disk->directory_size,
                           bitmap_directory_bytes_max);
}

Status read_backing_format(HeaderArea& area, const Extension& e, Qcow2Header& h) {
  if (e.length > backing_format_bytes_max) {
    return invalid("backing format name of ", text(e.length), " bytes is longer than ", text(backing_format_bytes_max));
  }
  auto name = area.string_at(e.offset, e.length);
  if (!name) return propagate(name);
  h.backing_format = *name;
  return ok();
}

Status read_data_file_name(HeaderArea& area, const Extension& e, Qcow2Header& h) {
  auto name = area.string_at(e.offset, e.length);
  if (!name) return propagate(name);
  h.data_file_name = *name;
  return ok();
}

/* Extensions that are not known are for others. */
Status read_extension(HeaderArea& area, const Extension& e, Qcow2Header& h) {
  switch (e.magic) {
    case qcow2_ext_backing_format:
      return read_backing_format(area, e, h);
    case qcow2_ext_encryption:
      return read_encryption(area, e, h);
    case qcow2_ext_bitmaps:
      return check_bitmaps(area, e, h);
    case qcow2_ext_data_file:
      return read_data_file_name(area, e, h);
    default:
      return ok();
  }
}

Status read_backing_name(HeaderArea& area, Decoded& d) {
  if (d.backing_offset == 0) return ok();
  const uint64_t limit = std::min<uint64_t>(backing_name_bytes_max, d.header.cluster_size() - d.backing_offset);
  if (d.backing_bytes > limit) {
    return invalid("backing_file_size ", text(d.backing_bytes), " is more than ", text(limit));
  }
  auto name = area.string_at(d.backing_offset, d.backing_bytes);
  if (!name) return propagate(name);
  d.header.backing_name = *name;
  return ok();
}

/* Everything that is not in an extension, in QEMU's order. */
Status check_fields(Decoded& d) {
  if (Status s = check_compression(d); !s) return s;
  if (Status s = check_crypt_method(d); !s) return s;
  if (Status s = check_refcounts(d.header); !s) return s;
  if (Status s = check_snapshots(d.header); !s) return s;
  return check_l1(d.header);
}

} // namespace

Status check_qcow2_table(const Qcow2Header& header, const std::string& name, HostOffset offset, uint64_t bytes,
                         uint64_t bytes_max) {
  if (bytes > bytes_max) return invalid(name, " of ", text(bytes), " bytes is longer than ", text(bytes_max));
  if (!is_aligned(offset.bytes, header.cluster_size())) {
    return invalid(name, " offset ", hex(offset.bytes), " is not a multiple of the cluster size (",
                   hex(header.cluster_size()), ")");
  }
  if (!range_fits(offset.bytes, bytes, std::numeric_limits<int64_t>::max())) {
    return invalid(name, " offset ", hex(offset.bytes), " is beyond what a file can hold");
  }
  return ok();
}

std::optional<uint32_t> qcow2_l1_entries_needed(const Qcow2Header& header, uint64_t size) noexcept {
  if (size > std::numeric_limits<int64_t>::max()) return std::nullopt;
  const unsigned entry_bits = header.has(qcow2_extended_l2_bit) ? 4 : 3;
  const unsigned bits = header.cluster_bits + (header.cluster_bits - entry_bits); /* of the guest, by one L2 table */
  const uint64_t last_partial = (size & ((uint64_t{1} << bits) - 1)) != 0 ? 1 : 0;
  const uint64_t entries = (size >> bits) + last_partial;
  if (entries > std::numeric_limits<int32_t>::max()) return std::nullopt;
  return static_cast<uint32_t>(entries);
}

Result<Qcow2Header> read_qcow2_header(BlockDevice& container) {
  HeaderArea area(container);
  auto disk = area.load_header();
  if (!disk) return propagate(disk);
  if (Status s = check_kind(*disk); !s) return propagate(s);
  if (disk->version == 3) {
    if (auto fixed = area.at(0, qcow2_v3_header_length_min); !fixed) return propagate(fixed);
  }
  Decoded d = decode(*disk);
  if (Status s = check_lengths(d); !s) return propagate(s);
  if (auto all = area.at(0, d.header_length); !all) return propagate(all);
  auto extensions = list_extensions(area, d);
  if (!extensions) return propagate(extensions);
  if (Status s = check_features(area, *extensions, d); !s) return propagate(s);
  if (Status s = check_fields(d); !s) return propagate(s);
  for (const Extension& e : *extensions) {
    if (Status s = read_extension(area, e, d.header); !s) return propagate(s);
  }
  if (d.header.crypt == Qcow2CryptMethod::luks && !d.header.encryption) {
    return invalid("crypt_method 2 (LUKS) without an encryption extension");
  }
  if (Status s = read_backing_name(area, d); !s) return propagate(s);
  return std::move(d.header);
}

} // namespace qluks
