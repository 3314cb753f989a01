/* SPDX-License-Identifier: BSD-3-Clause */
/* read_device PASSPHRASE FILE [HEADER]: writes the plain payload of a LUKS volume to standard output.
 *
 * The layers without nbdkit, for comparing with what cryptsetup and qemu-img made. */
#include <algorithm>
#include <cstdio>
#include <string_view>
#include <vector>

#include "base/file_device.hpp"
#include "base/log.hpp"
#include "formats/luks_layer.hpp"

using namespace qluks;

namespace {

Status write_payload(Format& format, BlockDevice& below) {
  const auto layer = format.stack_on(below);
  std::fprintf(stderr, "%s, %llu bytes\n", format.describe().c_str(), static_cast<unsigned long long>(layer->size()));
  std::vector<std::byte> buffer(1 << 20);
  for (uint64_t offset = 0; offset < layer->size(); offset += buffer.size()) {
    const auto part = std::span(buffer).first(std::min<size_t>(buffer.size(), layer->size() - offset));
    if (Status s = layer->read(part, offset); !s) return s;
    if (std::fwrite(part.data(), 1, part.size(), stdout) != part.size()) return fail(Errc::io, "cannot write");
  }
  return ok();
}

Result<std::unique_ptr<Format>> open_format(BlockDevice& device, const char* header_path, Keyring& keyring) {
  if (header_path == nullptr) return open_luks(device, keyring);
  auto file = FileDevice::open(header_path);
  if (!file) return propagate(file);
  auto header = DetachedHeader::open(**file, keyring);
  if (!header) return propagate(header);
  return (*header)->open_payload(device);
}

Status run(std::string_view passphrase, const char* path, const char* header_path) {
  auto file = FileDevice::open(path);
  if (!file) return propagate(file);
  Keyring keyring;
  keyring.add_secret(SecureBuffer::copy_of(std::as_bytes(std::span(passphrase))));
  auto format = open_format(**file, header_path, keyring);
  if (!format) return propagate(format);
  return write_payload(**format, **file);
}

} // namespace

int main(int argc, char** argv) {
  if (argc < 3 || argc > 4) {
    std::fprintf(stderr, "usage: read_device PASSPHRASE FILE [HEADER]\n");
    return 2;
  }
  set_log_sink([](LogLevel, const std::string& line) { std::fprintf(stderr, "%s\n", line.c_str()); });
  const Status s = run(argv[1], argv[2], argc == 4 ? argv[3] : nullptr);
  if (s) return 0;
  std::fprintf(stderr, "read_device: %s\n", s.error().what.c_str());
  return 1;
}
