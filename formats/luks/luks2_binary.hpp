/* SPDX-License-Identifier: BSD-3-Clause */
/* One copy of a LUKS2 header: found, checked against its checksum and held in memory.
 *
 * Everything after this works on these bytes: the device is not asked twice for the same thing.
 */
#ifndef QLUKS_FORMATS_LUKS_LUKS2_BINARY_HPP
#define QLUKS_FORMATS_LUKS_LUKS2_BINARY_HPP

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/block_device.hpp"

namespace qluks {

struct Luks2Copy {
  uint64_t hdr_size = 0;
  uint64_t seqid = 0;
  std::string label;
  std::string uuid;
  std::vector<std::byte> bytes; /* binary header and JSON area, hdr_size in all */

  /* The text in the JSON area: it starts with '{', ends with a NUL, and only NULs follow. */
  Result<std::string_view> json_text() const;
};

/* The copy that says of itself that it lies at `offset`: the primary one at 0, else a secondary one.
 * Errc::invalid_format when there is none, or a damaged one; any other error is that of the storage. */
Result<Luks2Copy> read_luks2_copy(BlockDevice& device, uint64_t offset);

/* Did the storage fail?  Then nothing is known of the copy, and the other one must not stand in for it. */
inline bool is_storage_failure(const Error& error) noexcept { return error.code != Errc::invalid_format; }

/* The first secondary copy with a good checksum among the places where one may be. */
Result<Luks2Copy> find_luks2_secondary(BlockDevice& device);

/* Does a secondary copy claim to be at one of those places?  Its checksum is not looked at. */
Result<bool> probe_luks2_secondary(BlockDevice& device);

} // namespace qluks

#endif
