/* SPDX-License-Identifier: BSD-3-Clause */
/* A LUKS header of either version, decoded and validated.
 *
 * LUKS1 and LUKS2 write the same facts down differently; both parsers produce this one structure, and unlocking and
 * sector encryption know nothing of versions.  LUKS1: "LUKS On-Disk Format Specification" 1.2.3; LUKS2: "LUKS2
 * On-Disk Format Specification" 1.1.
 */
#ifndef QLUKS_FORMATS_LUKS_HEADER_HPP
#define QLUKS_FORMATS_LUKS_HEADER_HPP

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/block_device.hpp"
#include "crypto/cipher_spec.hpp"
#include "crypto/kdf/pbkdf.hpp"

namespace qluks {

/* Where the header lies decides which offsets are legal. */
enum class HeaderPlace : uint8_t {
  attached, /* in front of its payload */
  detached, /* in a file of its own: the payload may start at 0 */
  in_qcow2, /* in the header extension of a qcow2: only version 1, and the payload offset means nothing */
};

struct Pbkdf2Params {
  const HashAlgorithm* hash = nullptr;
  uint32_t iterations = 0;
};

struct Argon2Params {
  Argon2Type type = Argon2Type::id;
  Argon2Cost cost;
};

struct LuksKeyslot {
  uint32_t number = 0;
  uint32_t key_bytes = 0; /* of the key that the slot holds */
  std::variant<Pbkdf2Params, Argon2Params> kdf;
  std::vector<std::byte> salt;
  const HashAlgorithm* af_hash = nullptr;
  CipherSpec area_cipher;
  uint32_t area_key_bytes = 0;  /* of the derived keyslot key */
  uint64_t area_offset = 0;     /* bytes from the start of the header */
  size_t digest = 0;            /* index into LuksHeader::digests */
  bool only_when_named = false; /* LUKS2 priority "ignore": tried only when named by number */
};

struct LuksDigest {
  const HashAlgorithm* hash = nullptr;
  uint32_t iterations = 0;
  std::vector<std::byte> salt;
  std::vector<std::byte> digest;
};

/* A slot for the payload that cannot be tried, and why: an unknown derivation, hash or cipher. */
struct LuksSkippedSlot {
  uint32_t number = 0;
  std::string reason;
};

struct LuksHeader {
  uint32_t version = 0;
  HeaderPlace place = HeaderPlace::attached;
  std::string uuid;
  std::string label;         /* LUKS2 only */
  std::string tokens = "{}"; /* LUKS2: the object of that name, as JSON; for programs that find secrets by it */

  CipherSpec cipher;
  uint32_t key_bytes = 0; /* of the volume key; 0 if only the key slot says (LUKS2) */
  uint32_t sector_size = 512;
  uint64_t iv_tweak = 0;                 /* added to the sector number of each sector of the payload */
  uint64_t payload_offset = 0;           /* bytes into the device that holds the payload */
  std::optional<uint64_t> payload_bytes; /* empty: to the end of the device */

  /* Usable slots only, in the order in which they are to be tried. */
  std::vector<LuksKeyslot> keyslots;
  std::vector<LuksSkippedSlot> skipped;
  std::vector<LuksDigest> digests; /* each of the payload's volume key */

  /* SHA-256 over the bytes of the header that was used. */
  std::vector<std::byte> fingerprint;
};

/* The stripes of every anti-forensic split, in both versions. */
inline constexpr uint32_t af_stripes = 4000;

/* SHA-256 over all the pieces: what headers are told apart by. */
std::vector<std::byte> luks_fingerprint(std::span<const Bytes> pieces);

/* Does the device start with a LUKS magic, or (LUKS2) hold a secondary header where one may be? */
Result<bool> probe_luks(BlockDevice& device);

/* Does the device start with a LUKS magic?  One small read. */
Result<bool> starts_as_luks(BlockDevice& device);

/* Read and validate the header at the start of `device`.  LUKS2: both copies are read, the newer valid one is used,
 * nothing is repaired.  The error names the field, its value and the limit. */
Result<LuksHeader> read_luks_header(BlockDevice& device, HeaderPlace place);

} // namespace qluks

#endif
