/* SPDX-License-Identifier: BSD-3-Clause */
/* What all connections to an opened qcow2 share. */
#ifndef QLUKS_FORMATS_QCOW2_IMAGE_HPP
#define QLUKS_FORMATS_QCOW2_IMAGE_HPP

#include <atomic>
#include <memory>
#include <optional>

#include "formats/qcow2/compressed.hpp"
#include "formats/qcow2/crypt.hpp"
#include "formats/qcow2/header.hpp"
#include "formats/qcow2/map.hpp"
#include "formats/qcow2/writer.hpp"

namespace qluks {

struct Qcow2Image {
  Qcow2Header header;
  uint64_t size; /* of the guest disk that is served */
  Qcow2Map map;
  CompressedClusters compressed;
  std::optional<Qcow2Crypt> crypt;
  std::shared_ptr<BlockDevice> data_file; /* null: the data is in the container */
  std::shared_ptr<BlockDevice> backing;   /* null: what is not allocated reads as zeroes */
  std::unique_ptr<Qcow2Writer> writer{};  /* null: read-only; borrows the map */
  /* Has the operator been told that data behind the end of the file reads as zeroes? */
  std::unique_ptr<std::atomic_flag> told_of_zeroes = std::make_unique<std::atomic_flag>();
};

/* One connection's view.  Borrows both. */
std::unique_ptr<BlockDevice> make_qcow2_layer(const Qcow2Image& image, BlockDevice& container);

} // namespace qluks

#endif
