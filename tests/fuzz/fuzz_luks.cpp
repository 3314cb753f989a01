/* SPDX-License-Identifier: BSD-3-Clause */
/* A LUKS header of any content in each of its places: read, unlocked, and the payload read.  The targets fuzz_luks1 and
 * fuzz_luks2 are both this; they differ by their seeds, and fuzz_luks2 by how inputs are changed. */
#include "formats/luks/layer.hpp"
#include "tests/fuzz/guest_disk.hpp"
#include "tests/fuzz/keyrings.hpp"
#include "tests/fuzz/target.hpp"

namespace qluks::fuzz {

namespace {

void use_attached(SparseDevice& device, const ScriptOnDisk& script) {
  const auto found = probe_luks(device);
  if (!succeeded(found)) return;
  const auto luks = open_luks(device, keyring(script.keyring));
  if (!succeeded(luks)) return;
  check(*found, "a volume that opens is one that is found");
  use_format(**luks, device, script);
}

void use_detached(SparseDevice& header, const ScriptOnDisk& script) {
  const auto detached = DetachedHeader::open(header, keyring(script.keyring));
  if (!succeeded(detached)) return;
  SparseDevice payload(size_in_script(script, 1));
  const auto luks = (*detached)->open_payload(payload);
  if (succeeded(luks)) use_format(**luks, payload, script);
}

void use_in_qcow2(SparseDevice& device, const ScriptOnDisk& script) {
  const auto header = read_luks_header(device, HeaderPlace::in_qcow2);
  if (succeeded(header)) static_cast<void>(succeeded(keyring(script.keyring).unlock(*header, device)));
}

} // namespace

void run_target(std::span<const std::byte> input) {
  const auto script = take<ScriptOnDisk>(input);
  if (!script) return;
  SparseDevice device(size_in_script(*script, 0));
  device.add(0, input);
  switch (script->place % 3) {
    case 0:
      return use_attached(device, *script);
    case 1:
      return use_detached(device, *script);
    default:
      return use_in_qcow2(device, *script);
  }
}

} // namespace qluks::fuzz
