/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/qcow2/overlap.hpp"

#include <mutex>

namespace qluks {

const char* name_of(Qcow2Part part) noexcept {
  switch (part) {
    case Qcow2Part::header:
      return "header";
    case Qcow2Part::refcount_table:
      return "refcount table";
    case Qcow2Part::refcount_block:
      return "refcount block";
    case Qcow2Part::l1_table:
      return "L1 table";
    case Qcow2Part::l2_table:
      return "L2 table";
    case Qcow2Part::snapshot_table:
      return "snapshot table";
    case Qcow2Part::snapshot_l1_table:
      return "L1 table of a snapshot";
    case Qcow2Part::bitmap_directory:
      return "bitmap directory";
    case Qcow2Part::encryption_header:
      return "LUKS header";
  }
  return "metadata";
}

std::optional<Qcow2Part> Qcow2Metadata::find(HostClusters clusters) const {
  const std::shared_lock lock(mutex_);
  auto next = parts_.upper_bound(clusters.first);
  if (next != parts_.begin()) {
    const Entry& before = std::prev(next)->second;
    if (before.end > clusters.first) return before.part;
  }
  if (next != parts_.end() && next->first - clusters.first < clusters.count) return next->second.part;
  return std::nullopt;
}

std::optional<Qcow2Metadata::Structure> Qcow2Metadata::next(uint64_t cluster) const {
  const std::shared_lock lock(mutex_);
  const auto it = parts_.lower_bound(cluster);
  if (it == parts_.end()) return std::nullopt;
  return Structure{{it->first, it->second.end - it->first}, it->second.part};
}

void Qcow2Metadata::add(HostClusters clusters, Qcow2Part part) {
  if (clusters.count == 0) return;
  const std::unique_lock lock(mutex_);
  parts_[clusters.first] = {clusters.first + clusters.count, part};
}

void Qcow2Metadata::remove(HostClusters clusters) noexcept {
  const std::unique_lock lock(mutex_);
  const uint64_t end = clusters.first + clusters.count;
  auto it = parts_.lower_bound(clusters.first);
  while (it != parts_.end() && it->second.end <= end) it = parts_.erase(it);
}

} // namespace qluks
