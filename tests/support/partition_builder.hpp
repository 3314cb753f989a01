/* SPDX-License-Identifier: BSD-3-Clause */
/* Disks with partition tables, of which any field can then be made wrong. */
#ifndef QLUKS_TESTS_SUPPORT_PARTITION_BUILDER_HPP
#define QLUKS_TESTS_SUPPORT_PARTITION_BUILDER_HPP

#define ZLIB_CONST
#include <zlib.h>

#include <algorithm>
#include <vector>

#include "formats/partition/ondisk.hpp"

namespace qluks::test {

/* A structure that lies in these bytes. */
template <class OnDisk>
OnDisk& at(std::vector<std::byte>& bytes, uint64_t offset) {
  return *reinterpret_cast<OnDisk*>(std::span(bytes).subspan(static_cast<size_t>(offset), sizeof(OnDisk)).data());
}

/* A disk whose MBR has the signature and no partition. */
class MbrDisk {
 public:
  explicit MbrDisk(size_t sectors) : bytes(sectors * 512) { record(0); }

  /* The MBR, or an EBR. */
  MbrOnDisk& record(uint64_t sector) {
    auto& mbr = at<MbrOnDisk>(bytes, sector * 512);
    mbr.signature = mbr_signature;
    return mbr;
  }

  void set(uint64_t sector, size_t entry, uint8_t type, uint32_t start, uint32_t size) {
    MbrEntryOnDisk& fields = record(sector).entries[entry];
    fields.os_type = type;
    fields.starting_lba = start;
    fields.size_in_lba = size;
  }

  std::vector<std::byte> bytes;
};

/* A disk with both copies of a GPT, and the MBR that protects it. */
class GptDisk {
 public:
  explicit GptDisk(uint64_t sectors, uint32_t sector_size = 512, uint32_t entries = 128, uint32_t entry_size = 128)
      : bytes(static_cast<size_t>(sectors * sector_size)), sector_size_(sector_size), sectors_(sectors) {
    auto& mbr = at<MbrOnDisk>(bytes, 0);
    mbr.signature = mbr_signature;
    mbr.entries[0].os_type = mbr_type_gpt;
    mbr.entries[0].starting_lba = 1;
    mbr.entries[0].size_in_lba = static_cast<uint32_t>(sectors - 1);
    const uint64_t array = (uint64_t{entries} * entry_size + sector_size - 1) / sector_size;
    for (const bool last : {false, true}) {
      GptHeaderOnDisk& fields = header(last);
      fields = GptHeaderOnDisk{};
      fields.signature = gpt_signature;
      fields.revision = 0x10000;
      fields.header_size = sizeof fields;
      fields.my_lba = last ? sectors - 1 : 1;
      fields.alternate_lba = last ? 1 : sectors - 1;
      fields.first_usable_lba = 2 + array;
      fields.last_usable_lba = sectors - 2 - array;
      fields.partition_entry_lba = last ? sectors - 1 - array : 2;
      fields.number_of_partition_entries = entries;
      fields.size_of_partition_entry = entry_size;
    }
    seal();
  }

  GptHeaderOnDisk& header(bool last) {
    return at<GptHeaderOnDisk>(bytes, (last ? sectors_ - 1 : uint64_t{1}) * sector_size_);
  }

  uint64_t entry_offset(bool last, uint32_t number) {
    return header(last).partition_entry_lba * sector_size_ +
           uint64_t{number - 1} * header(last).size_of_partition_entry;
  }
  GptEntryOnDisk& entry(bool last, uint32_t number) { return at<GptEntryOnDisk>(bytes, entry_offset(last, number)); }

  /* In both copies. */
  void set(uint32_t number, uint64_t first, uint64_t last) {
    for (const bool copy : {false, true}) {
      entry(copy, number).partition_type_guid.fill(0x11);
      entry(copy, number).starting_lba = first;
      entry(copy, number).ending_lba = last;
    }
    seal();
  }

  /* Make the checksums right. */
  void seal() {
    for (const bool last : {false, true}) seal_header(last, true);
  }

  void seal_header(bool last, bool array_too) {
    GptHeaderOnDisk& fields = header(last);
    const uint64_t array = uint64_t{fields.number_of_partition_entries} * fields.size_of_partition_entry;
    if (array_too) fields.partition_entry_array_crc32 = crc(fields.partition_entry_lba * sector_size_, array);
    fields.header_crc32 = 0;
    fields.header_crc32 = crc(fields.my_lba * sector_size_, fields.header_size);
  }

  std::vector<std::byte> bytes;

 private:
  uint32_t crc(uint64_t offset, uint64_t length) {
    const auto part = std::span(bytes).subspan(static_cast<size_t>(offset), static_cast<size_t>(length));
    return static_cast<uint32_t>(crc32(0, reinterpret_cast<const Bytef*>(part.data()), static_cast<uInt>(part.size())));
  }

  uint32_t sector_size_;
  uint64_t sectors_;
};

} // namespace qluks::test

#endif
