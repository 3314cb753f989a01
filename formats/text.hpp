/* SPDX-License-Identifier: BSD-3-Clause */
/* Numbers and strings of an image in error messages. */
#ifndef QLUKS_FORMATS_TEXT_HPP
#define QLUKS_FORMATS_TEXT_HPP

#include <cstdint>
#include <string>
#include <string_view>

namespace qluks {

/* Offsets and bits are shown as QEMU's tools show them: 0x50000. */
std::string hex(uint64_t value);

/* The string in quotes, safe to print: one line, nothing but printable ASCII, cut when it is long. */
std::string in_quotes(std::string_view text);

} // namespace qluks

#endif
