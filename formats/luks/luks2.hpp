/* SPDX-License-Identifier: BSD-3-Clause */
/* LUKS version 2: from the two copies on the device to a LuksHeader.
 *
 * Each copy has to pass its checksum and every rule before its sequence number counts; only then is asked whether
 * we can serve what the newer one says, so that an older copy never hides a requirement.  A failing device is an
 * error and not a reason to turn to the other copy: it may answer the next time.  Nothing is repaired.
 */
#ifndef QLUKS_FORMATS_LUKS_LUKS2_HPP
#define QLUKS_FORMATS_LUKS_LUKS2_HPP

#include "formats/luks/header.hpp"

namespace qluks {

Result<LuksHeader> read_luks2(BlockDevice& device, HeaderPlace place);

} // namespace qluks

#endif
