/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/fuzz/guest_disk.hpp"

#include <optional>

#include "tests/support/guarded.hpp"

namespace qluks::fuzz {

namespace {

/* Most requests are of the size that clients make, since a fuzzer lives by how many inputs it tries; the large ones
 * reach across the largest clusters and across what one request below may be. */
struct LengthLimits {
  uint32_t read;
  uint32_t extent;
};
constexpr LengthLimits usual = {(128 << 10) + 1, 4 << 20};
constexpr LengthLimits large = {(2 << 20) + 1, 64 << 20};
constexpr uint32_t zero_bytes_checked = 4096;

uint64_t offset_of(const RequestOnDisk& request, uint64_t size) {
  return (uint64_t{request.offset} << (request.shift % 40)) % size;
}

uint64_t length_of(const RequestOnDisk& request, uint64_t length_max) { return 1 + request.length % length_max; }

/* A read into memory that is kept: getting megabytes costs more than reading them.  Right behind it nothing can be
 * touched, and what is not written differs from one filler to the other. */
std::optional<std::span<std::byte>> read_into(test::Guarded& memory, std::byte filler, BlockDevice& disk,
                                              uint64_t offset, uint64_t length) {
  const auto bytes = memory.at_end(static_cast<size_t>(length));
  std::fill(bytes.begin(), bytes.end(), filler);
  if (!succeeded(disk.read(bytes, offset))) return std::nullopt;
  return bytes;
}

void check_read(BlockDevice& disk, uint64_t offset, uint64_t length) {
  static test::Guarded whole_memory(large.read);
  static test::Guarded part_memory(large.read);
  const auto whole = read_into(whole_memory, std::byte{0xa5}, disk, offset, length);
  if (!whole) return;
  const uint64_t skipped = length / 2;
  const auto part = read_into(part_memory, std::byte{0x5a}, disk, offset + skipped, length - skipped);
  check(part.has_value(), "a part of what can be read can be read");
  check(same(*part, whole->last(part->size())), "a part reads like the whole");
}

void check_extent(BlockDevice& disk, uint64_t offset, uint64_t max) {
  const auto extent = disk.extent(offset, max);
  if (!succeeded(extent)) return;
  check(extent->length != 0 && extent->length <= max, "an extent is not empty and not longer than asked for");
  if (!extent->zero) return;
  static constexpr std::array<std::byte, zero_bytes_checked> zeroes{};
  std::vector<std::byte> bytes(static_cast<size_t>(std::min<uint64_t>(extent->length, zeroes.size())), std::byte{1});
  check(disk.read(bytes, offset).has_value(), "what is said to be zero can be read");
  check(same(bytes, std::span(zeroes).first(bytes.size())), "what is said to be zero is zero");
}

void make_request(BlockDevice& disk, const RequestOnDisk& request) {
  const uint64_t offset = offset_of(request, disk.size());
  const uint64_t rest = disk.size() - offset;
  const LengthLimits& limits = (request.kind & large_request) != 0 ? large : usual;
  switch (request.kind % 4) {
    case 0:
    case 1:
      return check_read(disk, offset, length_of(request, std::min<uint64_t>(rest, limits.read)));
    case 2:
      return check_extent(disk, offset, length_of(request, std::min<uint64_t>(rest, limits.extent)));
    default:
      static_cast<void>(succeeded(disk.cache(offset, length_of(request, std::min<uint64_t>(rest, limits.extent)))));
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
