/* SPDX-License-Identifier: BSD-3-Clause */
/* An opened format: what all connections of one export share.
 *
 *      Image (shared)                           connection
 *      Format: parsed header, cipher, caches ◀── layer: a pointer to the Format + the device below it
 *
 * A Format is opened once, through the way down of whichever connection came first; each connection then stacks its
 * own layer on its own way down.
 */
#ifndef QLUKS_FORMATS_FORMAT_HPP
#define QLUKS_FORMATS_FORMAT_HPP

#include <memory>
#include <string>

#include "base/block_device.hpp"

namespace qluks {

class Format {
 public:
  Format() = default;
  Format(const Format&) = delete;
  Format& operator=(const Format&) = delete;
  virtual ~Format() = default;

  /* A view for one connection.  It borrows this Format and `below`, which outlive it. */
  virtual std::unique_ptr<BlockDevice> stack_on(BlockDevice& below) = 0;

  /* For the export description: "qcow2 v3", "LUKS2 aes-xts-plain64 512-bit". */
  virtual std::string describe() const = 0;

  /* Why the disk may not be written although what lies below it could be, for the operator; empty: it may be. */
  virtual std::string why_read_only() const { return {}; }

  /* Does `below` hold something else by now than what was opened?  A cheap look, not a proof. */
  virtual bool has_changed(BlockDevice& /*below*/) const { return false; }
};

} // namespace qluks

#endif
