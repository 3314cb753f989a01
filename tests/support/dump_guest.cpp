/* SPDX-License-Identifier: BSD-3-Clause */
/* dump_guest [OPTION…] IMAGE: writes the guest disk of a qcow2, the payload of a LUKS volume or a partition to standard
 * output.
 *
 *      --map               its extents instead, one a line: offset, length, flags
 *      --bytes N           no more than the first N bytes
 *      --peak              the most memory that it had, on standard error
 *      --luks              the image is a LUKS volume
 *      --partition N       the image is a disk with a partition table: this partition of it
 *      --passphrase TEXT   tried on each encrypted image; may be repeated
 *      --snapshot NAME     an internal snapshot
 *      --data-file FILE    the external data file
 *      --backing FILE      the backing file, a qcow2 or, with "raw:" in front, not; repeat for a chain, nearest first
 *
 * The layers without nbdkit, for comparing with what QEMU reads.  Reads in pieces of changing length, so that they
 * begin and end anywhere in a cluster. */
#include <getopt.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/file_device.hpp"
#include "base/log.hpp"
#include "formats/luks/keyring.hpp"
#include "formats/luks/layer.hpp"
#include "formats/partition/layer.hpp"
#include "formats/qcow2/layer.hpp"

using namespace qluks;

namespace {

struct Arguments {
  bool map = false;
  bool luks = false;
  bool peak = false;
  uint32_t partition = 0;
  uint64_t bytes = UINT64_MAX;
  std::vector<std::string> passphrases;
  std::string snapshot;
  std::string data_file;
  std::vector<std::string> backing;
  std::string image;
};

std::optional<Arguments> parse(int argc, char** argv) {
  static const option known[] = {{"map", no_argument, nullptr, 'm'},
                                 {"luks", no_argument, nullptr, 'l'},
                                 {"partition", required_argument, nullptr, 't'},
                                 {"peak", no_argument, nullptr, 'k'},
                                 {"bytes", required_argument, nullptr, 'n'},
                                 {"passphrase", required_argument, nullptr, 'p'},
                                 {"snapshot", required_argument, nullptr, 's'},
                                 {"data-file", required_argument, nullptr, 'd'},
                                 {"backing", required_argument, nullptr, 'b'},
                                 {nullptr, 0, nullptr, 0}};
  Arguments arguments;
  for (int c; (c = getopt_long(argc, argv, "", known, nullptr)) != -1;) {
    if (c == 'm') arguments.map = true;
    if (c == 'l') arguments.luks = true;
    if (c == 'k') arguments.peak = true;
    if (c == 't') arguments.partition = static_cast<uint32_t>(std::stoul(optarg));
    if (c == 'n') arguments.bytes = std::stoull(optarg);
    if (c == 'p') arguments.passphrases.push_back(optarg);
    if (c == 's') arguments.snapshot = optarg;
    if (c == 'd') arguments.data_file = optarg;
    if (c == 'b') arguments.backing.push_back(optarg);
    if (c == '?') return std::nullopt;
  }
  if (optind + 1 != argc) return std::nullopt;
  arguments.image = argv[optind];
  return arguments;
}

using Device = std::shared_ptr<BlockDevice>;

Result<Device> open_file(const std::string& path) {
  auto file = FileDevice::open(path);
  if (!file) return propagate(file);
  return Device(std::move(*file));
}

/* A disk together with all that it stands on. */
template <class T>
Result<Device> stack(const std::string& path, Device file, Result<std::unique_ptr<T>> format) {
  struct Parts {
    Device file;
    std::unique_ptr<Format> format;
    std::unique_ptr<BlockDevice> layer;
  };
  if (!format) return propagate(format, path);
  const auto parts = std::make_shared<Parts>(Parts{std::move(file), std::move(*format), nullptr});
  parts->layer = parts->format->stack_on(*parts->file);
  return Device(parts, parts->layer.get());
}

Result<Device> open_disk(const std::string& path, Keyring& keyring, const Qcow2Options& options) {
  auto file = open_file(path);
  if (!file) return propagate(file);
  return stack(path, *file, open_qcow2(**file, keyring, options));
}

Result<Device> open_volume(const std::string& path, Keyring& keyring) {
  auto file = open_file(path);
  if (!file) return propagate(file);
  return stack(path, *file, open_luks(**file, keyring));
}

Result<Device> open_part(const std::string& path, uint32_t number) {
  auto file = open_file(path);
  if (!file) return propagate(file);
  return stack(path, *file, open_partition(**file, number));
}

/* The nearest backing file on those behind it; null if there is none. */
Result<Device> open_chain(const std::vector<std::string>& files, Keyring& keyring) {
  constexpr std::string_view raw = "raw:";
  Device below;
  for (auto file = files.rbegin(); file != files.rend(); ++file) {
    auto disk = file->starts_with(raw) ? open_file(file->substr(raw.size()))
                                       : open_disk(*file, keyring, {.backing = below, .read_only = true});
    if (!disk) return propagate(disk);
    below = std::move(*disk);
  }
  return below;
}

Status write_bytes(BlockDevice& disk, uint64_t end) {
  size_t length = 1;
  for (uint64_t offset = 0; offset < end;) {
    std::vector<std::byte> bytes(static_cast<size_t>(std::min<uint64_t>(length, end - offset)));
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

/* Of this program alone: getrusage() also counts what whoever started it had. */
void print_peak() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) std::fprintf(stderr, "%s\n", line.c_str());
  }
}

Status run(const Arguments& arguments) {
  Keyring keyring;
  for (const std::string& passphrase : arguments.passphrases) {
    keyring.add_secret(SecureBuffer::copy_of(std::as_bytes(std::span(passphrase))));
  }
  auto backing = open_chain(arguments.backing, keyring);
  if (!backing) return propagate(backing);
  Qcow2Options options{.snapshot = arguments.snapshot, .backing = *backing, .read_only = true};
  if (!arguments.data_file.empty()) {
    auto data_file = open_file(arguments.data_file);
    if (!data_file) return propagate(data_file);
    options.data_file = *data_file;
  }
  auto disk = arguments.partition != 0 ? open_part(arguments.image, arguments.partition)
              : arguments.luks         ? open_volume(arguments.image, keyring)
                                       : open_disk(arguments.image, keyring, options);
  if (!disk) return propagate(disk);
  return arguments.map ? write_map(**disk) : write_bytes(**disk, std::min((*disk)->size(), arguments.bytes));
}

} // namespace

int main(int argc, char** argv) {
  const auto arguments = parse(argc, argv);
  if (!arguments) {
    std::fprintf(stderr, "usage: dump_guest [OPTION...] IMAGE\n");
    return 2;
  }
  set_log_sink([](LogLevel, const std::string& line) { std::fprintf(stderr, "%s\n", line.c_str()); });
  const Status s = run(*arguments);
  if (arguments->peak) print_peak();
  if (s) return 0;
  std::fprintf(stderr, "dump_guest: %s\n", s.error().what.c_str());
  return 1;
}
