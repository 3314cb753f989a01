/* SPDX-License-Identifier: BSD-3-Clause */
/* A small qcow2 written by hand, for what qemu-img would not write.
 *
 *      | header | refcount table (empty) | L1 table | clusters in the order in which they are added … |
 */
#ifndef QLUKS_TESTS_SUPPORT_QCOW2_IMAGE_HPP
#define QLUKS_TESTS_SUPPORT_QCOW2_IMAGE_HPP

#include <cstring>
#include <vector>

#include "base/checked.hpp"
#include "formats/qcow2/ondisk.hpp"
#include "tests/support/memory_device.hpp"

namespace qluks::test {

class Qcow2Image {
 public:
  static constexpr uint64_t compressed_flag = uint64_t{1} << 62;
  static constexpr uint64_t zero_flag = 1;

  struct Shape {
    uint64_t size = 1 << 20;
    unsigned cluster_bits = 16;
    uint32_t version = 3;
    bool extended_l2 = false;
  };

  explicit Qcow2Image(const Shape& shape) : shape_(shape), bytes_(2 * cluster_size()) {
    const uint64_t table_bits = 2 * shape.cluster_bits - (shape.extended_l2 ? 4 : 3);
    const uint64_t l1_entries = (shape.size >> table_bits) + 1;
    Qcow2HeaderOnDisk disk{};
    disk.magic = qcow2_magic;
    disk.version = shape.version;
    disk.cluster_bits = shape.cluster_bits;
    disk.size = shape.size;
    disk.l1_size = static_cast<uint32_t>(l1_entries);
    disk.l1_table_offset = l1_offset();
    disk.refcount_table_offset = cluster_size();
    disk.refcount_table_clusters = 1;
    if (shape.version == 3) {
      disk.refcount_order = 4;
      disk.header_length = sizeof disk;
      disk.incompatible_features = shape.extended_l2 ? 1U << qcow2_extended_l2_bit : 0;
    }
    bytes_.resize(l1_offset() + align_down(l1_entries * 8 + cluster_size() - 1, cluster_size()));
    /* Version 2 ends before the feature words. */
    std::memcpy(bytes_.data(), &disk, shape.version == 3 ? sizeof disk : qcow2_v2_header_length);
  }

  uint64_t cluster_size() const { return uint64_t{1} << shape_.cluster_bits; }
  uint64_t l1_offset() const { return 2 * cluster_size(); }

  /* The header, to be changed in place. */
  Qcow2HeaderOnDisk& header() { return *reinterpret_cast<Qcow2HeaderOnDisk*>(bytes_.data()); }

  void put_u64(uint64_t offset, uint64_t value) {
    const be64 field = value;
    std::memcpy(&bytes_[offset], &field, sizeof field);
  }

  /* One more cluster at the end of the file, filled with that byte. */
  uint64_t add_cluster(uint8_t fill) {
    const uint64_t offset = bytes_.size();
    bytes_.resize(offset + cluster_size(), std::byte{fill});
    return offset;
  }

  void set_l1(uint64_t index, uint64_t entry) { put_u64(l1_offset() + index * 8, entry); }

  /* The entry of a guest cluster, in an L2 table that is made when it is needed. */
  void set_l2(uint64_t guest_cluster, uint64_t word, uint64_t bitmap = 0) {
    const uint64_t entry_bytes = shape_.extended_l2 ? 16 : 8;
    const uint64_t per_table = cluster_size() / entry_bytes;
    const uint64_t l1_index = guest_cluster / per_table;
    uint64_t table = load_on_disk<be64>(std::span(bytes_).subspan(l1_offset() + l1_index * 8)) & ~(uint64_t{1} << 63);
    if (table == 0) {
      table = add_cluster(0);
      set_l1(l1_index, table);
    }
    const uint64_t at = table + guest_cluster % per_table * entry_bytes;
    put_u64(at, word);
    if (shape_.extended_l2) put_u64(at + 8, bitmap);
  }

  /* Count all clusters so far in one refcount block, and add free ones that hold noise.  Call it last. */
  void make_writable(uint64_t free_clusters) {
    count_clusters(bytes_);
    for (uint64_t i = 0; i < free_clusters; ++i) add_cluster(0xa5);
  }

  /* Give an image of this class a refcount block, at its end, in which each cluster has refcount 1. */
  static void count_clusters(std::vector<std::byte>& bytes) {
    const auto header = load_on_disk<Qcow2HeaderOnDisk>(bytes);
    const uint64_t cluster_size = uint64_t{1} << header.cluster_bits;
    const be64 block = align_down<uint64_t>(bytes.size() + cluster_size - 1, cluster_size);
    bytes.resize(block + cluster_size);
    std::memcpy(&bytes[header.refcount_table_offset], &block, sizeof block);
    const uint32_t order = header.refcount_order;
    const unsigned bits = 1U << (header.version == 2 ? 4 : order);
    for (uint64_t i = 0; i < bytes.size() / cluster_size; ++i) {
      /* Big-endian from a byte on; narrower ones from the lowest bit of their byte. */
      const uint64_t end_bit = (i + 1) * bits;
      if (bits >= 8)
        bytes[block + end_bit / 8 - 1] = std::byte{1};
      else
        bytes[block + i * bits / 8] |= static_cast<std::byte>(1U << (i * bits % 8));
    }
  }

  /* Say COPIED in each entry of the active tables that has a cluster: right if each has refcount 1. */
  static void set_copied(std::vector<std::byte>& bytes) {
    const auto header = load_on_disk<Qcow2HeaderOnDisk>(bytes);
    const uint64_t step =
        header.version == 3 && (header.incompatible_features >> qcow2_extended_l2_bit & 1) != 0 ? 16 : 8;
    const auto set = [&](uint64_t at) -> uint64_t {
      const uint64_t entry = load_on_disk<be64>(std::span(bytes).subspan(at));
      const uint64_t host = entry & 0x00fffffffffffe00;
      if (host == 0 || (entry & compressed_flag) != 0) return 0;
      const be64 changed = entry | uint64_t{1} << 63;
      std::memcpy(&bytes[at], &changed, sizeof changed);
      return host;
    };
    for (uint64_t i = 0; i < header.l1_size; ++i) {
      const uint64_t table = set(header.l1_table_offset + i * 8);
      for (uint64_t at = 0; table != 0 && at < uint64_t{1} << header.cluster_bits; at += step) set(table + at);
    }
  }

  /* Append an extension where the list ends now; the first call must find nothing behind the header. */
  void add_extension(uint32_t magic, std::span<const std::byte> payload, std::optional<uint32_t> length = {}) {
    if (extensions_end_ == 0) extensions_end_ = header().header_length;
    const Qcow2ExtensionOnDisk disk{magic, length.value_or(static_cast<uint32_t>(payload.size()))};
    std::memcpy(&bytes_[extensions_end_], &disk, sizeof disk);
    std::copy(payload.begin(), payload.end(), bytes_.begin() + static_cast<ptrdiff_t>(extensions_end_ + sizeof disk));
    extensions_end_ += sizeof disk + align_down<uint64_t>(payload.size() + 7, 8);
  }

  std::vector<std::byte>& bytes() { return bytes_; }
  MemoryDevice device() const { return MemoryDevice(bytes_); }

 private:
  Shape shape_;
  std::vector<std::byte> bytes_;
  uint64_t extensions_end_ = 0;
};

} // namespace qluks::test

#endif
