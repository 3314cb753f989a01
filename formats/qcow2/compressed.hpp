/* SPDX-License-Identifier: BSD-3-Clause */
/* Clusters that are stored as a stream of raw deflate (RFC 1951) or zstd (RFC 8878).
 *
 *      host file   | … |  stream A  | stream B |  stream C  | … |        at any byte, across host clusters
 *                                   └─ bytes_max ─────┘                  sectors, so the neighbour comes along
 *
 * The entry says in sectors where a stream ends, so what follows the stream is junk and is not looked at.  The output
 * is one cluster, no more and no less; where it would be more, deflate is cut off and zstd is an error, as in QEMU.
 *
 * Whole clusters are decompressed into the client's buffer, and streams that follow each other in the file are
 * fetched by one read.  For a part of a cluster the cluster is kept in the cache, so that small reads do not
 * decompress it again and again.
 */
#ifndef QLUKS_FORMATS_QCOW2_COMPRESSED_HPP
#define QLUKS_FORMATS_QCOW2_COMPRESSED_HPP

#include <memory>

#include "base/block_device.hpp"
#include "base/memory_budget.hpp"
#include "formats/qcow2/cache.hpp"
#include "formats/qcow2/entry.hpp"

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

  /* A piece of one cluster that a request wants. */
  struct Part {
    Compressed stream;
    GuestOffset guest; /* where the part starts */
    std::span<std::byte> out;
  };
  Status read(BlockDevice& container, std::span<const Part> parts) const;

 private:
  bool is_whole(const Part& part) const noexcept { return part.out.size() == cluster_size_; }
  size_t neighbours(std::span<const Part> parts) const noexcept;
  Status read_whole(BlockDevice& container, std::span<const Part> parts) const;
  Status decompress_whole(BlockDevice& container, std::span<const Part> parts, uint64_t start, size_t length) const;
  Status decompress_stream(std::span<const std::byte> in, const Part& part, uint64_t container_end) const;
  Status read_from_cache(BlockDevice& container, const Part& part) const;

  size_t cluster_size_;
  std::unique_ptr<Decompressor> decompressor_;
  std::shared_ptr<Qcow2Cache> cache_;
  uint64_t owner_;
  std::unique_ptr<MemoryBudget> loads_; /* what is fetched and inflated at the same time */
};

} // namespace qluks

#endif
