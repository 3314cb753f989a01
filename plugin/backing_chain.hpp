/* SPDX-License-Identifier: BSD-3-Clause */
/* What a qcow2 refers to: its backing file, the backing file of that one, …, and external data files.
 *
 *      image (below the filter) ──▶ backing 1 ──▶ backing 2 ──▶ …        at most 64
 *           └──▶ data file              each raw, qcow2 or LUKS, each encrypted in its own way
 *
 * An image only says that there is a backing file.  Where that is comes from the parameters: either a list, nearest
 * first, or a directory inside of which the names that stand in the images are followed.
 */
#ifndef QLUKS_PLUGIN_BACKING_CHAIN_HPP
#define QLUKS_PLUGIN_BACKING_CHAIN_HPP

#include <set>
#include <string>

#include "base/file_device.hpp"
#include "formats/qcow2/header.hpp"
#include "formats/qcow2/layer.hpp"
#include "plugin/config.hpp"
#include "plugin/sources.hpp"

namespace qluks {

class BackingChain {
 public:
  BackingChain(Config& config, Sources& sources) : config_(config), sources_(sources) {}

  /* Open all that the image with this header refers to and put it into the options to open the image with.
   * `options` also holds the cache that the images of the chain share. */
  Status open(const Qcow2Header& image, Qcow2Options& options);

 private:
  /* A file of the chain, and the directory (inside of qluks-backing-dir) that names in it are relative to. */
  struct File {
    SharedDevice device;
    std::string name;
    std::string dir;
    std::optional<StoredAs> stored_as; /* what the parameter says */
  };

  Status open_references(const Qcow2Header& image, const std::string& dir, size_t depth, Qcow2Options& options);
  Result<SharedDevice> open_backing(const Qcow2Header& overlay, const std::string& dir, size_t depth);
  Result<SharedDevice> open_disk(File file, StoredAs stored_as, size_t depth);
  Result<File> find_backing(const Qcow2Header& overlay, const std::string& dir, size_t depth);
  Result<File> find_in_directory(const std::string& name, const std::string& dir);
  Result<SharedDevice> find_data_file(const Qcow2Header& image, const std::string& dir, size_t depth);
  Status note_l1_table(const Qcow2Header& header);
  Status note_visit(const File& file);

  Config& config_;
  Sources& sources_;
  std::shared_ptr<Qcow2Cache> cache_;
  bool read_only_ = true;
  uint64_t l1_bytes_ = 0;
  std::set<FileDevice::Identity> visited_;
};

} // namespace qluks

#endif
