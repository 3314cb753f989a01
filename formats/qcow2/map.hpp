/* SPDX-License-Identifier: BSD-3-Clause */
/* From a range of the guest disk to runs: pieces that are mapped alike.
 *
 *      guest     |     A     |  B  |   C   |        D        |
 *                 one Data    Zero  Data    Unallocated: the L1 says so, no L2 table is read
 *                 over three
 *                 clusters that are neighbours in the file
 *
 * The L1 table is in memory.  L2 tables are read in slices of at most 64 KiB, which stay in the cache, so that a
 * random read of an image with clusters of 2 MiB does not cost 2 MiB of table.  An entry beyond the end of the file is
 * an error: QEMU takes it for zeroes, and what the lost table mapped for a hole.
 *
 * Many threads use it, each with its own way down.  Whoever writes the image changes single entries (slice.hpp) of the
 * L1 table here and of L2 tables in the cache; readers take no notice.
 */
#ifndef QLUKS_FORMATS_QCOW2_MAP_HPP
#define QLUKS_FORMATS_QCOW2_MAP_HPP

#include <memory>
#include <vector>

#include "base/block_device.hpp"
#include "formats/qcow2/cache.hpp"
#include "formats/qcow2/slice.hpp"

namespace qluks {

class Qcow2Map {
 public:
  /* Reads the L1 table; its place and length have been checked. */
  static Result<Qcow2Map> load(BlockDevice& container, const Qcow2Geometry& geometry, HostOffset l1_offset,
                               uint32_t l1_entries, std::shared_ptr<Qcow2Cache> cache);

  /* The run that starts at `at`, as long as it goes on but at most `max` > 0 bytes, and not beyond what a few dozen
   * slices of L2 tables tell: where tables are small, a request that is long would have thousands of them read for one
   * run.  A compressed cluster is never joined.  An entry that is damaged fails when it is the first one, and else ends
   * the run. */
  Result<Run> run_at(BlockDevice& container, GuestOffset at, uint64_t max) const;

  const Qcow2Geometry& geometry() const noexcept { return geometry_; }

  /* The L1 table as the writer of the image sees it. */
  uint64_t l1_entries() const noexcept { return l1_.size(); }
  uint64_t l1_entry(uint64_t index) const noexcept {
    return index < l1_.size() ? load_table_word(l1_bytes() + index * sizeof(be64)) : 0;
  }
  void set_l1_entry(uint64_t index, uint64_t entry) noexcept {
    store_table_word(reinterpret_cast<std::byte*>(l1_.data()) + index * sizeof(be64), entry);
  }
  const std::byte* l1_bytes() const noexcept { return reinterpret_cast<const std::byte*>(l1_.data()); }

  /* Slices of L2 tables, in the cache. */
  Qcow2Cache& cache() const noexcept { return *cache_; }
  Qcow2Cache::Key slice_key(HostOffset slice) const noexcept { return {.owner = owner_, .at = slice.bytes}; }
  Result<Qcow2Cache::Bytes> slice(BlockDevice& container, HostOffset at) const;
  Result<Qcow2Cache::Pin> pin_slice(BlockDevice& container, HostOffset slice) const;

 private:
  /* The slice that was looked at last: a scan looks each one up once. */
  struct Cursor {
    BlockDevice& container;
    HostOffset at;
    Qcow2Cache::Bytes slice; /* null: none yet */
    int slices = 0;          /* that were looked at */
  };

  Qcow2Map(const Qcow2Geometry& geometry, std::vector<be64> l1, Qcow2Cache::TableRoom room,
           std::shared_ptr<Qcow2Cache> cache);

  Result<Run> piece_at(Cursor& cursor, GuestOffset at, uint64_t max) const;
  Status move_to(Cursor& cursor, HostOffset slice) const;

  Qcow2Geometry geometry_;
  std::vector<be64> l1_;
  Qcow2Cache::TableRoom l1_room_;
  std::shared_ptr<Qcow2Cache> cache_;
  uint64_t owner_;
};

} // namespace qluks

#endif
