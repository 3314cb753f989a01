/* SPDX-License-Identifier: BSD-3-Clause */
/* Partition tables as they are on the disk: the MBR, and the GUID Partition Table of the UEFI specification, chapter 5.
 * All numbers are little-endian. */
#ifndef QLUKS_FORMATS_PARTITION_ONDISK_HPP
#define QLUKS_FORMATS_PARTITION_ONDISK_HPP

#include <array>

#include "base/wire.hpp"

namespace qluks {

struct MbrEntryOnDisk {
  uint8_t boot_indicator;
  std::array<uint8_t, 3> starting_chs;
  uint8_t os_type;
  std::array<uint8_t, 3> ending_chs;
  le32 starting_lba;
  le32 size_in_lba;
};
static_assert(sizeof(MbrEntryOnDisk) == 16);

/* Also the form of an extended boot record. */
struct MbrOnDisk {
  std::array<uint8_t, 440> boot_code;
  le32 unique_signature;
  le16 unknown;
  std::array<MbrEntryOnDisk, 4> entries;
  le16 signature;
};
static_assert(sizeof(MbrOnDisk) == 512 && alignof(MbrOnDisk) == 1);

inline constexpr uint16_t mbr_signature = 0xaa55;

/* Of the entry that protects a GPT from programs that do not know it. */
inline constexpr uint8_t mbr_type_gpt = 0xee;

struct GptHeaderOnDisk {
  std::array<char, 8> signature;
  le32 revision;
  le32 header_size;
  le32 header_crc32; /* over header_size bytes, with zeroes here */
  le32 reserved;
  le64 my_lba;
  le64 alternate_lba;
  le64 first_usable_lba;
  le64 last_usable_lba;
  std::array<uint8_t, 16> disk_guid;
  le64 partition_entry_lba;
  le32 number_of_partition_entries;
  le32 size_of_partition_entry;
  le32 partition_entry_array_crc32;
};
static_assert(sizeof(GptHeaderOnDisk) == 92 && alignof(GptHeaderOnDisk) == 1);

inline constexpr std::array<char, 8> gpt_signature = {'E', 'F', 'I', ' ', 'P', 'A', 'R', 'T'};

struct GptEntryOnDisk {
  std::array<uint8_t, 16> partition_type_guid; /* zeroes: not used */
  std::array<uint8_t, 16> unique_partition_guid;
  le64 starting_lba;
  le64 ending_lba; /* the last that belongs to it */
  le64 attributes;
  std::array<uint8_t, 72> partition_name;
};
static_assert(sizeof(GptEntryOnDisk) == 128 && alignof(GptEntryOnDisk) == 1);

} // namespace qluks

#endif
