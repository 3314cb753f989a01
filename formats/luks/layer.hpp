/* SPDX-License-Identifier: BSD-3-Clause */
/* LUKS as a format: a payload that is decrypted on the way up.
 *
 *      device:   | header | key material | … | sector | sector | sector | … (a cut sector is dropped)
 *      layer:                                | sector | sector | sector |
 *                                            ▲ payload offset
 *
 * A read goes down as one read of whole sectors, shifted by the payload offset, and is decrypted in one call in
 * the caller's own buffer.  All of it is data: a hole below
 * decrypts to noise, so there is neither hole nor zero.
 *
 * A write is encrypted into a buffer of ours and goes down as one write for each MiB (formats/encrypted_write.hpp). All
 * writes of the volume take a lock on the sectors that they touch, so that overlapping ones leave each sector as one of
 * them wrote it.  The header is never written: the payload cannot reach it.
 */
#ifndef QLUKS_FORMATS_LUKS_LAYER_HPP
#define QLUKS_FORMATS_LUKS_LAYER_HPP

#include <memory>

#include "base/block_device.hpp"
#include "formats/format.hpp"
#include "formats/luks/header.hpp"
#include "formats/luks/keyring.hpp"

namespace qluks {

struct LuksOptions {
  bool discard = false; /* pass trim down, as dm-crypt's allow_discards: it tells where data is not */
};

/* Read the header of the volume that `device` holds and unlock it. */
Result<std::unique_ptr<Format>> open_luks(BlockDevice& device, Keyring& keyring, const LuksOptions& options = {});

/* A header that lies elsewhere, already read and unlocked (at start, before any connection exists).  What the
 * payload itself begins with is never looked at. */
class DetachedHeader {
 public:
  static Result<std::unique_ptr<DetachedHeader>> open(BlockDevice& header, Keyring& keyring);
  /* The payload is all of `device` from the header's payload offset on. */
  Result<std::unique_ptr<Format>> open_payload(BlockDevice& device, const LuksOptions& options = {}) const;

 private:
  DetachedHeader(LuksHeader header, Keyring::Key key) : header_(std::move(header)), key_(std::move(key)) {}

  LuksHeader header_;
  Keyring::Key key_;
};

} // namespace qluks

#endif
