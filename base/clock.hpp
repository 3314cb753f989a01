/* SPDX-License-Identifier: BSD-3-Clause */
/* The time that work takes.  A function in a file of its own, so that a program that replaces costly work when it is
 * linked, as fuzz targets do, can replace what the work takes as well. */
#ifndef QLUKS_BASE_CLOCK_HPP
#define QLUKS_BASE_CLOCK_HPP

namespace qluks {

/* Seconds since a moment that never changes; it does not go back. */
double monotonic_seconds() noexcept;

} // namespace qluks

#endif
