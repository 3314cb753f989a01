/* SPDX-License-Identifier: BSD-3-Clause */
/* How often each cluster of the container is referred to, and which ones are free.
 *
 *      header ──▶ refcount table ──▶ refcount block: cluster_size / width numbers, one for each cluster in turn
 *                 (in memory)        (in memory once it was needed; one that was changed stays until it is written)
 *
 * Nothing here waits or reads: who asks for what is not in memory is told which block to bring.  Nothing is written
 * either; the changes are collected, and written in the order that write_order.hpp tells.
 *
 * A block that is missing is made where it describes itself: in the first cluster of those that it counts.  A table
 * that is too short is made anew behind all that the old one could count, together with the blocks that count it.
 *
 * Every function needs the writer's lock.
 */
#ifndef QLUKS_FORMATS_QCOW2_REFCOUNTS_HPP
#define QLUKS_FORMATS_QCOW2_REFCOUNTS_HPP

#include <unordered_map>
#include <vector>

#include "base/page_buffer.hpp"
#include "formats/qcow2/header.hpp"

namespace qluks {

/* Bytes of a table that are to be written. */
struct TableWrite {
  HostOffset at;
  std::vector<std::byte> bytes;
};

/* Clusters of the container that are neighbours. */
struct HostClusters {
  uint64_t first = 0;
  uint64_t count = 0;
};

class Qcow2Refcounts {
 public:
  /* `table`: the refcount table as it is stored. */
  Qcow2Refcounts(const Qcow2Header& header, const std::vector<be64>& table);

  uint64_t clusters_per_block() const noexcept { return uint64_t{1} << per_block_bits_; }
  uint64_t block_of(uint64_t cluster) const noexcept { return cluster >> per_block_bits_; }
  uint64_t blocks() const noexcept { return table_.size(); }
  /* Where that block is; 0 if there is none, and all of its clusters are free. */
  HostOffset block_at(uint64_t block) const noexcept { return {block < table_.size() ? table_[block] : 0}; }
  HostClusters table_clusters() const noexcept { return table_at_; }

  bool is_loaded(uint64_t block) const noexcept { return block_at(block).bytes == 0 || blocks_.contains(block); }
  void insert(uint64_t block, PageBuffer bytes);
  /* Forget blocks that are as they are stored, if there are too many. */
  void shrink() noexcept;

  /* Both need the block in memory. */
  uint64_t get(uint64_t cluster) const noexcept;
  void set(uint64_t cluster, uint64_t value) noexcept;

  /* The lowest free clusters below `limit`, up to `wanted` neighbours, or what has to happen before that is known. */
  struct Search {
    enum class Next : uint8_t { take, load, make_block, grow_table, no_room };
    Next next;
    uint64_t block = 0;
    HostClusters clusters = {};
  };
  Search find_free(uint64_t wanted, uint64_t limit) noexcept;

  /* The clusters that a new block, or a longer table with its blocks, would take.  They are in use afterwards.  The
   * caller makes sure that they are free to take, and frees those of the old table once the new one is in force. */
  HostClusters new_block_clusters(uint64_t block) const noexcept;
  void make_block(uint64_t block);
  Result<HostClusters> longer_table_clusters(const Qcow2Header& header) const;
  void grow_table(HostClusters clusters);

  /* What was changed since it was last written.  `blocks` before `table`, which is before the header. */
  void collect(std::vector<TableWrite>& blocks, std::vector<TableWrite>& table) const;
  bool has_moved() const noexcept { return moved_; }
  bool is_changed() const noexcept { return changed_; }
  bool links_changed() const noexcept { return moved_ || !changed_links_.empty(); }
  /* All that was collected is on its way. */
  void collected() noexcept;

 private:
  struct Block {
    PageBuffer bytes;
    std::vector<bool> changed_sectors;
    bool is_changed = false;
  };

  void add_block(uint64_t block, HostOffset at);
  uint64_t table_entries(uint64_t clusters) const noexcept { return (clusters << cluster_bits_) / sizeof(be64); }
  void touch(Block& block, uint64_t index) noexcept;

  unsigned cluster_bits_;
  unsigned order_;
  unsigned per_block_bits_;
  std::vector<uint64_t> table_;
  HostClusters table_at_;
  std::unordered_map<uint64_t, Block> blocks_;
  std::vector<uint64_t> changed_links_; /* entries of the table */
  bool moved_ = false;
  bool changed_ = false;
  uint64_t first_free_ = 0; /* all clusters before it are in use */
};

} // namespace qluks

#endif
