/* SPDX-License-Identifier: BSD-3-Clause */
/* A qcow2 of any content, with or without the files that it refers to: opened, and its guest disk read. */
#include <memory>

#include "formats/luks/layer.hpp"
#include "formats/qcow2/layer.hpp"
#include "tests/fuzz/guest_disk.hpp"
#include "tests/fuzz/keyrings.hpp"
#include "tests/fuzz/target.hpp"

namespace qluks::fuzz {

const size_t script_bytes = sizeof(ScriptOnDisk);

namespace {

/* Bits of ScriptOnDisk::options. */
constexpr uint8_t read_only = 1;
constexpr uint8_t with_data_file = 2;
constexpr uint8_t with_backing = 4;
constexpr uint8_t backing_is_qcow2 = 8;
constexpr uint8_t look_for_luks = 16;

/* The disk of a backing file, with what it stands on. */
struct Backing {
  std::unique_ptr<Qcow2Format> format;
  std::unique_ptr<BlockDevice> disk;
};

std::shared_ptr<BlockDevice> open_backing(const std::shared_ptr<BlockDevice>& file, const ScriptOnDisk& script) {
  if ((script.options & backing_is_qcow2) == 0) return file;
  auto format = open_qcow2(*file, keyring(script.keyring), {.read_only = true});
  if (!succeeded(format)) return nullptr;
  const auto backing = std::make_shared<Backing>();
  backing->format = std::move(*format);
  backing->disk = backing->format->stack_on(*file);
  return {backing, backing->disk.get()};
}

Qcow2Options options_of(const ScriptOnDisk& script, const std::shared_ptr<BlockDevice>& other_file) {
  const auto name = std::string(script.snapshot.data(), script.snapshot.size());
  return {.cache_bytes = cache_bytes_in_script(script),
          .snapshot = name.substr(0, name.find('\0')),
          .data_file = (script.options & with_data_file) != 0 ? other_file : nullptr,
          .backing = (script.options & with_backing) != 0 ? open_backing(other_file, script) : nullptr,
          .read_only = (script.options & read_only) != 0};
}

void use_luks_inside(Format& qcow2, BlockDevice& container, const ScriptOnDisk& script) {
  const auto disk = qcow2.stack_on(container);
  const auto found = probe_luks(*disk);
  if (!succeeded(found) || !*found) return;
  const auto luks = open_luks(*disk, keyring(script.keyring));
  if (succeeded(luks)) use_format(**luks, *disk, script);
}

} // namespace

void run_target(std::span<const std::byte> input) {
  const auto script = take<ScriptOnDisk>(input);
  if (!script) return;
  SparseDevice container = gather_file(*script, input, 0);
  const auto other_file = std::make_shared<SparseDevice>(gather_file(*script, input, 1));

  const auto format = open_qcow2(container, keyring(script->keyring), options_of(*script, other_file));
  if (!succeeded(format)) return;
  use_format(**format, container, *script);
  if ((script->options & look_for_luks) != 0) use_luks_inside(**format, container, *script);
}

} // namespace qluks::fuzz
