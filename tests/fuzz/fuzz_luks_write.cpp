/* SPDX-License-Identifier: BSD-3-Clause */
/* A LUKS volume of any content, opened and written while storage fails or loses its power: everything acknowledged is
 * there, and nothing in front of the payload is ever written. */
#include "formats/luks/layer.hpp"
#include "tests/fuzz/keyrings.hpp"
#include "tests/fuzz/overlay_device.hpp"
#include "tests/fuzz/target.hpp"
#include "tests/fuzz/written_disk.hpp"

namespace qluks::fuzz {

void run_target(std::span<const std::byte> input) {
  const auto script = take<ScriptOnDisk>(input);
  if (!script) return;
  const auto writing = take<WritingOnDisk>(input);
  if (!writing) return;
  SparseDevice origin(size_in_script(*script, 0));
  origin.add(0, input);
  OverlayDevice device(origin, *writing);

  uint64_t payload = UINT64_MAX;
  const auto open = [&]() -> std::unique_ptr<Format> {
    if (const auto header = read_luks_header(device, HeaderPlace::attached)) payload = header->payload_offset;
    auto format = open_luks(device, keyring(script->keyring), {.discard = (script->options & 1) != 0});
    return succeeded(format) ? std::move(*format) : nullptr;
  };
  device.set_guard(
      [&](std::span<const std::byte>, uint64_t offset) { check(offset >= payload, "the header is not written"); });
  WrittenDisk disk(device, open, true, marker_of(*script, *writing));
  if (disk.run(*writing)) disk.check_stable();
}

} // namespace qluks::fuzz
