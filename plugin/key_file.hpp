/* SPDX-License-Identifier: BSD-3-Clause */
/* Secrets from files, byte for byte as cryptsetup --key-file reads them. */
#ifndef QLUKS_PLUGIN_KEY_FILE_HPP
#define QLUKS_PLUGIN_KEY_FILE_HPP

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "base/result.hpp"
#include "base/secure_buffer.hpp"

namespace qluks {

/* cryptsetup's limits: without a size given, a larger file is refused rather than cut. */
inline constexpr uint64_t key_file_bytes_default_max = 8 << 20;

struct KeyFile {
  std::string path;      /* "-": standard input */
  std::string parameter; /* that named it, for messages */
  uint64_t offset = 0;
  std::optional<uint64_t> size = {}; /* exactly that many bytes; else all up to the end */
};

/* Where a secret ends: with its file, or with the first newline in it, which is then its last byte. */
enum class SecretEnd { file, newline };

/* At most `most` bytes; the error has the number but no words.  `before_read` is called before each read, and can end
 * it with an error of its own. */
Result<SecureBuffer> read_secret(int fd, uint64_t most, SecretEnd end, const std::function<Status()>& before_read = ok);

/* Newlines and NUL bytes count.  An empty regular file is the empty passphrase. */
Result<SecureBuffer> read_key_file(const KeyFile& file);

} // namespace qluks

#endif
