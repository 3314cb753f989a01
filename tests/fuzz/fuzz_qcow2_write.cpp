/* SPDX-License-Identifier: BSD-3-Clause */
/* A qcow2 of any content, opened for writing, and its guest disk written while storage fails or loses its power.
 *
 *   - no request below is outside of the container, and an image that is served read-only is not touched;
 *   - guest data never lands on what was metadata when the image was opened;
 *   - an image without errors is left without errors, and everything acknowledged is there.
 */
#include "formats/qcow2/entry.hpp"
#include "formats/qcow2/layer.hpp"
#include "formats/qcow2/ondisk.hpp"
#include "tests/fuzz/keyrings.hpp"
#include "tests/fuzz/overlay_device.hpp"
#include "tests/fuzz/target.hpp"
#include "tests/fuzz/written_disk.hpp"
#include "tests/support/qcow2_check.hpp"

namespace qluks::fuzz {

const size_t script_bytes = sizeof(ScriptOnDisk) + sizeof(WritingOnDisk);

namespace {

/* The largest container that is checked as a whole. */
constexpr uint64_t checked_bytes_max = 2 << 20;
/* The largest that is written: more costs time, and tells no more. */
constexpr uint64_t written_bytes_max = uint64_t{1} << 40;

std::vector<std::byte> bytes_of(BlockDevice& device, uint64_t offset, uint64_t length) {
  std::vector<std::byte> bytes(static_cast<size_t>(length));
  if (length != 0) check(device.read(bytes, offset).has_value(), "the container can be read");
  return bytes;
}

bool is_clean(BlockDevice& container) {
  if (container.size() > checked_bytes_max) return false;
  const auto bytes = bytes_of(container, 0, container.size());
  return test::Qcow2Check(bytes).run().empty();
}

/* What stays where it is as long as the image is open: header, active L1 table, refcount blocks, and the L2 tables that
 * nobody shares. */
class Metadata {
 public:
  explicit Metadata(BlockDevice& container) : container_(container) {
    const auto header = load_on_disk<Qcow2HeaderOnDisk>(bytes_of(container, 0, sizeof(Qcow2HeaderOnDisk)));
    cluster_ = uint64_t{1} << header.cluster_bits;
    add(0, cluster_);
    add(header.l1_table_offset, uint64_t{header.l1_size} * sizeof(be64));
    add_tables(header.l1_table_offset, header.l1_size, [](uint64_t entry) { return (entry & qcow2_copied) != 0; });
    add_tables(header.refcount_table_offset, (header.refcount_table_clusters * cluster_) / sizeof(be64),
               [](uint64_t) { return true; });
  }

  bool touches(uint64_t offset, uint64_t length) const {
    return std::any_of(ranges_.begin(), ranges_.end(),
                       [&](const auto& r) { return r.first < offset + length && offset < r.second; });
  }

 private:
  static constexpr uint64_t entries_max = 4096;

  void add(uint64_t at, uint64_t length) { ranges_.emplace_back(at, at + length); }

  template <class Which>
  void add_tables(uint64_t table, uint64_t entries, Which which) {
    const auto bytes = bytes_of(container_, table, std::min(entries, entries_max) * sizeof(be64));
    for (size_t at = 0; at < bytes.size(); at += sizeof(be64)) {
      const uint64_t entry = load_on_disk<be64>(std::span(bytes).subspan(at));
      if ((entry & qcow2_offset_mask) != 0 && which(entry)) add(entry & qcow2_offset_mask, cluster_);
    }
  }

  BlockDevice& container_;
  uint64_t cluster_;
  std::vector<std::pair<uint64_t, uint64_t>> ranges_;
};

bool holds(std::span<const std::byte> bytes, uint32_t marker) {
  for (size_t at = 4; at + 4 <= bytes.size(); at += 8) {
    uint32_t word;
    std::memcpy(&word, &bytes[at], sizeof word);
    if (word == marker) return true;
  }
  return false;
}

} // namespace

void run_target(std::span<const std::byte> input) {
  const auto script = take<ScriptOnDisk>(input);
  if (!script) return;
  const auto writing = take<WritingOnDisk>(input);
  if (!writing) return;
  SparseDevice origin = gather_file(*script, input, 0);
  if (origin.size() < sizeof(Qcow2HeaderOnDisk) || origin.size() > written_bytes_max) return;
  const auto backing = std::make_shared<SparseDevice>(gather_file(*script, input, 1));
  const bool has_backing = backing->size() != 0;
  OverlayDevice container(origin, *writing);
  const auto open = [&]() -> std::unique_ptr<Format> {
    auto format =
        open_qcow2(container, keyring(script->keyring),
                   {.cache_bytes = cache_bytes_in_script(*script), .backing = has_backing ? backing : nullptr});
    return succeeded(format) ? std::move(*format) : nullptr;
  };

  const uint32_t marker = marker_of(*script, *writing);
  const bool clean = is_clean(container);
  std::unique_ptr<Metadata> metadata;
  container.set_guard([&](std::span<const std::byte> bytes, uint64_t offset) {
    if (!metadata) metadata = std::make_unique<Metadata>(container); /* the first change, so it could be opened */
    check(!metadata->touches(offset, bytes.size()) || !holds(bytes, marker), "guest data is not written over metadata");
  });
  WrittenDisk disk(container, open, clean, marker);
  if (!disk.run(*writing)) return;
  check(!clean || is_clean(container), "an image without errors is left without errors");
  disk.check_stable();
}

} // namespace qluks::fuzz
