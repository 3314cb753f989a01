/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2 as a format: the guest disk that the tables of a container describe. */
#ifndef QLUKS_FORMATS_QCOW2_LAYER_HPP
#define QLUKS_FORMATS_QCOW2_LAYER_HPP

#include <memory>
#include <string>

#include "base/block_device.hpp"
#include "formats/format.hpp"
#include "formats/qcow2/cache.hpp"
#include "formats/qcow2/header.hpp"

namespace qluks {

class Keyring;

/* Does the device start with the qcow2 magic? */
Result<bool> probe_qcow2(BlockDevice& device);

/* An opened qcow2. */
class Qcow2Format : public Format {
 public:
  /* Is the guest disk encrypted by the qcow2 itself? */
  virtual bool encrypted() const noexcept = 0;
};

/* Nothing that an image names is opened here: what it refers to is handed in, or the image is refused.  The devices
 * are shared by all connections. */
struct Qcow2Options {
  uint64_t cache_bytes = 64 << 20;             /* for tables */
  std::shared_ptr<Qcow2Cache> cache = {};      /* one for several images; null: the image has its own, of cache_bytes */
  std::string snapshot = {};                   /* name or ID of what to serve instead of the disk as it is now */
  std::shared_ptr<BlockDevice> data_file = {}; /* the external data file of an image that has one */
  std::shared_ptr<BlockDevice> backing = {};   /* the guest disk of the backing file of an image that has one */
  bool read_only = false; /* nothing will be written: an image that is marked corrupt may be opened */
};

/* Read the tables of `container`, whose header was read before: what the options were chosen by is what is served,
 * also if the storage gives another header meanwhile.  An encrypted image is unlocked by `keyring`. */
Result<std::unique_ptr<Qcow2Format>> open_qcow2(BlockDevice& container, Qcow2Header header, Keyring& keyring,
                                                const Qcow2Options& options);

/* The same, and read the header. */
Result<std::unique_ptr<Qcow2Format>> open_qcow2(BlockDevice& container, Keyring& keyring, const Qcow2Options& options);

} // namespace qluks

#endif
