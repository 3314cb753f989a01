/* SPDX-License-Identifier: BSD-3-Clause */
/* dump_guest [OPTION…] IMAGE: writes the guest disk of a qcow2 to standard output.
 *
 *      --map              its extents instead, one a line: offset, length, flags
 *      --passphrase TEXT  of an encrypted image
 *      --snapshot NAME    an internal snapshot
 *
 * The layers without nbdkit, for comparing with what QEMU reads.  Reads in pieces of changing length, so that they
 * begin and end anywhere in a cluster. */
#include <getopt.h>

#include <cstdio>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/file_device.hpp"
#include "base/log.hpp"
#include "formats/qcow2_layer.hpp"

using namespace qluks;

namespace {

struct Arguments {
  bool map = false;
  std::optional<std::string> passphrase;
  std::string snapshot;
  std::string image;
};

std::optional<Arguments> parse(int argc, char** argv) {
  static const option known[] = {{"map", no_argument, nullptr, 'm'},
                                 {"passphrase", required_argument, nullptr, 'p'},
                                 {"snapshot", required_argument, nullptr, 's'},
                                 {nullptr, 0, nullptr, 0}};
  Arguments arguments;
  for (int c; (c = getopt_long(argc, argv, "", known, nullptr)) != -1;) {
    if (c == 'm') {
      arguments.map = true;
    } else if (c == 'p') {
      arguments.passphrase = optarg;
    } else if (c == 's') {
      arguments.snapshot = optarg;
    } else {
      return std::nullopt;
    }
  }
  if (optind + 1 != argc) return std::nullopt;
  arguments.image = argv[optind];
  return arguments;
}

Status write_bytes(BlockDevice& disk) {
  size_t length = 1;
  for (uint64_t offset = 0; offset < disk.size();) {
    std::vector<std::byte> bytes(static_cast<size_t>(std::min<uint64_t>(length, disk.size() - offset)));
    if (Status s = disk.read(bytes, offset); !s) return s;
    if (std::fwrite(bytes.data(), 1, bytes.size(), stdout) != bytes.size()) return fail(Errc::io, "cannot write");
    offset += bytes.size();
    length = (length * 7 + 13) % (3 << 20) + 1;
  }
  return ok();
}

Status write_map(BlockDevice& disk) {
  for (uint64_t offset = 0; offset < disk.size();) {
    auto extent = disk.extent(offset, disk.size() - offset);
    if (!extent) return propagate(extent);
    std::printf("%ju %ju %s%s\n", uintmax_t{offset}, uintmax_t{extent->length}, extent->hole ? "hole" : "",
                extent->zero ? "zero" : "");
    offset += extent->length;
  }
  return ok();
}

Status run(const Arguments& arguments) {
  auto file = FileDevice::open(arguments.image);
  if (!file) return propagate(file);
  Keyring keyring;
  if (arguments.passphrase) keyring.add_secret(SecureBuffer::copy_of(std::as_bytes(std::span(*arguments.passphrase))));
  auto format = open_qcow2(**file, keyring, {.snapshot = arguments.snapshot, .read_only = true});
  if (!format) return propagate(format);
  const auto disk = (*format)->stack_on(**file);
  return arguments.map ? write_map(*disk) : write_bytes(*disk);
}

} // namespace

int main(int argc, char** argv) {
  const auto arguments = parse(argc, argv);
  if (!arguments) {
    std::fprintf(stderr, "usage: dump_guest [--map] [--passphrase TEXT] [--snapshot NAME] IMAGE\n");
    return 2;
  }
  set_log_sink([](LogLevel, const std::string& line) { std::fprintf(stderr, "%s\n", line.c_str()); });
  const Status s = run(*arguments);
  if (s) return 0;
  std::fprintf(stderr, "dump_guest: %s\n", s.error().what.c_str());
  return 1;
}
