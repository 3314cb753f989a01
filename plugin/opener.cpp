/* SPDX-License-Identifier: BSD-3-Clause */
#include "plugin/opener.hpp"

#include <cerrno>

#include "formats/foreign.hpp"
#include "formats/luks/header.hpp"
#include "formats/partition/layer.hpp"
#include "formats/qcow2/layer.hpp"
#include "plugin/backing_chain.hpp"
#include "plugin/luks_partitions.hpp"

namespace qluks {

void Stack::push(Format& format) {
  layers_.push_back(format.stack_on(*top_));
  top_ = layers_.back().get();
}

namespace {

class Opener {
 public:
  Opener(BlockDevice& container, const ImageOptions& options, bool read_only)
      : options_(options), read_only_(read_only), stack_(container) {}

  Result<OpenedLayers> open() {
    const auto& layers = options_.config.layers;
    Status s = layers ? open_list(*layers) : open_auto();
    if (!s) return propagate(s);
    if (!qcow2_opened_ && (options_.config.names_files() || !options_.config.snapshot.empty())) {
      return fail(Errc::invalid_format,
                  "a backing file, data file or snapshot is given, but the image has no qcow2 layer", EINVAL);
    }
    return std::move(opened_);
  }

 private:
  /* Where a kind is there more than once, an error says which one it is about. */
  Status open_list(const LayerList& layers) {
    for (size_t i = 0; i < layers.size(); ++i) {
      Status s = open_layer(layers[i]);
      if (s) continue;
      const LayerKind kind = layers[i].kind;
      if (count_layers(layers, kind) == 1) return s;
      return propagate(s, "layer " + std::to_string(i + 1) + " (" + name_of(kind) + ")");
    }
    return ok();
  }

  Status open_layer(const LayerSpec& layer) {
    switch (layer.kind) {
      case LayerKind::qcow2:
        return open_qcow2_layer();
      case LayerKind::luks:
        return open_luks_layer();
      case LayerKind::partition:
        break;
    }
    return open_partition_layer(layer.partition);
  }

  /* Probing looks at the stored bytes, and inside of a qcow2 that is not encrypted if there is a secret to open
   * what it may hold.  It never looks into a decrypted payload: whoever writes the guest disk must not choose how
   * it is read.  Partitions are only talked of: which of them is meant cannot be seen. */
  Status open_auto() {
    auto qcow2 = probe_qcow2(stack_.top());
    if (!qcow2) return propagate(qcow2);
    if (!*qcow2) return open_auto_luks();
    if (Status s = open_qcow2_layer(); !s) return s;
    if (options_.detached_header != nullptr) return open_detached_over_qcow2();
    if (qcow2_encrypted_ || !options_.config.keyring.has_secrets()) return ok();
    auto opened = open_probed_luks("qcow2,");
    if (!opened) return propagate(opened);
    if (*opened) return ok();
    if (LuksPartitions partitions = find_luks_partitions(stack_.top(), "qcow2,"); partitions.found) {
      opened_.hint = "a secret is given, but nothing is decrypted: " + partitions.text;
    }
    return ok();
  }

  Status open_auto_luks() {
    if (options_.detached_header != nullptr) return open_luks_layer();
    auto opened = open_probed_luks("");
    if (!opened) return propagate(opened);
    return *opened ? ok() : refuse_unknown();
  }

  /* Was there LUKS to open?  A second header of LUKS2 outlives a new partition table or file system over the first,
   * and nothing says which of the two the disk is now. */
  Result<bool> open_probed_luks(const std::string& layers_below) {
    const auto first = starts_as_luks(stack_.top());
    auto any = first && !*first ? probe_luks(stack_.top()) : first;
    if (!any) return propagate(any);
    if (!*any) return false;
    const std::string other = *first ? "" : what_starts_there();
    if (!other.empty()) return refuse_second_header(other, layers_below);
    if (Status s = open_luks_layer(); !s) return propagate(s);
    return true;
  }

  static tl::unexpected<Error> refuse_second_header(const std::string& other, const std::string& layers_below) {
    return fail(Errc::invalid_format,
                "the disk starts as " + other +
                    ", but the second header of a LUKS2 volume is behind that: if the volume is what is meant, say "
                    "qluks-layers=" +
                    layers_below + "luks; \"cryptsetup repair\" restores its first header",
                EINVAL);
  }

  std::string what_starts_there() {
    if (Foreign foreign = find_foreign(stack_.top()); !foreign.name.empty()) return foreign.name;
    const LuksPartitions partitions = find_luks_partitions(stack_.top(), "");
    return partitions.text.empty() ? "" : "a partition table";
  }

  Status refuse_unknown() {
    const LuksPartitions partitions = find_luks_partitions(stack_.top(), "");
    if (partitions.found) {
      return fail(Errc::invalid_format, "the image is neither qcow2 nor LUKS, but " + partitions.text, EINVAL);
    }
    const Foreign foreign = find_foreign(stack_.top());
    if (!foreign.way_out.empty()) {
      return fail(Errc::invalid_format,
                  "the image is neither qcow2 nor LUKS, but " + foreign.name + ": " + foreign.way_out, EINVAL);
    }
    const std::string but = foreign.name.empty() ? "" : ", but " + foreign.name;
    return fail(Errc::invalid_format,
                "the image is neither qcow2 nor LUKS" + but +
                    (partitions.text.empty() ? "" : ", and " + partitions.text) +
                    ": if it is meant to be served as it is, say qluks-layers=raw; "
                    "a payload whose LUKS header lies elsewhere needs qluks-header=",
                EINVAL);
  }

  Status open_detached_over_qcow2() {
    if (!qcow2_encrypted_) return open_luks_layer();
    return fail(Errc::unsupported,
                "the qcow2 is encrypted by itself, so qluks-header= is not for it: leave it out, or say "
                "qluks-layers=qcow2,luks if its guest disk is a second, headerless LUKS payload",
                EINVAL);
  }

  /* The parameters that are for a qcow2 are for the lowest one: what lies above is written by a guest, who must not
   * choose what they are applied to. */
  Status open_qcow2_layer() {
    Qcow2Options qcow2{.cache = options_.cache, .read_only = read_only_};
    auto header = read_qcow2_header(stack_.top());
    if (!header) return propagate(header);
    Status s = qcow2_opened_ ? refuse_references(*header) : apply_parameters(*header, qcow2);
    if (!s) return s;
    auto format = open_qcow2(stack_.top(), std::move(*header), options_.config.keyring, qcow2);
    if (!format) return propagate(format);
    qcow2_opened_ = true;
    qcow2_encrypted_ = (*format)->encrypted();
    add(std::move(*format));
    return ok();
  }

  Status apply_parameters(const Qcow2Header& header, Qcow2Options& qcow2) {
    qcow2.snapshot = options_.config.snapshot;
    if (!options_.config.names_files()) return ok();
    return BackingChain(options_.config, options_.sources).open(header, qcow2);
  }

  static Status refuse_references(const Qcow2Header& header) {
    if (header.backing_name.empty() && !header.has(qcow2_data_file_bit)) return ok();
    return fail(Errc::unsupported,
                "qcow2 header: the image has a backing file or an external data file, and only the lowest qcow2 layer "
                "may have one",
                EINVAL);
  }

  Status open_luks_layer() {
    const LuksOptions luks{.discard = options_.config.discard};
    auto format = options_.detached_header != nullptr ? options_.detached_header->open_payload(stack_.top(), luks)
                                                      : open_luks(stack_.top(), options_.config.keyring, luks);
    if (!format) return propagate(format);
    add(std::move(*format));
    return ok();
  }

  Status open_partition_layer(uint32_t number) {
    auto format = open_partition(stack_.top(), number);
    if (!format) return propagate(format);
    add(std::move(*format));
    return ok();
  }

  void add(std::unique_ptr<Format> format) {
    stack_.push(*format);
    opened_.formats.push_back(std::move(format));
  }

  const ImageOptions& options_;
  bool read_only_;
  /* Declared before the stack, whose layers borrow its formats. */
  OpenedLayers opened_;
  Stack stack_;
  bool qcow2_opened_ = false;
  bool qcow2_encrypted_ = false;
};

} // namespace

Result<OpenedLayers> open_layers(BlockDevice& container, const ImageOptions& options, bool read_only) {
  return Opener(container, options, read_only).open();
}

} // namespace qluks
