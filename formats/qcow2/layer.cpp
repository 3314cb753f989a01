/* SPDX-License-Identifier: BSD-3-Clause */
/* The way of one read:
 *
 *      request ──sectors, if encrypted──▶ runs ──Data──────────▶ one read below into the client's buffer, decrypted
 *                                              ├─Zero──────────▶ zeroes
 *                                              ├─Unallocated───▶ backing file, zeroes beyond its end or without one
 *                                              └─Compressed────▶ put aside, then all of them together
 *
 * Data beyond the end of the container reads as zeroes, as in QEMU, and is warned of once.  In an encrypted image it is
 * an error: zeroes that were never stored would be decrypted to noise.
 */
#include <algorithm>
#include <atomic>
#include <optional>
#include <vector>

#include "base/aligned.hpp"
#include "base/checked.hpp"
#include "base/log.hpp"
#include "base/shutdown.hpp"
#include "base/window.hpp"
#include "formats/qcow2/change.hpp"
#include "formats/qcow2/image.hpp"
#include "formats/text.hpp"

namespace qluks {

namespace {

constexpr int cache_runs_max = 1024;

class Qcow2Layer final : public BlockDevice {
 public:
  Qcow2Layer(const Qcow2Image& image, BlockDevice& below) : image_(image), below_(below) {
    if (image.writer && below.write_abilities().write && image.writer->admit(below)) {
      writer_.emplace(image, *image.writer, below,
                      [this](std::span<std::byte> dst, GuestOffset at) { return read_runs(dst, at); });
    }
  }
  ~Qcow2Layer() override {
    if (writer_) image_.writer->leave();
  }

  uint64_t size() const noexcept override { return image_.size; }

  Limits limits() const noexcept override {
    return limits_above(below_.limits(), static_cast<uint32_t>(image_.header.cluster_size()));
  }

  Status read(std::span<std::byte> dst, uint64_t offset) override {
    const Looking looking(image_);
    if (!image_.crypt) return read_runs(dst, {offset});
    return read_unaligned(dst, offset, sector_bytes,
                          [this](std::span<std::byte> sectors, uint64_t at) { return read_runs(sectors, {at}); });
  }

  Result<Extent> extent(uint64_t offset, uint64_t max) override {
    const Looking looking(image_);
    return extent_at({offset}, max);
  }

  /* Best effort: a table of small clusters may have millions of runs in one request, of which the first will do. */
  Status cache(uint64_t offset, uint64_t length) override {
    const Looking looking(image_);
    for (int runs = 0; length > 0 && runs < cache_runs_max; ++runs) {
      if (shutting_down()) return given_up();
      auto run = image_.map.run_at(below_, {offset}, length);
      if (!run) return propagate(run);
      if (Status s = cache_run(*run, {offset}); !s) return s;
      offset += run->length;
      length -= run->length;
    }
    return ok();
  }

  WriteAbilities write_abilities() const noexcept override { return writer_ ? writer_->abilities() : WriteAbilities{}; }
  Status write(std::span<const std::byte> src, uint64_t offset, Fua fua) override {
    return writer_ ? writer_->write(src, offset, fua) : BlockDevice::write(src, offset, fua);
  }
  Status zero(uint64_t offset, uint64_t length, ZeroMode mode, Fua fua) override {
    return writer_ ? writer_->zero(offset, length, mode, fua) : BlockDevice::zero(offset, length, mode, fua);
  }
  Status trim(uint64_t offset, uint64_t length, Fua fua) override {
    return writer_ ? writer_->trim(offset, length, fua) : BlockDevice::trim(offset, length, fua);
  }
  Status flush() override { return writer_ ? writer_->flush() : ok(); }

  void refuse_missing() noexcept override {
    refuses_missing_ = true;
    if (image_.backing) image_.backing->refuse_missing();
  }

 private:
  /* From a look-up to the end of what it was for: in an image that is written, what was found stays meanwhile. */
  class Looking {
   public:
    explicit Looking(const Qcow2Image& image) noexcept {
      if (image.writer) request_.emplace(image.writer->quiescence());
    }

   private:
    std::optional<Quiescence::Request> request_;
  };

  /* Where data is; tables and compressed clusters are always in the container. */
  BlockDevice& data_device() const noexcept { return image_.data_file ? *image_.data_file : below_; }

  /* A hole takes no room in the container.  A zero cluster that is kept allocated reads as zeroes and is no hole. */
  Result<Extent> extent_at(GuestOffset at, uint64_t max) {
    auto run = image_.map.run_at(below_, at, max);
    if (!run) return propagate(run);
    if (std::holds_alternative<Unallocated>(run->mapping)) return unallocated_extent(at, run->length);
    const auto* zero = std::get_if<Zero>(&run->mapping);
    return Extent{.length = run->length, .hole = zero != nullptr && !zero->preallocated, .zero = zero != nullptr};
  }

  Result<Extent> unallocated_extent(GuestOffset at, uint64_t length) {
    const uint64_t in_backing = length_in_backing(at, length);
    if (in_backing == 0) return Extent{.length = length, .hole = true, .zero = true};
    return image_.backing->extent(at.bytes, in_backing);
  }

  /* How much of [at, at + length) is before the end of the backing file. */
  uint64_t length_in_backing(GuestOffset at, uint64_t length) const noexcept {
    const uint64_t end = image_.backing ? image_.backing->size() : 0;
    return at.bytes < end ? std::min(length, end - at.bytes) : 0;
  }

  Status read_runs(std::span<std::byte> dst, GuestOffset at) {
    std::vector<CompressedClusters::Part> compressed;
    while (!dst.empty()) {
      if (shutting_down()) return given_up();
      auto run = image_.map.run_at(below_, at, dst.size());
      if (!run) return propagate(run);
      const auto out = dst.first(static_cast<size_t>(run->length));
      if (const auto* stream = std::get_if<Compressed>(&run->mapping)) {
        compressed.push_back({*stream, at, out});
      } else if (Status s = read_run(*run, out, at); !s) {
        return s;
      }
      dst = dst.subspan(out.size());
      at.bytes += out.size();
    }
    return compressed.empty() ? ok() : read_compressed(compressed);
  }

  Status read_run(const Run& run, std::span<std::byte> dst, GuestOffset at) {
    if (const auto* data = std::get_if<Data>(&run.mapping)) return read_data(*data, dst, at);
    if (std::holds_alternative<Unallocated>(run.mapping) && image_.backing) {
      return read_zero_padded(*image_.backing, dst, at.bytes);
    }
    std::fill(dst.begin(), dst.end(), std::byte{0});
    return ok();
  }

  Status read_data(const Data& data, std::span<std::byte> dst, GuestOffset at) {
    BlockDevice& device = data_device();
    if (!range_fits(data.at.bytes, dst.size(), device.size())) return read_cut_short(data, dst, at);
    if (Status s = device.read(dst, data.at.bytes); !s) return s;
    if (image_.crypt) image_.crypt->decrypt(dst, at, data.at);
    return ok();
  }

  /* Zeroes behind the end of the file, unless a cipher, here or above, would take them for its text. */
  Status read_cut_short(const Data& data, std::span<std::byte> dst, GuestOffset at) {
    BlockDevice& device = data_device();
    const auto missing = past_the_end("guest offset " + hex(at.bytes) + (image_.crypt ? ": encrypted cluster" : ""),
                                      data.at.bytes, dst.size(), device.size());
    if (image_.crypt || refuses_missing_) return missing;
    if (!image_.told_of_zeroes->test_and_set()) {
      log_warning("qcow2: " + missing.value().what + " What is not there reads as zeroes");
    }
    return read_zero_padded(device, dst, data.at.bytes);
  }

  /* QEMU stores a compressed cluster of an encrypted image in plain text, if one makes it, and reads it back.  Here
   * nothing that was not decrypted is served as what a key holder wrote. */
  Status read_compressed(std::span<const CompressedClusters::Part> parts) {
    if (!image_.crypt) return image_.compressed.read(below_, parts);
    return fail(Errc::corrupt,
                "guest offset " + hex(parts[0].guest.bytes) + ": compressed cluster in an encrypted image");
  }

  Status cache_run(const Run& run, GuestOffset at) {
    if (const auto* data = std::get_if<Data>(&run.mapping)) return cache_in(data_device(), data->at, run.length);
    if (const auto* compressed = std::get_if<Compressed>(&run.mapping)) {
      return cache_in(below_, compressed->at, compressed->bytes_max);
    }
    const bool unallocated = std::holds_alternative<Unallocated>(run.mapping);
    const uint64_t in_backing = unallocated ? length_in_backing(at, run.length) : 0;
    return in_backing == 0 ? ok() : image_.backing->cache(at.bytes, in_backing);
  }

  static Status cache_in(BlockDevice& device, HostOffset at, uint64_t length) {
    if (at.bytes >= device.size()) return ok();
    return device.cache(at.bytes, std::min(length, device.size() - at.bytes));
  }

  const Qcow2Image& image_;
  BlockDevice& below_;
  std::optional<GuestWriter> writer_; /* none: read-only */
  std::atomic<bool> refuses_missing_{false};
};

} // namespace

std::unique_ptr<BlockDevice> make_qcow2_layer(const Qcow2Image& image, BlockDevice& container) {
  return std::make_unique<Qcow2Layer>(image, container);
}

} // namespace qluks
