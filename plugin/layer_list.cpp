/* SPDX-License-Identifier: BSD-3-Clause */
#include "plugin/layer_list.hpp"

#include <algorithm>
#include <cerrno>
#include <charconv>

#include "formats/text.hpp"

namespace qluks {

namespace {

constexpr size_t layers_max = 8;

/* As many entries as a GPT of the largest size that is read can have. */
constexpr uint32_t partition_max = 8192;

constexpr std::string_view partition_prefix = "partition:";

tl::unexpected<Error> usage_error(std::string_view value, const std::string& what) {
  return fail(Errc::invalid_format, "qluks-layers=" + std::string(value) + ": " + what, EINVAL);
}

Result<LayerSpec> parse_partition(std::string_view value, std::string_view number) {
  LayerSpec layer{.kind = LayerKind::partition};
  const char* end = number.data() + number.size();
  const auto [stop, failure] = std::from_chars(number.data(), end, layer.partition);
  if (failure == std::errc() && stop == end && layer.partition >= 1 && layer.partition <= partition_max) return layer;
  return usage_error(value,
                     in_quotes(number) + " is no partition number, which are 1 to " + std::to_string(partition_max));
}

Result<LayerSpec> parse_layer(std::string_view value, std::string_view name) {
  if (name == "qcow2") return LayerSpec{.kind = LayerKind::qcow2};
  if (name == "luks") return LayerSpec{.kind = LayerKind::luks};
  if (name.starts_with(partition_prefix)) return parse_partition(value, name.substr(partition_prefix.size()));
  if (name == "auto" || name == "raw") return usage_error(value, std::string(name) + " stands alone");
  return usage_error(value, in_quotes(name) + " is not known: it is auto, raw, or up to " + std::to_string(layers_max) +
                                " of qcow2, luks and partition:N");
}

} // namespace

Result<std::optional<LayerList>> parse_layers(std::string_view value) {
  if (value == "auto") return std::nullopt;
  LayerList layers;
  if (value == "raw") return layers;
  for (std::string_view rest = value;;) {
    const size_t comma = rest.find(',');
    auto layer = parse_layer(value, rest.substr(0, comma));
    if (!layer) return propagate(layer);
    if (layers.size() == layers_max) {
      return usage_error(value, "it has more than " + std::to_string(layers_max) + " layers");
    }
    layers.push_back(*layer);
    if (comma == std::string_view::npos) return layers;
    rest.remove_prefix(comma + 1);
  }
}

size_t count_layers(const LayerList& layers, LayerKind kind) noexcept {
  return static_cast<size_t>(
      std::count_if(layers.begin(), layers.end(), [kind](const LayerSpec& layer) { return layer.kind == kind; }));
}

const char* name_of(LayerKind kind) noexcept {
  switch (kind) {
    case LayerKind::qcow2:
      return "qcow2";
    case LayerKind::luks:
      return "luks";
    case LayerKind::partition:
      break;
  }
  return "partition";
}

} // namespace qluks
