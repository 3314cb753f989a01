/* SPDX-License-Identifier: BSD-3-Clause */
/* The files beside the image that parameters name: backing files, the external data file, a detached header.
 *
 * A source is a path or an NBD URI.  Each is opened once for the whole server, while no lock is held, and shared by
 * every export.  Local files are opened before nbdkit serves, so that a missing one is an error at start and a change
 * of user or of working directory does not matter; NBD URIs wait for whoever needs them first.
 */
#ifndef QLUKS_PLUGIN_SOURCES_HPP
#define QLUKS_PLUGIN_SOURCES_HPP

#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>

#include "base/file_device.hpp"

namespace qluks {

using SharedDevice = std::shared_ptr<BlockDevice>;

class Sources {
 public:
  using Access = FileDevice::Access;

  /* Open it now if it is a local file. */
  Status prepare(const std::string& source, Access access = Access::read);

  Result<SharedDevice> open(const std::string& source, Access access = Access::read);

  /* The same to write to: by one image at a time, and read-only to all others meanwhile.  Two that wrote to one file
   * would write over each other.  A local file is locked as QEMU locks images until the device is let go, which must
   * be before this is; if another program is in the way, it is read-only as well. */
  Result<SharedDevice> open_for_one_writer(const std::string& source);

 private:
  struct Source {
    SharedDevice device;
    const FileDevice* file; /* if it is one */
  };
  class Turn;

  static Result<Source> open_source(const std::string& source, Access access);
  Result<Source> open_once(const std::string& source, Access access);
  bool begin_turn(const std::string& source);
  void end_turn(const std::string& source) noexcept;

  std::mutex mutex_;
  std::map<std::pair<std::string, Access>, Source> opened_;
  std::set<std::string> written_; /* those that an image writes now */
};

} // namespace qluks

#endif
