/* SPDX-License-Identifier: BSD-3-Clause */
/* LUKS as a format: a payload that is decrypted on the way up. */
#ifndef QLUKS_FORMATS_LUKS_LAYER_HPP
#define QLUKS_FORMATS_LUKS_LAYER_HPP

#include <memory>

#include "base/block_device.hpp"
#include "formats/format.hpp"
#include "formats/keyring.hpp"
#include "formats/luks_header.hpp"

namespace qluks {

/* Read the header of the volume that `device` holds and unlock it. */
Result<std::unique_ptr<Format>> open_luks(BlockDevice& device, Keyring& keyring);

/* A header that lies elsewhere, already read and unlocked (at start, before any connection exists). */
class DetachedHeader {
 public:
  static Result<std::unique_ptr<DetachedHeader>> open(BlockDevice& header, Keyring& keyring);
  /* The payload is all of `device` from the header's payload offset on. */
  Result<std::unique_ptr<Format>> open_payload(BlockDevice& device) const;

 private:
  LuksHeader header_;
  std::shared_ptr<const Keyring::Unlocked> unlocked_;
};

} // namespace qluks

#endif
