/* SPDX-License-Identifier: BSD-3-Clause */
/* What is handed over instead of an image, by its signature: for messages, nothing is opened by what is found here. */
#ifndef QLUKS_FORMATS_FOREIGN_HPP
#define QLUKS_FORMATS_FOREIGN_HPP

#include <string>

#include "base/block_device.hpp"

namespace qluks {

struct Foreign {
  std::string name;    /* "xz-compressed", "a VMDK image"; empty: nothing that is known */
  std::string way_out; /* what to do about it; empty: nothing but to serve it as it is */
};

/* Two small reads.  A device that cannot be read is one about which there is nothing to say. */
Foreign find_foreign(BlockDevice& device);

} // namespace qluks

#endif
