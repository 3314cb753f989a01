/* SPDX-License-Identifier: BSD-3-Clause */
/* Internal snapshots: each has an L1 table and a disk size of its own, and shares clusters with the others.
 *
 *      snapshot table   ┌───────────┬────────────┬────┬──────┬───────────┐
 *                       │ 40 bytes  │ extra data │ ID │ name │ to 8·n    │ next entry …
 *                       └───────────┴────────────┴────┴──────┴───────────┘
 *      extra data       vm_state_size_large   disk_size   icount           as far as it is there
 *
 * The table is read only when a snapshot is asked for: a damaged one does not keep the disk itself from being
 * served.  QEMU reads it at each open.
 */
#ifndef QLUKS_FORMATS_QCOW2_SNAPSHOT_HPP
#define QLUKS_FORMATS_QCOW2_SNAPSHOT_HPP

#include <string>
#include <vector>

#include "base/block_device.hpp"
#include "formats/qcow2/header.hpp"

namespace qluks {

struct Qcow2Snapshot {
  HostOffset l1_offset;
  uint32_t l1_entries = 0;
  uint64_t disk_size = 0; /* whole sectors; of the disk as it was then */
};

/* All of them, as the table has them: nothing in them is checked but that the table is no longer than it may be. */
struct Qcow2Snapshots {
  std::vector<Qcow2Snapshot> snapshots;
  uint64_t table_bytes = 0;
};
Result<Qcow2Snapshots> list_qcow2_snapshots(BlockDevice& container, const Qcow2Header& header);

/* What a snapshot is called: any bytes. */
struct Qcow2SnapshotName {
  std::string id;
  std::string name;
  uint64_t disk_size = 0;
};

/* The first of them, `most` at the most. */
Result<std::vector<Qcow2SnapshotName>> name_qcow2_snapshots(BlockDevice& container, const Qcow2Header& header,
                                                            uint32_t most);

/* The snapshot of that ID or, if there is none, of that name.  An unknown one is an error that lists those that
 * exist. */
Result<Qcow2Snapshot> find_qcow2_snapshot(BlockDevice& container, const Qcow2Header& header, const std::string& wanted);

} // namespace qluks

#endif
