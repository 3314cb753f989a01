/* SPDX-License-Identifier: BSD-3-Clause */
#include "plugin/passphrase.hpp"

#include <fcntl.h>
#include <nbdkit-filter.h>
#include <termios.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <string_view>
#include <utility>

#include "base/file_descriptor.hpp"
#include "base/system_message.hpp"
#include "plugin/key_file.hpp"

namespace qluks {

namespace {

tl::unexpected<Error> passphrase_error(const std::string& what, int err = EINVAL) {
  return fail(Errc::io, "qluks-passphrase" + what, err);
}

/* While it lives, the terminal does not show what is typed. */
class EchoOff {
 public:
  EchoOff() noexcept : known_(tcgetattr(STDIN_FILENO, &before_) == 0) {
    termios silent = before_;
    silent.c_lflag &= ~static_cast<tcflag_t>(ECHO);
    set(silent);
  }
  ~EchoOff() { set(before_); }
  EchoOff(const EchoOff&) = delete;
  EchoOff& operator=(const EchoOff&) = delete;

 private:
  void set(const termios& state) const noexcept {
    if (known_) tcsetattr(STDIN_FILENO, TCSAFLUSH, &state);
  }

  termios before_{};
  bool known_;
};

Result<Passphrase> read_line(int fd, const std::string& source) {
  auto line = read_secret(fd, key_file_bytes_default_max + 2, SecretEnd::newline);
  if (!line) return passphrase_error(source + ": " + system_message(line.error().sys), line.error().sys);
  const bool newline = line->size() != 0 && std::as_const(*line).span().back() == std::byte{'\n'};
  if (newline) line->shrink(line->size() - 1);
  if (line->size() > key_file_bytes_default_max) {
    return passphrase_error(source + ": its first line is longer than " + std::to_string(key_file_bytes_default_max) +
                            " bytes");
  }
  return Passphrase{std::move(*line), newline};
}

Result<Passphrase> ask() {
  if (nbdkit_stdio_safe() == 0) return passphrase_error("=-: standard input is in use by nbdkit -s: use +FILE");
  if (isatty(STDIN_FILENO) == 0) return passphrase_error("=-: standard input is not a terminal: use +FILE or -FD");
  auto line = [] {
    const EchoOff echo_off;
    std::printf("passphrase: ");
    std::fflush(stdout);
    return read_line(STDIN_FILENO, "=-");
  }();
  if (line) line->newline_dropped = false; /* the key that ends a line was never meant to count */
  std::printf("\n");
  return line;
}

} // namespace

Result<Passphrase> read_passphrase(const char* value) {
  const std::string_view text(value);
  if (text == "-") return ask();
  if (text.starts_with("-")) {
    int number = -1;
    if (nbdkit_parse_int("qluks-passphrase=-FD", value + 1, &number) != 0)
      return fail(Errc::invalid_format, "", EINVAL);
    if (number <= STDERR_FILENO) {
      return passphrase_error("=" + std::string(text) + ": standard input, output and error are nbdkit's");
    }
    const FileDescriptor fd(number);
    return read_line(number, "=" + std::string(text));
  }
  if (text.starts_with("+")) {
    const FileDescriptor file(::open(value + 1, O_RDONLY | O_CLOEXEC | O_NOCTTY));
    const std::string source = std::string(" ") + (value + 1);
    if (!file) return passphrase_error(source + ": " + system_message(errno), errno);
    return read_line(file.get(), source);
  }
  return Passphrase{SecureBuffer::copy_of(std::as_bytes(std::span(text)))};
}

} // namespace qluks
