/* SPDX-License-Identifier: BSD-3-Clause */
/* The header of a qcow2 and its extensions, decoded and validated.
 *
 * Every number in it is bounded here, by QEMU's limits, before anything is allocated or shifted by it.  What stands
 * in a validated header can be used without further checks.  Nothing here says whether the features of the image are
 * served: that is decided by who opens it.
 */
#ifndef QLUKS_FORMATS_QCOW2_HEADER_HPP
#define QLUKS_FORMATS_QCOW2_HEADER_HPP

#include <optional>
#include <string>

#include "base/block_device.hpp"
#include "base/units.hpp"
#include "formats/qcow2/ondisk.hpp"

namespace qluks {

enum class Qcow2CryptMethod : uint8_t { none, aes, luks };
enum class Qcow2Compression : uint8_t { zlib, zstd };

struct HostRange {
  HostOffset at;
  uint64_t length = 0;
};

struct Qcow2Header {
  uint32_t version = 0;
  unsigned cluster_bits = 0;
  uint64_t size = 0; /* of the guest disk, whole sectors */
  Qcow2CryptMethod crypt = Qcow2CryptMethod::none;
  Qcow2Compression compression = Qcow2Compression::zlib;

  HostOffset l1_offset;
  uint32_t l1_entries = 0;
  HostOffset refcount_table_offset;
  uint32_t refcount_table_clusters = 0;
  unsigned refcount_order = 4;
  HostOffset snapshots_offset;
  uint32_t snapshots = 0;

  uint64_t incompatible = 0;
  uint64_t compatible = 0;
  uint64_t autoclear = 0;

  std::string backing_name; /* empty: no backing file */
  std::string backing_format;
  std::string data_file_name;                /* may be empty even with an external data file */
  std::optional<HostRange> encryption;       /* the LUKS header */
  std::optional<HostRange> bitmap_directory; /* if the autoclear bit says that it is right */

  uint64_t cluster_size() const noexcept { return uint64_t{1} << cluster_bits; }
  bool has(unsigned incompatible_bit) const noexcept { return ((incompatible >> incompatible_bit) & 1) != 0; }
  bool has_autoclear(unsigned bit) const noexcept { return ((autoclear >> bit) & 1) != 0; }
};

/* No table of L1 entries is longer than this, the active one or one of a snapshot. */
inline constexpr uint64_t qcow2_l1_bytes_max = 32 << 20;

/* Read and validate the header of `container`.  One read of the storage, unless the extensions go past the first
 * 64 KiB. */
Result<Qcow2Header> read_qcow2_header(BlockDevice& container);

/* Does a table of `bytes` at `offset` start on a cluster, stay inside of what a file offset can say, and keep to
 * `bytes_max`?  `name` starts the error. */
Status check_qcow2_table(const Qcow2Header& header, const std::string& name, HostOffset offset, uint64_t bytes,
                         uint64_t bytes_max);

/* The L1 entries that a guest disk of `size` bytes needs; nothing if QEMU could not count them, or the bytes. */
std::optional<uint32_t> qcow2_l1_entries_needed(const Qcow2Header& header, uint64_t size) noexcept;

} // namespace qluks

#endif
