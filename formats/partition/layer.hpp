/* SPDX-License-Identifier: BSD-3-Clause */
/* A partition as a format: a part of the disk below, shifted. */
#ifndef QLUKS_FORMATS_PARTITION_LAYER_HPP
#define QLUKS_FORMATS_PARTITION_LAYER_HPP

#include <memory>

#include "base/block_device.hpp"
#include "formats/format.hpp"

namespace qluks {

/* Read the partition table of `disk` and find the partition with that number. */
Result<std::unique_ptr<Format>> open_partition(BlockDevice& disk, uint32_t number);

} // namespace qluks

#endif
