/* SPDX-License-Identifier: BSD-3-Clause */
/* The header of LUKS1 as it lies on the device; every integer is big endian, offsets are in sectors of 512 bytes.
 *
 *      0          592    1024                                     payload_offset * 512
 *      | phdr      | pad  | key material 0 | … | key material 7 |  payload …
 *
 * There is one copy and no checksum.
 */
#ifndef QLUKS_FORMATS_LUKS_LUKS1_ONDISK_HPP
#define QLUKS_FORMATS_LUKS_LUKS1_ONDISK_HPP

#include <array>

#include "base/wire.hpp"

namespace qluks {

inline constexpr std::array<char, 6> luks_magic = {'L', 'U', 'K', 'S', '\xba', '\xbe'};

inline constexpr uint32_t luks1_slot_active = 0x00ac71f3;
inline constexpr uint32_t luks1_slot_inactive = 0x0000dead;

struct Luks1KeyslotOnDisk {
  be32 active;     /* one of the two values above */
  be32 iterations; /* of PBKDF2 from the passphrase to the keyslot key */
  std::array<std::byte, 32> salt;
  be32 key_material_offset; /* sectors from the start of the header */
  be32 stripes;             /* always 4000 */
};

static_assert(sizeof(Luks1KeyslotOnDisk) == 48 && alignof(Luks1KeyslotOnDisk) == 1);

struct Luks1PhdrOnDisk {
  std::array<char, 6> magic;
  be16 version;
  std::array<char, 32> cipher_name; /* "aes" */
  std::array<char, 32> cipher_mode; /* "xts-plain64" */
  std::array<char, 32> hash_spec;   /* of PBKDF2 and of the anti-forensic split */
  be32 payload_offset;              /* sectors; 0 in a detached header: the payload starts at 0 */
  be32 key_bytes;                   /* of the volume key */
  std::array<std::byte, 20> digest; /* PBKDF2 of the volume key */
  std::array<std::byte, 32> digest_salt;
  be32 digest_iterations;
  std::array<char, 40> uuid;
  std::array<Luks1KeyslotOnDisk, 8> keyslots;
};

static_assert(sizeof(Luks1PhdrOnDisk) == 592 && alignof(Luks1PhdrOnDisk) == 1);
static_assert(offsetof(Luks1PhdrOnDisk, hash_spec) == 72 && offsetof(Luks1PhdrOnDisk, payload_offset) == 104);
static_assert(offsetof(Luks1PhdrOnDisk, digest) == 112 && offsetof(Luks1PhdrOnDisk, digest_iterations) == 164);
static_assert(offsetof(Luks1PhdrOnDisk, uuid) == 168 && offsetof(Luks1PhdrOnDisk, keyslots) == 208);

} // namespace qluks

#endif
