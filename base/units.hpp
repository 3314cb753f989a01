/* SPDX-License-Identifier: BSD-3-Clause */
/* Numbers of different meaning that must not be mixed up.
 *
 * In a qcow2 the same uint64_t may count bytes of the disk that the client sees or bytes of the container; the
 * tweak of a sector depends on which.  Each is a type of its own.
 */
#ifndef QLUKS_BASE_UNITS_HPP
#define QLUKS_BASE_UNITS_HPP

#include <compare>
#include <cstdint>

namespace qluks {

/* The unit in which LUKS, dm-crypt and qcow2 count sectors, whatever the sector size of a cipher. */
inline constexpr uint32_t sector_bytes = 512;

/* A byte of the disk that a layer shows to whoever is above it. */
struct GuestOffset {
  uint64_t bytes = 0;
  auto operator<=>(const GuestOffset&) const = default;
};

/* A byte of the container that a layer reads from. */
struct HostOffset {
  uint64_t bytes = 0;
  auto operator<=>(const HostOffset&) const = default;
};

/* What an IV is made from: a count of 512-byte sectors, also for ciphers whose sectors are larger (dm-crypt without
 * iv_large_sectors). */
struct SectorNumber {
  uint64_t value = 0;
  auto operator<=>(const SectorNumber&) const = default;
};

} // namespace qluks

#endif
