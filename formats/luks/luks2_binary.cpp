/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/luks/luks2_binary.hpp"

#include <algorithm>

#include "base/checked.hpp"
#include "base/window.hpp"
#include "crypto/kdf/hash.hpp"
#include "formats/luks/luks2_ondisk.hpp"
#include "formats/luks/text.hpp"
#include "formats/text.hpp"

namespace qluks {

namespace {

tl::unexpected<Error> invalid(std::string what) { return fail(Errc::invalid_format, std::move(what)); }

/* Is this the binary header of a copy that lies at `offset`? */
Status check_identity(const Luks2HdrOnDisk& hdr, uint64_t offset) {
  const auto& magic = offset == 0 ? luks_magic : luks2_secondary_magic;
  if (hdr.magic != magic) return invalid("no magic");
  if (hdr.version != 2) return invalid("version " + std::to_string(hdr.version) + " is not 2");
  if (hdr.hdr_offset != offset) {
    return invalid("hdr_offset " + std::to_string(hdr.hdr_offset) + " is not where it lies, " + std::to_string(offset));
  }
  if (std::find(luks2_hdr_sizes.begin(), luks2_hdr_sizes.end(), hdr.hdr_size) == luks2_hdr_sizes.end()) {
    return invalid("hdr_size " + std::to_string(hdr.hdr_size) + " is none of 16 KiB, 32 KiB ... 4 MiB");
  }
  if (offset != 0 && hdr.hdr_size != offset) {
    return invalid("hdr_size " + std::to_string(hdr.hdr_size) + " is not the copy's offset " + std::to_string(offset));
  }
  return ok();
}

/* `bytes` is the whole copy. */
Status check_checksum(Luks2HdrOnDisk hdr, std::span<const std::byte> bytes) {
  const auto name = terminated(hdr.checksum_alg);
  if (!name) return invalid("checksum_alg does not end within its 32 bytes");
  const HashAlgorithm* algorithm = find_hash(*name);
  if (algorithm == nullptr) return invalid("unknown checksum_alg " + in_quotes(*name));

  const auto stored = hdr.checksum;
  hdr.checksum.fill(std::byte{0});
  std::array<std::byte, digest_bytes_max> computed{};
  const auto digest = std::span(computed).first(algorithm->digest_bytes());
  Hash hash(*algorithm);
  hash.update(std::as_bytes(std::span(&hdr, 1)));
  hash.update(bytes.subspan(sizeof hdr));
  hash.digest(digest);
  if (!std::equal(digest.begin(), digest.end(), stored.begin())) return invalid("the checksum does not match");
  return ok();
}

Result<Luks2HdrOnDisk> read_binary(BlockDevice& device, uint64_t offset, std::span<std::byte> bytes) {
  if (!range_fits(offset, bytes.size(), device.size())) {
    return invalid(past_the_end("", offset, bytes.size(), device.size()).value().what);
  }
  if (Status s = device.read(bytes, offset); !s) return propagate(s);
  const auto hdr = load_on_disk<Luks2HdrOnDisk>(bytes);
  if (Status s = check_identity(hdr, offset); !s) return propagate(s);
  return hdr;
}

} // namespace

Result<std::string_view> Luks2Copy::json_text() const {
  const std::string_view area(reinterpret_cast<const char*>(bytes.data()) + luks2_binary_bytes,
                              bytes.size() - luks2_binary_bytes);
  if (area.front() != '{') return invalid("JSON: the first byte is not '{'");
  const size_t end = area.find('\0');
  if (end == std::string_view::npos) return invalid("JSON: no NUL ends the text");
  if (area.find_first_not_of('\0', end) != std::string_view::npos) {
    return invalid("JSON: bytes other than NUL follow the text");
  }
  return area.substr(0, end);
}

Result<Luks2Copy> read_luks2_copy(BlockDevice& device, uint64_t offset) {
  Luks2Copy copy;
  copy.bytes.resize(luks2_binary_bytes);
  const auto hdr = read_binary(device, offset, copy.bytes);
  if (!hdr) return tl::unexpected(hdr.error());
  if (!range_fits(offset, hdr->hdr_size, device.size())) {
    return invalid(past_the_end("hdr_size", offset, hdr->hdr_size, device.size()).value().what);
  }
  copy.bytes.resize(static_cast<size_t>(hdr->hdr_size));
  const auto json_area = std::span(copy.bytes).subspan(luks2_binary_bytes);
  if (Status s = device.read(json_area, offset + luks2_binary_bytes); !s) return propagate(s);
  if (Status s = check_checksum(*hdr, copy.bytes); !s) return propagate(s);

  copy.hdr_size = hdr->hdr_size;
  copy.seqid = hdr->seqid;
  copy.label = shown(hdr->label);
  copy.uuid = shown(hdr->uuid);
  return copy;
}

Result<Luks2Copy> find_luks2_secondary(BlockDevice& device) {
  for (const uint64_t offset : luks2_hdr_sizes) {
    Result<Luks2Copy> copy = read_luks2_copy(device, offset);
    if (copy || is_storage_failure(copy.error())) return copy;
  }
  return invalid("none with a good checksum at any of its nine places");
}

Result<bool> probe_luks2_secondary(BlockDevice& device) {
  std::array<std::byte, luks2_binary_bytes> bytes;
  for (const uint64_t offset : luks2_hdr_sizes) {
    const auto hdr = read_binary(device, offset, bytes);
    if (hdr) return true;
    if (is_storage_failure(hdr.error())) return tl::unexpected(hdr.error());
  }
  return false;
}

} // namespace qluks
