/* SPDX-License-Identifier: BSD-3-Clause */
/* The parameters of a user who means any of it, over an image of any content:
 *
 *      qluks-layers=qcow2\n   qluks-backing=raw:base\n   \n   the image's bytes …
 *
 * nbdkit's functions, the files beside the image, the terminal and the programs that find secrets are replaced at the
 * end of this file: nothing outside of the process is touched. */
#include <nbdkit-filter.h>
#include <sys/mman.h>
#include <unistd.h>

#include <charconv>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "crypto/aes/engine.hpp"
#include "plugin/image.hpp"
#include "plugin/key_command.hpp"
#include "plugin/passphrase.hpp"
#include "tests/fuzz/guest_disk.hpp"
#include "tests/fuzz/target.hpp"

namespace qluks::fuzz {

namespace {

constexpr uint64_t container_bytes_min = 4 << 20;
constexpr size_t key_chars_max = 24;     /* the longest name has 21, and guessing what was meant is dear */
constexpr size_t value_chars_max = 4096; /* of a path; messages repeat what the user typed */

/* What nbdkit or the plugin said by themselves. */
size_t reported = 0;

/* The image's bytes, and those of every file beside it: one whose name is a number starts after so many 4 KiB. */
std::span<const std::byte> image_bytes;

SparseDevice make_file(std::string_view path) {
  const std::string_view name = path.substr(path.rfind('/') + 1);
  uint8_t number = 0;
  std::from_chars(name.data(), name.data() + name.size(), number);
  SparseDevice device(container_bytes_min);
  device.add(0, image_bytes.subspan(std::min(image_bytes.size(), number * size_t{4096})));
  return device;
}

/* A key file that can be read. */
const char* key_file_path() {
  static const std::string path = [] {
    const int fd = memfd_create("key", MFD_CLOEXEC);
    const std::string bytes(100, 'k');
    check(write(fd, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()), "a file can be written");
    return "/proc/self/fd/" + std::to_string(fd);
  }();
  return path.c_str();
}

/* A failure without words is one that nbdkit has put into words. */
template <class T>
bool succeeded_or_reported(const Result<T>& result) {
  const size_t before = std::exchange(reported, 0);
  if (!result && result.error().what.empty()) {
    check(before != 0, "a failure without words was reported before");
    return false;
  }
  return succeeded(result);
}

/* nbdkit hands over strings without control characters, unless someone types them. */
std::string printable(std::string_view text) {
  std::string line(text);
  std::replace_if(
      line.begin(), line.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }, '?');
  return line;
}

/* Cut the lines up to an empty one off the front of `input`, and set each of them. */
bool set_parameters(Config& config, std::string_view& input) {
  while (!input.empty()) {
    const size_t end = std::min(input.find('\n'), input.size());
    const std::string line = printable(input.substr(0, end));
    input.remove_prefix(std::min(end + 1, input.size()));
    if (line.empty()) return true;
    const size_t equals = std::min(line.find('='), line.size());
    const std::string key = line.substr(0, std::min(equals, key_chars_max));
    const std::string value = line.substr(std::min(equals + 1, line.size()), value_chars_max);
    if (!Config::owns(key)) continue; /* the plugin's */
    if (!succeeded_or_reported(config.set(key, value.c_str()))) return false;
  }
  return true;
}

constexpr ScriptOnDisk requests() {
  ScriptOnDisk script{};
  script.requests[0].length = 65536;
  script.requests[1] = {.kind = 2, .shift = 0, .offset = 0, .length = 1 << 20};
  return script;
}

void open_image(Config& config) {
  Sources sources;
  std::unique_ptr<DetachedHeader> detached;
  SparseDevice header = make_file(config.header);
  if (!config.header.empty()) {
    auto opened = DetachedHeader::open(header, config.keyring);
    if (!succeeded_or_reported(opened)) return;
    detached = std::move(*opened);
  }
  SparseDevice container = make_file("");
  const ImageOptions options{.config = config,
                             .detached_header = detached.get(),
                             .cache = std::make_shared<Qcow2Cache>(config.cache_bytes),
                             .sources = sources};
  const auto image = Image::open(container, options, true);
  if (!succeeded_or_reported(image)) return;
  check_line((*image)->describe());
  const Stack stack = (*image)->stack_on(container);
  make_requests(stack.top(), requests());
}

} // namespace

void run_target(std::span<const std::byte> input) {
  std::string_view text(reinterpret_cast<const char*>(input.data()), input.size());
  static_cast<void>(choose_engine("auto"));
  reported = 0;
  Config config;
  if (!set_parameters(config, text)) return;
  if (!succeeded_or_reported(config.complete())) return;
  image_bytes = std::as_bytes(std::span(text));
  open_image(config);
}

} // namespace qluks::fuzz

namespace qluks {

Status Sources::prepare(const std::string& /*source*/, Access /*access*/) { return ok(); }

Result<SharedDevice> Sources::open_for_one_writer(const std::string& source) { return open(source, Access::write); }

Result<SharedDevice> Sources::open(const std::string& source, Access /*access*/) {
  if (source.ends_with("/missing")) return fail(Errc::io, "no such file");
  return SharedDevice(std::make_shared<fuzz::SparseDevice>(fuzz::make_file(source)));
}

Result<SecureBuffer> run_key_command(const std::string& command, const LuksHeader& /*header*/,
                                     uint32_t /*seconds_max*/) {
  if (command.empty()) return fail(Errc::io, "the command printed nothing");
  return SecureBuffer::copy_of(std::as_bytes(std::span(command)));
}

Result<Passphrase> read_passphrase(const char* value) {
  return Passphrase{SecureBuffer::copy_of(std::as_bytes(std::span(value, std::strlen(value))))};
}

} // namespace qluks

extern "C" {

void nbdkit_error(const char* /*format*/, ...) { ++qluks::fuzz::reported; }

int64_t nbdkit_parse_size(const char* text) {
  int64_t size = 0;
  const char* end = text + std::strlen(text);
  const auto result = std::from_chars(text, end, size);
  if (result.ec == std::errc() && result.ptr == end && size >= 0) return size;
  nbdkit_error("size");
  return -1;
}

int nbdkit_parse_uint32_t(const char* /*what*/, const char* text, uint32_t* value) {
  const char* end = text + std::strlen(text);
  if (const auto result = std::from_chars(text, end, *value); result.ec == std::errc() && result.ptr == end) return 0;
  nbdkit_error("number");
  return -1;
}

/* Two key files can be read, all others do not exist. */
char* nbdkit_absolute_path(const char* path) {
  if (std::strcmp(path, "null") == 0) return strdup("/dev/null");
  if (std::strcmp(path, "key") == 0) return strdup(qluks::fuzz::key_file_path());
  return strdup((std::string("/nonexistent/") + path).c_str());
}

char* nbdkit_realpath(const char* path) { return nbdkit_absolute_path(path); }

int nbdkit_parse_bool(const char* text) {
  if (std::strcmp(text, "true") == 0) return 1;
  if (std::strcmp(text, "false") == 0) return 0;
  nbdkit_error("bool");
  return -1;
}

int nbdkit_stdio_safe() { return 0; }
}
