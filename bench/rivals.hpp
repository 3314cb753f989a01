/* SPDX-License-Identifier: BSD-3-Clause */
/* The libraries that configure found, each as its own documentation would have it used for a run of sectors: a key
 * schedule once, then for each sector a new IV and one call. */
#ifndef QLUKS_BENCH_RIVALS_HPP
#define QLUKS_BENCH_RIVALS_HPP

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "crypto/cipher_spec.hpp"

namespace qluks::bench {

enum class Direction { encrypt, decrypt };

/* One mode of one library with a key. */
class RivalMode {
 public:
  RivalMode() = default;
  RivalMode(const RivalMode&) = delete;
  RivalMode& operator=(const RivalMode&) = delete;
  virtual ~RivalMode() = default;
  /* In place. */
  virtual void crypt(const uint8_t iv[16], uint8_t* data, size_t size) = 0;
};

enum class Pbkdf2Hash { sha1, sha256, sha512 };

struct Pbkdf2Input {
  Pbkdf2Hash hash;
  std::string_view secret, salt;
  uint32_t iterations;
};

struct Rival {
  std::string_view name;
  std::string version;
  /* Aborts if the library has no such mode. */
  std::unique_ptr<RivalMode> (*make)(CipherMode mode, std::span<const std::byte> key, Direction direction);
  void (*pbkdf2)(const Pbkdf2Input& input, std::span<std::byte> out);
};

std::span<const Rival> rivals();

/* Sectors from number 0 on, with the IVs of `spec` (plain64 or ESSIV). */
class RivalCipher {
 public:
  RivalCipher(const Rival& rival, const CipherSpec& spec, std::span<const std::byte> key, Direction direction);
  void run(std::span<std::byte> data, size_t sector_size);

 private:
  std::unique_ptr<RivalMode> data_;
  std::unique_ptr<RivalMode> essiv_;
};

} // namespace qluks::bench

#endif
