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
  /* What is in the first of these clusters that hold metadata. */
  std::optional<Qcow2Part> find(HostClusters clusters) const;

  /* These must be free of metadata; see find. */
  void add(HostClusters clusters, Qcow2Part part);
  /* What lies in these is no longer in use. */
  void remove(HostClusters clusters) noexcept;

 private:
  struct Entry {
    uint64_t end;
    Qcow2Part part;
  };
  mutable std::shared_mutex mutex_;
  std::map<uint64_t, Entry> parts_; /* by the first cluster */
};

} // namespace qluks

#endif
