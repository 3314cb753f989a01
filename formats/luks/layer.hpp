/* SPDX-License-Identifier: BSD-3-Clause */
/* LUKS as a format: a payload that is decrypted on the way up.
 *
 *      device:   | header | key material | … | sector | sector | sector | … (a cut sector is dropped)
 *      layer:                                | sector | sector | sector |
 *                                            ▲ payload offset
 *
 * A request goes down as one read of whole sectors, shifted by the payload offset, and is decrypted in one call in
 * the caller's own buffer.  A hole below stays a hole, but it never reads as zeroes: it decrypts to noise.  The
 * layer is read-only and has no state of its own, so any number of threads may use it.
 */
#ifndef QLUKS_FORMATS_LUKS_LAYER_HPP
#define QLUKS_FORMATS_LUKS_LAYER_HPP

#include <memory>

#include "base/block_device.hpp"
#include "formats/format.hpp"
#include "formats/luks/header.hpp"
#include "formats/luks/keyring.hpp"

namespace qluks {

/* Read the header of the volume that `device` holds and unlock it. */
Result<std::unique_ptr<Format>> open_luks(BlockDevice& device, Keyring& keyring);

/* A header that lies elsewhere, already read and unlocked (at start, before any connection exists).  What the
 * payload itself begins with is never looked at. */
class DetachedHeader {
 public:
  static Result<std::unique_ptr<DetachedHeader>> open(BlockDevice& header, Keyring& keyring);
  /* The payload is all of `device` from the header's payload offset on. */
  Result<std::unique_ptr<Format>> open_payload(BlockDevice& device) const;

 private:
  DetachedHeader(LuksHeader header, Keyring::Key key) : header_(std::move(header)), key_(std::move(key)) {}

  LuksHeader header_;
  Keyring::Key key_;
};

} // namespace qluks

#endif
