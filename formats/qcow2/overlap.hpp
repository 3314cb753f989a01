/* SPDX-License-Identifier: BSD-3-Clause */
/* Which clusters of the container hold metadata, so that nothing else is ever written there.
 *
 *      header | refcount table, blocks | L1 table, L2 tables | snapshot table, their L1 tables | bitmap directory |
 * LUKS
 *
 * Two structures in one cluster are a contradiction: an image like that is not written at all.
 */
#ifndef QLUKS_FORMATS_QCOW2_OVERLAP_HPP
#define QLUKS_FORMATS_QCOW2_OVERLAP_HPP

#include <map>
#include <optional>
#include <shared_mutex>

#include "formats/qcow2/refcounts.hpp"

namespace qluks {

enum class Qcow2Part : uint8_t {
  header,
  refcount_table,
  refcount_block,
  l1_table,
  l2_table,
  snapshot_table,
  snapshot_l1_table,
  bitmap_directory,
  encryption_header,
};

const char* name_of(Qcow2Part part) noexcept;

class Qcow2Metadata {
 public:
  /* What one structure costs in memory, about. */
  static constexpr uint64_t entry_bytes = 80;

  /* What is in the first of these clusters that hold metadata. */
  std::optional<Qcow2Part> find(HostClusters clusters) const;

  /* These must be free of metadata; see find. */
  void add(HostClusters clusters, Qcow2Part part);
  /* What lies in these is no longer in use. */
  void remove(HostClusters clusters) noexcept;

  /* Calls visit(HostClusters, Qcow2Part) for each, in order of their places, until it returns an error.  It may wait
   * for storage: nothing is locked meanwhile. */
  template <class Visit>
  Status for_each(Visit visit) const {
    for (auto at = next(0); at; at = next(at->clusters.first + 1)) {
      if (Status s = visit(at->clusters, at->part); !s) return s;
    }
    return ok();
  }

 private:
  /* The first structure that begins in this cluster or behind it. */
  struct Structure {
    HostClusters clusters;
    Qcow2Part part;
  };
  std::optional<Structure> next(uint64_t cluster) const;

  struct Entry {
    uint64_t end;
    Qcow2Part part;
  };
  mutable std::shared_mutex mutex_;
  std::map<uint64_t, Entry> parts_; /* by the first cluster */
};

} // namespace qluks

#endif
