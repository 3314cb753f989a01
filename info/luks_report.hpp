/* SPDX-License-Identifier: BSD-3-Clause */
/* What a LUKS header says. */
#ifndef QLUKS_INFO_LUKS_REPORT_HPP
#define QLUKS_INFO_LUKS_REPORT_HPP

#include "formats/luks/header.hpp"
#include "info/report.hpp"

namespace qluks::info {

Report luks_report(const LuksHeader& header);

} // namespace qluks::info

#endif
