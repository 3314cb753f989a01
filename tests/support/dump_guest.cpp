/* SPDX-License-Identifier: BSD-3-Clause */
/* dump_guest [--map] IMAGE [PASSPHRASE]: the guest disk of a qcow2 on standard output, or its extents, one a line.
 *
 * Reads in pieces of changing length, so that they begin and end anywhere in a cluster. */
#include <cstdio>
#include <cstring>
#include <vector>

#include "base/file_device.hpp"
#include "formats/qcow2_layer.hpp"

namespace qluks {
namespace {

Status dump_bytes(BlockDevice& disk) {
  uint64_t offset = 0;
  size_t length = 1;
  while (offset < disk.size()) {
    std::vector<std::byte> bytes(static_cast<size_t>(std::min<uint64_t>(length, disk.size() - offset)));
    if (Status s = disk.read(bytes, offset); !s) return s;
    fwrite(bytes.data(), 1, bytes.size(), stdout);
    offset += bytes.size();
    length = (length * 7 + 13) % (3 << 20) + 1;
  }
  return ok();
}

Status dump_map(BlockDevice& disk) {
  uint64_t offset = 0;
  while (offset < disk.size()) {
    auto extent = disk.extent(offset, disk.size() - offset);
    if (!extent) return propagate(extent);
    printf("%ju %ju %s%s\n", static_cast<uintmax_t>(offset), static_cast<uintmax_t>(extent->length),
           extent->hole ? "hole" : "data", extent->zero ? ",zero" : "");
    offset += extent->length;
  }
  return ok();
}

Status run(bool map, const char* path, const char* passphrase) {
  auto file = FileDevice::open(path);
  if (!file) return propagate(file);
  Keyring keyring;
  if (passphrase != nullptr) {
    keyring.add_secret(SecureBuffer::copy_of(std::as_bytes(std::span(passphrase, strlen(passphrase)))));
  }
  auto format = open_qcow2(**file, keyring, {.read_only = true});
  if (!format) return propagate(format);
  const auto disk = (*format)->stack_on(**file);
  return map ? dump_map(*disk) : dump_bytes(*disk);
}

} // namespace
} // namespace qluks

int main(int argc, char** argv) {
  const bool map = argc > 1 && strcmp(argv[1], "--map") == 0;
  const int first = map ? 2 : 1;
  if (argc <= first) return 2;
  const qluks::Status s = qluks::run(map, argv[first], argc > first + 1 ? argv[first + 1] : nullptr);
  if (s) return 0;
  fprintf(stderr, "dump_guest: %s\n", s.error().what.c_str());
  return 1;
}
