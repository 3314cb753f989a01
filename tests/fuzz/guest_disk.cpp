/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/fuzz/guest_disk.hpp"

namespace qluks::fuzz {

namespace {

constexpr uint32_t read_bytes_max = (2 << 20) + 1; /* the largest cluster, and what lies next to it */
constexpr uint32_t extent_bytes_max = 64 << 20;
constexpr uint32_t zero_bytes_checked = 4096;

uint64_t offset_of(const RequestOnDisk& request, uint64_t size) {
  return (uint64_t{request.offset} << (request.shift % 40)) % size;
}

uint64_t length_of(const RequestOnDisk& request, uint64_t length_max) { return 1 + request.length % length_max; }

void check_read(BlockDevice& disk, uint64_t offset, uint64_t length) {
  std::vector<std::byte> whole(static_cast<size_t>(length));
  if (!succeeded(disk.read(whole, offset))) return;
  std::vector<std::byte> part(static_cast<size_t>((length + 1) / 2));
  const uint64_t skipped = length - part.size();
  check(disk.read(part, offset + skipped).has_value(), "a part of what can be read can be read");
  check(std::equal(part.begin(), part.end(), whole.begin() + static_cast<ptrdiff_t>(skipped)),
        "a part reads like the whole");
}

void check_extent(BlockDevice& disk, uint64_t offset, uint64_t max) {
  const auto extent = disk.extent(offset, max);
  if (!succeeded(extent)) return;
  check(extent->length != 0 && extent->length <= max, "an extent is not empty and not longer than asked for");
  if (!extent->zero) return;
  std::vector<std::byte> bytes(static_cast<size_t>(std::min<uint64_t>(extent->length, zero_bytes_checked)));
  check(disk.read(bytes, offset).has_value(), "what is said to be zero can be read");
  check(std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; }),
        "what is said to be zero is zero");
}

void make_request(BlockDevice& disk, const RequestOnDisk& request) {
  const uint64_t offset = offset_of(request, disk.size());
  const uint64_t rest = disk.size() - offset;
  switch (request.kind % 4) {
    case 0:
    case 1:
      return check_read(disk, offset, length_of(request, std::min<uint64_t>(rest, read_bytes_max)));
    case 2:
      return check_extent(disk, offset, length_of(request, std::min<uint64_t>(rest, extent_bytes_max)));
    default:
      static_cast<void>(succeeded(disk.cache(offset, length_of(request, std::min<uint64_t>(rest, extent_bytes_max)))));
  }
}

} // namespace

void make_requests(BlockDevice& disk, const ScriptOnDisk& script) {
  if (disk.size() == 0) return;
  for (const RequestOnDisk& request : script.requests) make_request(disk, request);
}

void use_format(Format& format, BlockDevice& below, const ScriptOnDisk& script) {
  check_line(format.describe());
  const auto disk = format.stack_on(below);
  const Limits limits = disk->limits();
  check(limits.minimum == 1 && limits.preferred >= 512 && limits.preferred <= limits.maximum, "the limits make sense");
  make_requests(*disk, script);
}

} // namespace qluks::fuzz
