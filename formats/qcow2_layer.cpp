/* SPDX-License-Identifier: BSD-3-Clause */
/* The way of one read:
 *
 *      request ──sectors, if encrypted──▶ runs ──Data──────────▶ one read below into the client's buffer, decrypted
 *                                              ├─Zero──────────▶ zeroes
 *                                              ├─Unallocated───▶ zeroes
 *                                              └─Compressed────▶ one read below, decompressed
 *
 * Data beyond the end of the container reads as zeroes, as in QEMU: in an encrypted image these are cipher text and
 * are decrypted like any other.
 */
#include "formats/qcow2_layer.hpp"

#include <algorithm>
#include <bit>
#include <optional>

#include "base/aligned.hpp"
#include "base/log.hpp"
#include "base/window.hpp"
#include "formats/luks_text.hpp"
#include "formats/qcow2_compressed.hpp"
#include "formats/qcow2_crypt.hpp"
#include "formats/qcow2_map.hpp"
#include "formats/text.hpp"

namespace qluks {

namespace {

constexpr uint32_t preferred_block_max = 32 << 20; /* NBD allows no more */

/* What all connections share. */
struct Qcow2Image {
  Qcow2Header header;
  Qcow2Map map;
  CompressedClusters compressed;
  std::optional<Qcow2Crypt> crypt;
};

void fill_zero(std::span<std::byte> dst) noexcept { std::fill(dst.begin(), dst.end(), std::byte{0}); }

class Qcow2Layer final : public BlockDevice {
 public:
  Qcow2Layer(const Qcow2Image& image, BlockDevice& below) noexcept : image_(image), below_(below) {}

  uint64_t size() const noexcept override { return image_.header.size; }

  Limits limits() const noexcept override {
    const Limits below = below_.limits();
    const uint32_t preferred = std::max(static_cast<uint32_t>(image_.header.cluster_size()), below.preferred);
    return {.minimum = 1,
            .preferred = std::min({preferred, preferred_block_max, std::bit_floor(below.maximum)}),
            .maximum = below.maximum};
  }

  Status read(std::span<std::byte> dst, uint64_t offset) override {
    if (!image_.crypt) return read_runs(dst, {offset});
    return read_unaligned(dst, offset, sector_bytes,
                          [this](std::span<std::byte> sectors, uint64_t at) { return read_runs(sectors, {at}); });
  }

  Result<Extent> extent(uint64_t offset, uint64_t max) override {
    auto run = image_.map.run_at(below_, {offset}, max);
    if (!run) return propagate(run);
    Extent extent = extent_of(*run);
    while (extent.length < max) {
      run = image_.map.run_at(below_, {offset + extent.length}, max - extent.length);
      if (!run || !extent.same_kind(extent_of(*run))) break;
      extent.length += run->length;
    }
    return extent;
  }

  Status cache(uint64_t offset, uint64_t length) override {
    while (length > 0) {
      auto run = image_.map.run_at(below_, {offset}, length);
      if (!run) return propagate(run);
      if (Status s = cache_run(*run); !s) return s;
      offset += run->length;
      length -= run->length;
    }
    return ok();
  }

 private:
  /* A hole takes no room in the container.  A zero cluster that is kept allocated reads as zeroes and is no hole. */
  static Extent extent_of(const Run& run) noexcept {
    Extent extent{.length = run.length};
    if (const auto* zero = std::get_if<Zero>(&run.mapping)) {
      extent.zero = true;
      extent.hole = !zero->preallocated;
    } else if (std::holds_alternative<Unallocated>(run.mapping)) {
      extent.zero = extent.hole = true;
    }
    return extent;
  }

  Status read_runs(std::span<std::byte> dst, GuestOffset at) {
    while (!dst.empty()) {
      auto run = image_.map.run_at(below_, at, dst.size());
      if (!run) return propagate(run);
      const size_t length = static_cast<size_t>(run->length);
      if (Status s = read_run(*run, dst.first(length), at); !s) return s;
      dst = dst.subspan(length);
      at.bytes += length;
    }
    return ok();
  }

  Status read_run(const Run& run, std::span<std::byte> dst, GuestOffset at) {
    if (const auto* data = std::get_if<Data>(&run.mapping)) return read_data(*data, dst);
    if (const auto* compressed = std::get_if<Compressed>(&run.mapping)) return read_compressed(*compressed, dst, at);
    fill_zero(dst);
    return ok();
  }

  Status read_data(const Data& data, std::span<std::byte> dst) {
    if (Status s = read_zero_padded(below_, dst, data.at.bytes); !s) return s;
    if (image_.crypt) image_.crypt->decrypt(dst, data.at);
    return ok();
  }

  /* QEMU stores a compressed cluster of an encrypted image in plain text, if one makes it, and reads it back.  Here
   * nothing that was not decrypted is served as what a key holder wrote. */
  Status read_compressed(const Compressed& cluster, std::span<std::byte> dst, GuestOffset at) {
    Status s = image_.crypt ? fail(Errc::corrupt, "compressed cluster in an encrypted image")
                            : image_.compressed.read(below_, cluster, image_.map.geometry().in_cluster(at), dst);
    if (!s) return propagate(s, "guest offset " + hex(at.bytes));
    return s;
  }

  Status cache_run(const Run& run) {
    uint64_t at = 0;
    uint64_t length = 0;
    if (const auto* data = std::get_if<Data>(&run.mapping)) {
      at = data->at.bytes;
      length = run.length;
    } else if (const auto* compressed = std::get_if<Compressed>(&run.mapping)) {
      at = compressed->at.bytes;
      length = compressed->bytes_max;
    }
    if (length == 0 || at >= below_.size()) return ok();
    return below_.cache(at, std::min(length, below_.size() - at));
  }

  const Qcow2Image& image_;
  BlockDevice& below_;
};

class OpenedQcow2 final : public Qcow2Format {
 public:
  explicit OpenedQcow2(Qcow2Image image) : image_(std::move(image)) {}

  std::unique_ptr<BlockDevice> stack_on(BlockDevice& below) override {
    return std::make_unique<Qcow2Layer>(image_, below);
  }

  std::string describe() const override {
    const std::string format = "qcow2 v" + std::to_string(image_.header.version);
    return image_.crypt ? format + ", " + image_.crypt->describe() : format;
  }

  bool encrypted() const noexcept override { return image_.crypt.has_value(); }

 private:
  const Qcow2Image image_;
};

/* Is there anything in this image that is known and not served? */
Status check_served(const Qcow2Header& header, const Qcow2Options& options) {
  if (header.has(qcow2_corrupt_bit) && !options.read_only) {
    return fail(Errc::corrupt,
                "qcow2 header: the image is marked corrupt (incompatible bit 1): "
                "serve it read-only (nbdkit -r) or repair it (qemu-img check -r all)");
  }
  if (header.has(qcow2_data_file_bit)) {
    return fail(Errc::unsupported, "qcow2 header: an external data file (incompatible bit 2) is not supported");
  }
  if (header.has(qcow2_extended_l2_bit)) {
    return fail(Errc::unsupported, "qcow2 header: extended L2 entries (incompatible bit 4) are not supported");
  }
  if (header.crypt == Qcow2CryptMethod::aes) {
    return fail(Errc::unsupported, "qcow2 header: crypt_method 1 (AES) is not supported");
  }
  if (!header.backing_name.empty()) {
    return fail(Errc::unsupported,
                "qcow2 header: a backing file, " + in_quotes(header.backing_name) + ", is not supported");
  }
  return ok();
}

void log_opened(const Qcow2Image& image) {
  const Qcow2Header& h = image.header;
  log_debug("qcow2: version " + std::to_string(h.version) + ", size " + std::to_string(h.size) + ", cluster size " +
            std::to_string(h.cluster_size()) + ", l1_size " + std::to_string(h.l1_entries) + ", incompatible " +
            hex(h.incompatible) + ", compatible " + hex(h.compatible) + ", autoclear " + hex(h.autoclear));
}

} // namespace

Result<bool> probe_qcow2(BlockDevice& device) {
  std::array<std::byte, sizeof(be32)> magic;
  if (Status s = read_zero_padded(device, magic, 0); !s) return propagate(s);
  return load_on_disk<be32>(magic) == qcow2_magic;
}

Result<std::unique_ptr<Qcow2Format>> open_qcow2(BlockDevice& container, Keyring& keyring, const Qcow2Options& options) {
  auto header = read_qcow2_header(container);
  if (!header) return propagate(header);
  if (Status s = check_served(*header, options); !s) return propagate(s);

  auto cache = options.cache != nullptr ? options.cache : std::make_shared<Qcow2Cache>(options.cache_bytes);
  /* What the L1 table holds beyond the disk is VM state. */
  const uint32_t l1_entries = *qcow2_l1_entries_needed(*header, header->size);
  auto map = Qcow2Map::load(container, Qcow2Geometry(*header), header->l1_offset, l1_entries, cache);
  if (!map) return propagate(map);

  std::optional<Qcow2Crypt> crypt;
  if (header->crypt != Qcow2CryptMethod::none) {
    auto unlocked = Qcow2Crypt::unlock(container, *header, keyring);
    if (!unlocked) return propagate(unlocked);
    crypt = std::move(*unlocked);
  }
  CompressedClusters compressed(*header, cache);
  Qcow2Image image{std::move(*header), std::move(*map), std::move(compressed), std::move(crypt)};
  log_opened(image);
  return std::make_unique<OpenedQcow2>(std::move(image));
}

} // namespace qluks
