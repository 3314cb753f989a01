/* SPDX-License-Identifier: BSD-3-Clause */
/* Clusters that are stored as a stream of raw deflate (RFC 1951) or zstd (RFC 8878).
 *
 *      host file   | … |  stream A  | stream B |  stream C  | … |        at any byte, across host clusters
 *                                   └─ bytes_max ─────┘                  sectors, so the neighbour comes along
 *
 * The entry says in sectors where a stream ends, so what follows the stream is junk and is not looked at.  The output
 * is one cluster, no more and no less; where it would be more, deflate is cut off and zstd is an error, as in QEMU.
 *
 * A request for a whole cluster is decompressed into the client's buffer.  For a part of one the cluster is kept in
 * the cache, so that small reads do not decompress it again and again.
 */
#ifndef QLUKS_FORMATS_QCOW2_COMPRESSED_HPP
#define QLUKS_FORMATS_QCOW2_COMPRESSED_HPP

#include <memory>

#include "base/block_device.hpp"
#include "formats/qcow2_cache.hpp"
#include "formats/qcow2_entry.hpp"

namespace qluks {

/* Fills `out` from the stream at the start of `in`.  Many threads may use one. */
class Decompressor {
 public:
  virtual ~Decompressor() = default;
  virtual Status decompress(std::span<const std::byte> in, std::span<std::byte> out) = 0;
};

std::unique_ptr<Decompressor> make_decompressor(Qcow2Compression type);

class CompressedClusters {
 public:
  CompressedClusters(const Qcow2Header& header, std::shared_ptr<Qcow2Cache> cache);

  /* `dst` from `in_cluster` on, which both lie inside of the cluster. */
  Status read(BlockDevice& container, const Compressed& cluster, uint64_t in_cluster, std::span<std::byte> dst) const;

 private:
  Status decompress(BlockDevice& container, const Compressed& cluster, std::span<std::byte> out) const;

  size_t cluster_size_;
  std::unique_ptr<Decompressor> decompressor_;
  std::shared_ptr<Qcow2Cache> cache_;
  uint64_t owner_;
};

} // namespace qluks

#endif
