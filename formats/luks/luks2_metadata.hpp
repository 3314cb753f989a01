/* SPDX-License-Identifier: BSD-3-Clause */
/* The objects of a LUKS2 JSON area, decoded and validated by the rules that cryptsetup has for them.
 *
 *      keyslots ──── digests ──── segments         a digest binds key slots to the segments that their key opens;
 *          └──────── tokens                        one that lists no segment makes its slots "unbound"
 *      config: sizes, requirements
 *
 * Valid does not mean served: what is legal and not supported (reencryption, integrity, …) is here as it was found.
 */
#ifndef QLUKS_FORMATS_LUKS_LUKS2_METADATA_HPP
#define QLUKS_FORMATS_LUKS_LUKS2_METADATA_HPP

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace qluks {

/* No object of any kind has a number of that size or above. */
inline constexpr uint32_t luks2_objects_max = 32;

struct Luks2Kdf {
  std::string type; /* "pbkdf2", "argon2i", "argon2id" or unknown: then nothing else is filled */
  std::string salt; /* base64 */
  std::string hash;
  uint32_t iterations = 0;
  uint32_t time = 0;
  uint32_t memory_kib = 0;
  uint32_t cpus = 0;
};

struct Luks2Area {
  std::string type;
  uint64_t offset = 0; /* bytes from the start of the header */
  uint64_t size = 0;
  std::string encryption; /* only of "luks2" key slots, as is what follows */
  uint32_t key_size = 0;
};

struct Luks2Keyslot {
  uint32_t number = 0;
  std::string type; /* "luks2", "reencrypt" or unknown */
  uint32_t key_size = 0;
  uint32_t priority = 1; /* 0 ignore, 1 normal, 2 prefer */
  Luks2Area area;
  Luks2Kdf kdf;
  std::string af_hash;
  uint32_t af_stripes = 0;
};

struct Luks2Segment {
  uint32_t number = 0;
  std::string type; /* "crypt", "linear", "hw-opal", "hw-opal-crypt" or unknown */
  uint64_t offset = 0;
  std::optional<uint64_t> size; /* empty: dynamic, to the end of the device */
  std::vector<std::string> flags;
  uint64_t iv_tweak = 0; /* only of "crypt" segments, as is what follows */
  std::string encryption;
  uint32_t sector_size = 0;
  bool has_integrity = false;

  /* A segment that describes the state before or after a reencryption, not what is on the device. */
  bool is_backup() const;
};

struct Luks2Digest {
  uint32_t number = 0;
  std::string type;
  std::vector<uint32_t> keyslots;
  std::vector<uint32_t> segments;
  std::string salt; /* base64, as is the digest; only of "pbkdf2" digests, as is what follows */
  std::string digest;
  std::string hash;
  uint32_t iterations = 0;
};

struct Luks2Metadata {
  uint64_t hdr_size = 0; /* of each of the two copies */
  uint64_t keyslots_size = 0;
  std::vector<std::string> requirements;
  std::vector<Luks2Keyslot> keyslots; /* in the order of the text */
  std::vector<Luks2Segment> segments; /* by number, which is their index */
  std::vector<Luks2Digest> digests;
  std::string tokens; /* as JSON text: what is in them concerns other programs */

  uint64_t keyslots_end() const noexcept { return 2 * hdr_size + keyslots_size; }
};

/* `json` is the text of a copy of `hdr_size` bytes. */
Result<Luks2Metadata> parse_luks2_metadata(std::string_view json, uint64_t hdr_size);

} // namespace qluks

#endif
