/* SPDX-License-Identifier: BSD-3-Clause */
/* A secret and a key slot make a volume key, or nothing.
 *
 *      secret ──kdf──▶ keyslot key ──decrypt──▶ key material ──af_merge──▶ candidate ──pbkdf2──▶ is it the digest?
 *
 * Key material is always encrypted in sectors of 512 bytes that count from 0 at its own start.
 */
#ifndef QLUKS_FORMATS_LUKS_KEYSLOT_HPP
#define QLUKS_FORMATS_LUKS_KEYSLOT_HPP

#include <optional>
#include <vector>

#include "base/secure_buffer.hpp"
#include "formats/luks/header.hpp"

namespace qluks {

/* The slot's key material as it is stored. */
Result<std::vector<std::byte>> read_key_material(const LuksKeyslot& slot, BlockDevice& header_device);

/* The volume key; nullopt if the secret is not the slot's.  `material` is what read_key_material gave. */
Result<std::optional<SecureBuffer>> open_keyslot(const LuksKeyslot& slot, const LuksDigest& digest, Bytes material,
                                                 Bytes secret);

/* Is this the key that the digest was made of?  Fails only when the process has to end. */
Result<bool> matches_digest(const LuksDigest& digest, Bytes key);

} // namespace qluks

#endif
