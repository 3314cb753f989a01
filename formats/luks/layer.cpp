/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/luks/layer.hpp"

#include <algorithm>

#include "base/aligned.hpp"
#include "base/checked.hpp"
#include "base/log.hpp"
#include "base/range_lock.hpp"
#include "base/units.hpp"
#include "base/zero_bytes.hpp"
#include "crypto/sector_cipher.hpp"
#include "formats/encrypted_write.hpp"
#include "formats/text.hpp"

namespace qluks {

namespace {

/* Where the payload lies and how it is decrypted. */
struct Payload {
  std::shared_ptr<const SectorCipher> cipher;
  uint64_t offset = 0;
  std::optional<uint64_t> fixed_bytes; /* empty: to the end of the device */
  uint64_t iv_tweak = 0;
  bool discard = false; /* trim is passed down */

  SectorNumber sector_at(uint64_t payload_bytes) const noexcept { return {iv_tweak + payload_bytes / sector_bytes}; }
  uint64_t sector_size() const noexcept { return cipher->sector_size(); }

  /* Bytes of whole sectors on a device of that size. */
  uint64_t bytes_on(uint64_t device_bytes) const noexcept {
    const uint64_t present = device_bytes > offset ? device_bytes - offset : 0;
    return align_down<uint64_t>(std::min(present, fixed_bytes.value_or(present)), cipher->sector_size());
  }
};

class LuksLayer final : public BlockDevice {
 public:
  LuksLayer(const Payload& payload, RangeLock& writes, BlockDevice& below) noexcept
      : payload_(payload), writes_(writes), below_(below), size_(payload.bytes_on(below.size())) {
    below.refuse_missing();
  }

  uint64_t size() const noexcept override { return size_; }

  Limits limits() const noexcept override { return limits_above(below_.limits(), 4096); }

  Status read(std::span<std::byte> dst, uint64_t offset) override {
    if (dst.empty()) return ok();
    return read_unaligned(dst, offset, static_cast<uint32_t>(payload_.cipher->sector_size()),
                          [this](std::span<std::byte> sectors, uint64_t at) { return read_sectors(sectors, at); });
  }

  Result<Extent> extent(uint64_t /*offset*/, uint64_t max) override { return Extent{.length = max}; }

  Status cache(uint64_t offset, uint64_t length) override { return below_.cache(payload_.offset + offset, length); }

  /* Zeroes are encrypted, and so never a hole nor faster than a write. */
  WriteAbilities write_abilities() const noexcept override {
    WriteAbilities abilities = below_.write_abilities();
    abilities.trim = abilities.trim && payload_.discard;
    abilities.zero = abilities.write;
    abilities.fast_zero = false;
    return abilities;
  }

  Status write(std::span<const std::byte> src, uint64_t offset, Fua fua) override {
    if (src.empty()) return ok();
    const auto lock = lock_sectors(offset, src.size());
    if (!lock) return tl::unexpected(lock.error());
    return write_sectors(src, offset, fua);
  }

  Status zero(uint64_t offset, uint64_t length, ZeroMode mode, Fua fua) override {
    if (is_fast(mode)) {
      return fail(Errc::not_fast, "zeroes of a LUKS payload have to be encrypted");
    }
    return write_zero_bytes(offset, length,
                            [&](std::span<const std::byte> zeroes, uint64_t at) { return write(zeroes, at, fua); });
  }

  /* Of sectors that are cut the client still needs a part. */
  Status trim(uint64_t offset, uint64_t length, Fua fua) override {
    const uint64_t unit = payload_.sector_size();
    const uint64_t from = align_down(offset + unit - 1, unit);
    const uint64_t to = align_down(offset + length, unit);
    if (from >= to) return ok();
    const auto lock = lock_sectors(from, to - from);
    if (!lock) return tl::unexpected(lock.error());
    return below_.trim(payload_.offset + from, to - from, fua);
  }

  Status flush() override { return below_.flush(); }

 private:
  /* All sectors that are touched.  A request lies inside of the payload, which is whole sectors. */
  Result<RangeLock::Guard> lock_sectors(uint64_t offset, uint64_t length) {
    const uint64_t unit = payload_.sector_size();
    const uint64_t from = align_down(offset, unit);
    return writes_.take(from, align_down(offset + length + unit - 1, unit) - from);
  }

  Status read_sectors(std::span<std::byte> sectors, uint64_t offset) {
    if (Status s = below_.read(sectors, payload_.offset + offset); !s) return s;
    payload_.cipher->decrypt(payload_.sector_at(offset), sectors, sectors);
    return ok();
  }

  Status write_sectors(std::span<const std::byte> src, uint64_t offset, Fua fua) {
    return write_encrypted(
        src, offset,
        {.sector_size = static_cast<uint32_t>(payload_.sector_size()),
         .read = [this](std::span<std::byte> plain, uint64_t at) { return read_sectors(plain, at); },
         .encrypt = [this](std::span<const std::byte> plain, std::span<std::byte> out,
                           uint64_t at) { payload_.cipher->encrypt(payload_.sector_at(at), plain, out); },
         .write = [this, fua](std::span<const std::byte> out,
                              uint64_t at) { return below_.write(out, payload_.offset + at, fua); }});
  }

  const Payload& payload_;
  RangeLock& writes_;
  BlockDevice& below_;
  uint64_t size_;
};

class LuksFormat final : public Format {
 public:
  LuksFormat(std::string description, Payload payload, Keyring::Key key)
      : description_(std::move(description)), payload_(std::move(payload)), key_(std::move(key)) {}

  std::unique_ptr<BlockDevice> stack_on(BlockDevice& below) override {
    return std::make_unique<LuksLayer>(payload_, writes_, below);
  }
  std::string describe() const override { return description_; }

 private:
  std::string description_;
  Payload payload_;
  RangeLock writes_; /* of all connections; in bytes of the payload */
  Keyring::Key key_; /* held so that the keyring does not forget it */
};

Status check_payload(const Payload& payload, uint64_t device_bytes) {
  if (payload.offset >= device_bytes) {
    return fail(Errc::invalid_format, "the payload starts at byte " + std::to_string(payload.offset) +
                                          ", behind the device, which has " + std::to_string(device_bytes) +
                                          " bytes: is the file cut short?");
  }
  if (payload.fixed_bytes && *payload.fixed_bytes > device_bytes - payload.offset) {
    return fail(Errc::invalid_format, "the payload of " + std::to_string(*payload.fixed_bytes) + " bytes at byte " +
                                          std::to_string(payload.offset) + " ends behind the device, which has " +
                                          std::to_string(device_bytes) + " bytes: is the file cut short?");
  }
  if (payload.bytes_on(device_bytes) == 0) {
    return fail(Errc::invalid_format, "the payload of " + std::to_string(device_bytes - payload.offset) +
                                          " bytes is less than one sector of " +
                                          std::to_string(payload.cipher->sector_size()));
  }
  return ok();
}

void log_opened(const LuksHeader& header, const Keyring::Unlocked& unlocked, const SectorCipher& cipher) {
  log_debug("LUKS" + std::to_string(header.version) + ": uuid " + in_quotes(header.uuid) +
            (header.label.empty() ? "" : ", label " + in_quotes(header.label)) + ", " + header.cipher.name() + " " +
            std::to_string(unlocked.volume_key.size() * 8) + "-bit, " +
            (unlocked.slot ? "key slot " + std::to_string(*unlocked.slot) : "given volume key") + ", sector size " +
            std::to_string(header.sector_size) + ", payload offset " + std::to_string(header.payload_offset) +
            ", engine " + std::string(cipher.engine()));
}

Result<std::unique_ptr<Format>> open_payload_of(const LuksHeader& header, const Keyring::Key& unlocked,
                                                BlockDevice& device, const LuksOptions& options) {
  const std::string version = "LUKS" + std::to_string(header.version);
  const Bytes key = unlocked->volume_key.span();
  auto cipher = make_sector_cipher(header.cipher, key, header.sector_size);
  if (!cipher) return propagate(cipher, version);
  log_opened(header, *unlocked, **cipher);
  Payload payload{std::move(*cipher), header.payload_offset, header.payload_bytes, header.iv_tweak, options.discard};
  if (Status s = check_payload(payload, device.size()); !s) return propagate(s, version);
  return std::make_unique<LuksFormat>(
      version + " " + header.cipher.name() + " " + std::to_string(key.size() * 8) + "-bit", std::move(payload),
      unlocked);
}

} // namespace

Result<std::unique_ptr<Format>> open_luks(BlockDevice& device, Keyring& keyring, const LuksOptions& options) {
  device.refuse_missing();
  const auto header = read_luks_header(device, HeaderPlace::attached);
  if (!header) return tl::unexpected(header.error());
  const auto key = keyring.unlock(*header, device);
  if (!key) return tl::unexpected(key.error());
  return open_payload_of(*header, *key, device, options);
}

Result<std::unique_ptr<DetachedHeader>> DetachedHeader::open(BlockDevice& header, Keyring& keyring) {
  auto parsed = read_luks_header(header, HeaderPlace::detached);
  if (!parsed) return propagate(parsed);
  auto key = keyring.unlock(*parsed, header);
  if (!key) return propagate(key);
  return std::unique_ptr<DetachedHeader>(new DetachedHeader(std::move(*parsed), std::move(*key)));
}

Result<std::unique_ptr<Format>> DetachedHeader::open_payload(BlockDevice& device, const LuksOptions& options) const {
  return open_payload_of(header_, key_, device, options);
}

} // namespace qluks
