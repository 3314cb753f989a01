/* SPDX-License-Identifier: BSD-3-Clause */
/* The structures of a qcow2 file as they lie on disk, all big-endian.
 *
 *      cluster 0                                                 anywhere, cluster aligned
 *      ┌────────┬────────────┬─────┬───────┬──────────────┐      ┌──────────┐     ┌──────────┐     ┌──────┐
 *      │ header │ extension… │ END │  ...  │ backing name │      │ L1 table │ ──▶ │ L2 table │ ──▶ │ data │
 *      └────────┴────────────┴─────┴───────┴──────────────┘      └──────────┘     └──────────┘     └──────┘
 *      0        header_length        backing_file_offset
 *
 * The reference is docs/interop/qcow2.rst of QEMU; where QEMU's own behaviour differs, the code that uses a field
 * says so.
 */
#ifndef QLUKS_FORMATS_QCOW2_ONDISK_HPP
#define QLUKS_FORMATS_QCOW2_ONDISK_HPP

#include <cstddef>

#include "base/wire.hpp"

namespace qluks {

inline constexpr uint32_t qcow2_magic = 0x514649fb; /* "QFI\xfb" */

struct Qcow2HeaderOnDisk {
  be32 magic;
  be32 version; /* 2 or 3 */
  be64 backing_file_offset;
  be32 backing_file_size; /* bytes of the name, no NUL, at most 1023 */
  be32 cluster_bits;      /* 9 … 21 */
  be64 size;              /* of the guest disk, bytes */
  be32 crypt_method;
  be32 l1_size; /* entries */
  be64 l1_table_offset;
  be64 refcount_table_offset;
  be32 refcount_table_clusters;
  be32 nb_snapshots;
  be64 snapshots_offset;
  /* Version 3 from here on. */
  be64 incompatible_features;
  be64 compatible_features;
  be64 autoclear_features;
  be32 refcount_order; /* refcounts are 2^order bits wide, 0 … 6 */
  be32 header_length;
  uint8_t compression_type; /* only if header_length > 104 */
  uint8_t padding[7];
};
static_assert(sizeof(Qcow2HeaderOnDisk) == 112 && alignof(Qcow2HeaderOnDisk) == 1);
static_assert(offsetof(Qcow2HeaderOnDisk, crypt_method) == 32);
static_assert(offsetof(Qcow2HeaderOnDisk, snapshots_offset) == 64);
static_assert(offsetof(Qcow2HeaderOnDisk, incompatible_features) == 72);
static_assert(offsetof(Qcow2HeaderOnDisk, header_length) == 100);
static_assert(offsetof(Qcow2HeaderOnDisk, compression_type) == 104);

inline constexpr uint32_t qcow2_v2_header_length = 72;
inline constexpr uint32_t qcow2_v3_header_length_min = 104;

/* Bits of incompatible_features: a reader that does not know one must not open the image. */
inline constexpr unsigned qcow2_dirty_bit = 0;
inline constexpr unsigned qcow2_corrupt_bit = 1;
inline constexpr unsigned qcow2_data_file_bit = 2;
inline constexpr unsigned qcow2_compression_bit = 3;
inline constexpr unsigned qcow2_extended_l2_bit = 4;

/* Bits of autoclear_features: a writer that does not know one clears it. */
inline constexpr unsigned qcow2_bitmaps_bit = 0;
inline constexpr unsigned qcow2_raw_data_file_bit = 1;

struct Qcow2ExtensionOnDisk {
  be32 magic;
  be32 length; /* of the payload, which is padded to a multiple of 8 bytes */
};
static_assert(sizeof(Qcow2ExtensionOnDisk) == 8);

inline constexpr uint32_t qcow2_ext_end = 0;
inline constexpr uint32_t qcow2_ext_backing_format = 0xe2792aca;
inline constexpr uint32_t qcow2_ext_feature_names = 0x6803f857;
inline constexpr uint32_t qcow2_ext_encryption = 0x0537be77;
inline constexpr uint32_t qcow2_ext_bitmaps = 0x23852875;
inline constexpr uint32_t qcow2_ext_data_file = 0x44415441;

/* Payload of the feature name table: an array of these. */
struct Qcow2FeatureNameOnDisk {
  uint8_t type; /* 0 incompatible, 1 compatible, 2 autoclear */
  uint8_t bit;
  std::array<char, 46> name; /* NUL only if it is shorter */
};
static_assert(sizeof(Qcow2FeatureNameOnDisk) == 48);

/* Payload of the encryption extension: where the LUKS header is in this file. */
struct Qcow2EncryptionOnDisk {
  be64 offset;
  be64 length;
};
static_assert(sizeof(Qcow2EncryptionOnDisk) == 16);

struct Qcow2BitmapsOnDisk {
  be32 nb_bitmaps;
  be32 reserved; /* 0 */
  be64 directory_size;
  be64 directory_offset;
};
static_assert(sizeof(Qcow2BitmapsOnDisk) == 24);

/* An entry of the snapshot table: this, the extra data, the ID, the name, and padding to a multiple of 8 bytes. */
struct Qcow2SnapshotOnDisk {
  be64 l1_table_offset;
  be32 l1_size;
  be16 id_size;
  be16 name_size;
  be32 date_seconds;
  be32 date_nanoseconds;
  be64 vm_clock_nanoseconds;
  be32 vm_state_size;
  be32 extra_data_size;
};
static_assert(sizeof(Qcow2SnapshotOnDisk) == 40 && offsetof(Qcow2SnapshotOnDisk, extra_data_size) == 36);

} // namespace qluks

#endif
