/* SPDX-License-Identifier: BSD-3-Clause */
/* A compressed cluster of any content, at any place in its file: by the decoder alone, and by the way of a read.
 *
 *      | type | cluster_bits | offset in its sector | start and length of a part | stream … |
 */
#include "base/units.hpp"
#include "formats/qcow2/compressed.hpp"
#define ZLIB_CONST
#include <zlib.h>

#include <bit>
#include <string_view>
#include <vector>

#include "tests/fuzz/fuzz_case.hpp"
#include "tests/fuzz/target.hpp"
#include "tests/support/guarded.hpp"

namespace qluks::fuzz {

namespace {

struct CaseOnDisk {
  uint8_t type;
  uint8_t cluster_bits; /* beyond 9 */
  be16 in_sector;
  be32 part_start;
  be32 part_length;
};
static_assert(sizeof(CaseOnDisk) == 12);

/* The libraries are not instrumented: how far a stream got, and why it was refused, tell libFuzzer which ones differ.
 */
__attribute__((section("__libfuzzer_extra_counters"))) uint8_t features[1024];

void note_feature(std::string_view reason, size_t progress) {
  const size_t index = std::hash<std::string_view>()(reason) + 31 * static_cast<size_t>(std::bit_width(progress));
  features[index % sizeof features] = 1;
}

constexpr uint64_t compressed_flag = uint64_t{1} << 62;
constexpr size_t cluster_bytes_max = 2 << 20;
constexpr size_t stream_bytes_max = 64 << 10;

/* What a decoder leaves out is not what the last one has left there. */
void forget(std::span<std::byte> bytes, std::byte filler) { std::fill(bytes.begin(), bytes.end(), filler); }

bool decode(Decompressor& decompressor, std::span<const std::byte> stream, std::span<std::byte> out) {
  static test::Guarded memory(stream_bytes_max);
  const auto in = memory.at_end(stream.size());
  std::copy(stream.begin(), stream.end(), in.begin());
  const Status done = decompressor.decompress(in, out);
  if (!succeeded(done)) note_feature(done.error().what, stream.size());
  return done.has_value();
}

/* By zlib alone, and by QEMU's rule: a stream that fills the cluster is good. */
bool inflated(std::span<const std::byte> stream, std::span<std::byte> out) {
  z_stream z{};
  check(inflateInit2(&z, -MAX_WBITS) == Z_OK, "zlib starts");
  z.next_in = reinterpret_cast<const Bytef*>(stream.data());
  z.avail_in = static_cast<uInt>(stream.size());
  z.next_out = reinterpret_cast<Bytef*>(out.data());
  z.avail_out = static_cast<uInt>(out.size());
  const int result = inflate(&z, Z_FINISH);
  note_feature(z.msg != nullptr ? z.msg : "", z.total_out);
  inflateEnd(&z);
  return (result == Z_STREAM_END || result == Z_BUF_ERROR) && z.avail_out == 0;
}

Qcow2Header header_of(const CaseOnDisk& given) {
  Qcow2Header header;
  header.version = 3;
  header.cluster_bits = 9 + given.cluster_bits % 13;
  header.compression = given.type % 2 == 0 ? Qcow2Compression::zlib : Qcow2Compression::zstd;
  return header;
}

/* What an L2 entry says of a stream of that length at `at`: in sectors, no more than two clusters. */
Compressed decode_entry(const Qcow2Header& header, uint64_t at, size_t length) {
  const unsigned count_bits = header.cluster_bits - 8;
  const uint64_t sectors = (at % sector_bytes + length + sector_bytes - 1) / sector_bytes;
  const uint64_t count = std::clamp<uint64_t>(sectors, 1, uint64_t{1} << count_bits) - 1;
  const auto run = decode_l2({.word = compressed_flag | count << (62 - count_bits) | at}, {0}, Qcow2Geometry(header));
  return std::get<Compressed>(run->mapping);
}

} // namespace

void run_target(std::span<const std::byte> input) {
  const auto given = take<CaseOnDisk>(input);
  if (!given || input.size() > stream_bytes_max - sector_bytes) return;
  const Qcow2Header header = header_of(*given);
  const size_t cluster_size = static_cast<size_t>(header.cluster_size());
  const uint64_t at = cluster_size + given->in_sector % sector_bytes;
  const Compressed stream = decode_entry(header, at, input.size());
  SparseDevice container(0);
  container.add(at, input);

  /* What the container ends before is not there. */
  const uint64_t to_end = container.size() - std::min<uint64_t>(container.size(), stream.at.bytes);
  std::vector<std::byte> bytes(static_cast<size_t>(std::min<uint64_t>(stream.bytes_max, to_end)));
  std::copy_n(input.begin(), std::min(input.size(), bytes.size()), bytes.begin());
  /* Memory is kept, since getting it costs more than most streams; right behind it nothing can be touched. */
  static test::Guarded plain_memory(cluster_bytes_max);
  const auto plain = plain_memory.at_end(cluster_size);
  forget(plain, std::byte{0xa5});
  const bool good = decode(*make_decompressor(header.compression), bytes, plain);
  if (header.compression == Qcow2Compression::zlib) {
    static test::Guarded expected_memory(cluster_bytes_max);
    const auto expected = expected_memory.at_end(cluster_size);
    check(!inflated(bytes, expected) || (good && same(plain, expected)), "what zlib takes is taken, and is the same");
  }

  const CompressedClusters clusters(header, std::make_shared<Qcow2Cache>(1 << 20));
  const size_t start = given->part_start % cluster_size;
  static test::Guarded twice_memory(2 * cluster_bytes_max);
  const auto twice = twice_memory.at_end(2 * cluster_size);
  static test::Guarded part_memory(cluster_bytes_max);
  const auto part = part_memory.at_end(1 + given->part_length % (cluster_size - start));
  if (good) {
    forget(twice, std::byte{0x5a});
    forget(part, std::byte{0x5a});
  }
  const CompressedClusters::Part parts[] = {{stream, {0}, twice.first(cluster_size)},
                                            {stream, {cluster_size}, twice.last(cluster_size)},
                                            {stream, {2 * cluster_size + start}, part}};
  check(succeeded(clusters.read(container, parts)) == good, "the way of a read decides as the decoder does");
  if (!good) return;
  check(same(plain, twice.first(cluster_size)) && same(plain, twice.last(cluster_size)),
        "a cluster reads as it was decoded");
  check(same(part, plain.subspan(start, part.size())), "a part of a cluster reads like the whole");
}

} // namespace qluks::fuzz
