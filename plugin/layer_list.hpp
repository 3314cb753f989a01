/* SPDX-License-Identifier: BSD-3-Clause */
/* What `qluks-layers` says: "qcow2,partition:3,luks". */
#ifndef QLUKS_PLUGIN_LAYER_LIST_HPP
#define QLUKS_PLUGIN_LAYER_LIST_HPP

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace qluks {

enum class LayerKind : uint8_t { qcow2, luks, partition };

struct LayerSpec {
  LayerKind kind = LayerKind::qcow2;
  uint32_t partition = 0; /* its number, counted from 1 */
};

/* From the stored bytes upward; empty is "raw". */
using LayerList = std::vector<LayerSpec>;

/* Nothing for "auto". */
Result<std::optional<LayerList>> parse_layers(std::string_view value);

size_t count_layers(const LayerList& layers, LayerKind kind) noexcept;

/* "qcow2", "luks", "partition". */
const char* name_of(LayerKind kind) noexcept;

} // namespace qluks

#endif
