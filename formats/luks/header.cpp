/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/luks/header.hpp"

#include <array>

#include "base/wire.hpp"
#include "formats/luks/luks1.hpp"
#include "formats/luks/luks1_ondisk.hpp"
#include "formats/luks/luks2.hpp"
#include "formats/luks/luks2_binary.hpp"

namespace qluks {

namespace {

/* What both versions start with. */
struct LuksStartOnDisk {
  std::array<char, 6> magic;
  be16 version;
};

static_assert(sizeof(LuksStartOnDisk) == 8 && alignof(LuksStartOnDisk) == 1);

/* All zeroes if the device is too short to hold a magic. */
Result<LuksStartOnDisk> read_start(BlockDevice& device) {
  std::array<std::byte, sizeof(LuksStartOnDisk)> bytes{};
  if (device.size() >= bytes.size()) {
    if (Status s = device.read(bytes, 0); !s) return propagate(s);
  }
  return load_on_disk<LuksStartOnDisk>(bytes);
}

} // namespace

std::vector<std::byte> luks_fingerprint(std::span<const Bytes> pieces) {
  Hash hash(*find_hash("sha256"));
  for (const Bytes piece : pieces) hash.update(piece);
  std::vector<std::byte> digest(32);
  hash.digest(digest);
  return digest;
}

Result<bool> starts_as_luks(BlockDevice& device) {
  const auto start = read_start(device);
  if (!start) return tl::unexpected(start.error());
  return start->magic == luks_magic;
}

Result<bool> probe_luks(BlockDevice& device) {
  const auto magic = starts_as_luks(device);
  if (!magic || *magic) return magic;
  return probe_luks2_secondary(device);
}

namespace {

Result<LuksHeader> read_either_version(BlockDevice& device, HeaderPlace place) {
  const auto start = read_start(device);
  if (!start) return tl::unexpected(start.error());
  const bool has_magic = start->magic == luks_magic;
  if (has_magic && start->version == 1) return read_luks1(device, place);
  if (place != HeaderPlace::in_qcow2) return read_luks2(device, place);
  if (!has_magic) return fail(Errc::invalid_format, "LUKS header of the qcow2: no magic");
  return fail(Errc::unsupported, "LUKS header of the qcow2: version " + std::to_string(start->version) + " is not 1");
}

} // namespace

Result<LuksHeader> read_luks_header(BlockDevice& device, HeaderPlace place) {
  auto header = read_either_version(device, place);
  if (header) header->place = place;
  return header;
}

} // namespace qluks
