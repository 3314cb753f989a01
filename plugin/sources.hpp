/* SPDX-License-Identifier: BSD-3-Clause */
/* The files beside the image that parameters name: backing files, the external data file, a detached header.
 *
 * A source is a path or an NBD URI.  Each is opened once for the whole server, while no lock is held, and shared by every export.  Local
 * files are opened before nbdkit serves, so that a missing one is an error at start and a change of user or of
 * working directory does not matter; NBD URIs wait for whoever needs them first.
 */
#ifndef QLUKS_PLUGIN_SOURCES_HPP
#define QLUKS_PLUGIN_SOURCES_HPP

#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "base/block_device.hpp"

namespace qluks {

using SharedDevice = std::shared_ptr<BlockDevice>;

class Sources {
 public:
  /* Open it now if it is a local file. */
  Status prepare(const std::string& source);

  Result<SharedDevice> open(const std::string& source);

 private:
  std::mutex mutex_;
  std::map<std::string, SharedDevice> opened_;
};

} // namespace qluks

#endif
