/* SPDX-License-Identifier: BSD-3-Clause */
/* Which partitions of a disk hold LUKS, for messages: nothing is opened by what is found here. */
#ifndef QLUKS_PLUGIN_LUKS_PARTITIONS_HPP
#define QLUKS_PLUGIN_LUKS_PARTITIONS_HPP

#include <string>

#include "base/block_device.hpp"

namespace qluks {

struct LuksPartitions {
  bool found = false; /* at least one */
  std::string text;   /* what there is, and what to type; empty: the disk has no partitions */
};

/* `layers_below` is what qluks-layers has to say for the disk itself: "qcow2," or nothing.  A disk that cannot be read
 * is one about which there is nothing to say. */
LuksPartitions find_luks_partitions(BlockDevice& disk, const std::string& layers_below);

} // namespace qluks

#endif
