/* SPDX-License-Identifier: BSD-3-Clause */
/* The header of LUKS2 as it lies on the device, twice; every integer is big endian.
 *
 *      0        4096        hdr_size             2 * hdr_size                    segment offset
 *      | binary | JSON area | binary | JSON area | keyslots area (config says    |  payload …
 *      | primary copy       | secondary copy     |  how long it is)              |
 *
 * The checksum of a copy covers its binary header, with the checksum itself zeroed, and its whole JSON area.
 */
#ifndef QLUKS_FORMATS_LUKS_LUKS2_ONDISK_HPP
#define QLUKS_FORMATS_LUKS_LUKS2_ONDISK_HPP

#include <array>

#include "base/wire.hpp"
#include "formats/luks/luks1_ondisk.hpp"

namespace qluks {

/* The primary copy has the magic of LUKS1. */
inline constexpr std::array<char, 6> luks2_secondary_magic = {'S', 'K', 'U', 'L', '\xba', '\xbe'};

/* The legal sizes of one copy, and so the nine places where a secondary one may be. */
inline constexpr std::array<uint64_t, 9> luks2_hdr_sizes = {16 << 10,  32 << 10, 64 << 10, 128 << 10, 256 << 10,
                                                            512 << 10, 1 << 20,  2 << 20,  4 << 20};

inline constexpr uint64_t luks2_binary_bytes = 4096;

struct Luks2HdrOnDisk {
  std::array<char, 6> magic;
  be16 version;
  be64 hdr_size; /* of one copy, binary header and JSON area */
  be64 seqid;    /* grows with each update; the higher copy is the newer one */
  std::array<char, 48> label;
  std::array<char, 32> checksum_alg; /* "sha256" */
  std::array<std::byte, 64> salt;    /* only there to make the copies differ */
  std::array<char, 40> uuid;
  std::array<char, 48> subsystem;
  be64 hdr_offset; /* where this copy lies */
  std::array<std::byte, 184> padding;
  std::array<std::byte, 64> checksum;
  std::array<std::byte, 7 * 512> padding4096;
};

static_assert(sizeof(Luks2HdrOnDisk) == luks2_binary_bytes && alignof(Luks2HdrOnDisk) == 1);
static_assert(offsetof(Luks2HdrOnDisk, label) == 24 && offsetof(Luks2HdrOnDisk, checksum_alg) == 72);
static_assert(offsetof(Luks2HdrOnDisk, salt) == 104 && offsetof(Luks2HdrOnDisk, uuid) == 168);
static_assert(offsetof(Luks2HdrOnDisk, hdr_offset) == 256 && offsetof(Luks2HdrOnDisk, checksum) == 448);

} // namespace qluks

#endif
