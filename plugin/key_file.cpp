/* SPDX-License-Identifier: BSD-3-Clause */
#include "plugin/key_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/file_descriptor.hpp"
#include "base/system_message.hpp"

namespace qluks {

namespace {

/* Standard input stays open behind it. */
FileDescriptor open_key_file(const std::string& path) noexcept {
  if (path == "-") return FileDescriptor(fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, STDERR_FILENO + 1));
  return FileDescriptor(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY));
}

tl::unexpected<Error> key_file_error(const KeyFile& file, const std::string& what, int err = EINVAL) {
  return fail(Errc::io, file.parameter + " " + file.path + ": " + what, err);
}

/* Fill `dst` as far as the secret goes, and perhaps somewhat further; the number of bytes read.  Who waits for a line
 * from a terminal or a pipe does not wait for more. */
Result<size_t> read_up_to(int fd, std::span<std::byte> dst, SecretEnd end,
                          const std::function<Status()>& before_read = ok) {
  size_t done = 0;
  while (done < dst.size()) {
    if (Status s = before_read(); !s) return propagate(s);
    const ssize_t n = ::read(fd, dst.data() + done, dst.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail(Errc::io, "", errno);
    if (n == 0) break;
    const std::byte* got = dst.data() + done;
    done += static_cast<size_t>(n);
    if (end == SecretEnd::newline && std::find(got, got + n, std::byte{'\n'}) != got + n) break;
  }
  return done;
}

/* Pipes cannot seek, so the offset is read over, like any other secret bytes. */
Status skip_offset(const KeyFile& file, int fd) {
  SecureBuffer scratch(4096);
  for (uint64_t left = file.offset; left > 0;) {
    const auto part = scratch.span().first(static_cast<size_t>(std::min<uint64_t>(left, scratch.size())));
    const auto n = read_up_to(fd, part, SecretEnd::file);
    if (!n) return key_file_error(file, system_message(n.error().sys), n.error().sys);
    if (*n < part.size()) {
      return key_file_error(file, "qluks-key-file-offset " + std::to_string(file.offset) + " is past its end");
    }
    left -= part.size();
  }
  return ok();
}

} // namespace

/* The buffer grows with what there is, since locked memory is scarce. */
Result<SecureBuffer> read_secret(int fd, uint64_t most, SecretEnd end, const std::function<Status()>& before_read) {
  SecureBuffer secret;
  for (uint64_t room = std::min<uint64_t>(most, 4096);; room = std::min(most, room * 4)) {
    SecureBuffer larger(static_cast<size_t>(room));
    std::copy_n(secret.data(), secret.size(), larger.data());
    auto n = read_up_to(fd, larger.span().subspan(secret.size()), end, before_read);
    if (!n) return propagate(n);
    const auto line = larger.span().first(secret.size() + *n);
    const auto newline = std::find(line.begin() + static_cast<ptrdiff_t>(secret.size()), line.end(), std::byte{'\n'});
    const bool ended = end == SecretEnd::newline && newline != line.end();
    larger.shrink(ended ? static_cast<size_t>(newline - line.begin()) + 1 : line.size());
    secret = std::move(larger);
    if (ended || secret.size() < room || room == most) return secret;
  }
}

Result<SecureBuffer> read_key_file(const KeyFile& file) {
  if (file.size && *file.size > key_file_bytes_default_max) {
    return key_file_error(file, "qluks-key-file-size " + std::to_string(*file.size) + " is above the limit of " +
                                    std::to_string(key_file_bytes_default_max));
  }
  const FileDescriptor fd = open_key_file(file.path);
  if (!fd) return key_file_error(file, system_message(errno), errno);
  struct stat st {};
  if (fstat(fd.get(), &st) == 0 && S_ISDIR(st.st_mode)) return key_file_error(file, system_message(EISDIR), EISDIR);
  if (Status s = skip_offset(file, fd.get()); !s) return propagate(s);

  /* One byte more than the limit tells a file that is just large enough from one that is too large. */
  auto secret = read_secret(fd.get(), file.size.value_or(key_file_bytes_default_max + 1), SecretEnd::file);
  if (!secret) return key_file_error(file, system_message(secret.error().sys), secret.error().sys);
  const size_t n = secret->size();
  if (file.size && n < *file.size) {
    return key_file_error(file, "it holds " + std::to_string(n) +
                                    " bytes after the offset, qluks-key-file-size asks for " +
                                    std::to_string(*file.size));
  }
  if (!file.size && n > key_file_bytes_default_max) {
    return key_file_error(file, "it is larger than " + std::to_string(key_file_bytes_default_max) +
                                    " bytes: name the part to use with qluks-key-file-size=");
  }
  if (n == 0 && !S_ISREG(st.st_mode)) return key_file_error(file, "nothing to read");
  return secret;
}

} // namespace qluks
