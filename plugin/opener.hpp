/* SPDX-License-Identifier: BSD-3-Clause */
/* From stored bytes to layers: what an image is, by the parameters or by what it begins with. */
#ifndef QLUKS_PLUGIN_OPENER_HPP
#define QLUKS_PLUGIN_OPENER_HPP

#include <memory>
#include <string>
#include <vector>

#include "base/block_device.hpp"
#include "formats/format.hpp"
#include "formats/luks/layer.hpp"
#include "formats/qcow2/cache.hpp"
#include "plugin/config.hpp"
#include "plugin/sources.hpp"

namespace qluks {

/* One connection's layers over its own way down. */
class Stack {
 public:
  explicit Stack(BlockDevice& bottom) : top_(&bottom) {}

  BlockDevice& top() const noexcept { return *top_; }
  void push(Format& format);

 private:
  std::vector<std::unique_ptr<BlockDevice>> layers_;
  BlockDevice* top_;
};

/* What is the same for every image of this server. */
struct ImageOptions {
  Config& config;
  const DetachedHeader* detached_header; /* null: none was given */
  std::shared_ptr<Qcow2Cache> cache;
  Sources& sources;
};

struct OpenedLayers {
  std::vector<std::unique_ptr<Format>> formats; /* from the stored bytes upward */
  std::string hint;                             /* what the user may have meant instead; empty: nothing */
};

/* Open and unlock layer after layer over `container`, through the connection that came first. */
Result<OpenedLayers> open_layers(BlockDevice& container, const ImageOptions& options, bool read_only);

} // namespace qluks

#endif
