/* SPDX-License-Identifier: BSD-3-Clause */
/* One image of each kind that is served: its files in memory, how they are opened, and what the guest disk holds.
 *
 *      StoredImage.files:  0 the image   1, 2 … backing files, data file or header beside it
 *                          ▼
 *      devices, which may fail or lie ──open──▶ OpenedImage ──▶ the guest disk, to be compared with StoredImage.guest
 *
 * They are opened by the same calls in the same order as the filter makes them.
 */
#ifndef QLUKS_TESTS_SUPPORT_STORED_IMAGE_HPP
#define QLUKS_TESTS_SUPPORT_STORED_IMAGE_HPP

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "formats/luks/keyring.hpp"
#include "formats/luks/layer.hpp"
#include "formats/qcow2/layer.hpp"

namespace qluks::test {

using Content = std::vector<std::byte>;

/* Layers over a device that they borrow. */
class OpenedImage {
 public:
  explicit OpenedImage(BlockDevice& bottom) : top_(&bottom) {}

  BlockDevice& disk() const noexcept { return *top_; }
  std::string describe() const;

  /* Each opens what `disk` holds until then, and puts its layer on top. */
  Status open_qcow2(Keyring& keyring, const Qcow2Options& options);
  Status open_luks(Keyring& keyring);
  Status open_payload_of(BlockDevice& header, Keyring& keyring);

 private:
  template <class T>
  Status push(Result<std::unique_ptr<T>> format);

  BlockDevice* top_;
  std::vector<std::unique_ptr<Format>> formats_;
  std::vector<std::unique_ptr<BlockDevice>> layers_;
};

struct StoredImage {
  using Devices = std::vector<std::unique_ptr<BlockDevice>>;
  using OpenFn = std::function<Status(OpenedImage&, const Devices&, Keyring&)>;

  std::string name;
  std::vector<Content> files;
  Content guest;
  OpenFn open; /* on a stack over the first device */

  /* Where LUKS headers are, to make the volume another one (see rename). */
  struct LuksHeaderAt {
    size_t file;
    uint64_t offset;
  };
  std::vector<LuksHeaderAt> luks_headers = {};

  /* The name in letters and digits. */
  std::string test_name() const;

  /* Give its LUKS volumes another UUID: for a keyring, other volumes. */
  void rename(unsigned number);
};

/* By its name, for GoogleTest. */
void PrintTo(const StoredImage& image, std::ostream* out);

/* The passphrase of all of them. */
inline constexpr const char* stored_image_secret = "secret";

/* All kinds.  Their guest disks hold data, zeroes and holes in runs of several lengths. */
std::vector<StoredImage> stored_images();

/* Those of them that are a qcow2 which can be written: its clusters are counted, and there is room behind them. */
std::vector<StoredImage> writable_images();

} // namespace qluks::test

#endif
