/* SPDX-License-Identifier: BSD-3-Clause */
/* What a kernel is: AES over a run of sectors, for one set of CPU features.
 *
 *                    SectorKeys                          SectorRun
 *      +---------------------------------------+   +----------------------+
 *      | data     the key of the sectors       |   | first  number        |
 *      | iv[0…2)  the keys that IVs pass       |   | sector_size, count   |
 *      | iv_layout  number -> 16 bytes         |   | in, out              |
 *      +---------------------------------------+   +----------------------+
 *                           \                       /
 *                            kernel.xts_decrypt(…)
 *
 * The IV of a sector is made in the same way in every mode: its number is laid out as 16 bytes, which are then
 * encrypted with each of the IV keys in turn:
 *
 *      cbc-plain64:  none            xts-plain64:  tweak key
 *      cbc-essiv:    ESSIV key       xts-essiv:    ESSIV key, then tweak key
 *
 * A kernel allocates nothing, locks nothing and tests no CPU feature.  What it leaves in registers and on the stack,
 * its caller wipes.
 */
#ifndef QLUKS_CRYPTO_AES_KERNEL_HPP
#define QLUKS_CRYPTO_AES_KERNEL_HPP

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "crypto/cpu.hpp"
#include "crypto/iv.hpp"
#include "crypto/sector_cipher.hpp"

namespace qluks {

inline constexpr size_t block_bytes = 16;
inline constexpr unsigned aes_rounds_max = 14;

constexpr unsigned aes_rounds(size_t key_bytes) noexcept { return static_cast<unsigned>(key_bytes / 4) + 6; }

/* Round keys in the order of use.  Each is repeated four times, so that every vector width can take it as a memory
 * operand. */
struct alignas(64) RoundKeys {
  std::byte key[aes_rounds_max + 1][64];
};

/* Schedules of the kernels with intrinsics. */
struct VectorSchedule {
  RoundKeys encrypt;
  RoundKeys decrypt; /* of the equivalent inverse cipher, FIPS 197 section 5.3.5 */
};

/* nettle's contexts, which are of three types, and the functions that know them. */
struct NettleSchedule {
  using BlocksFn = void(const void* context, size_t length, uint8_t* dst, const uint8_t* src);

  alignas(16) std::byte encrypt[256];
  alignas(16) std::byte decrypt[256];
  BlocksFn* encrypt_blocks;
  BlocksFn* decrypt_blocks;
};

/* An expanded AES key.  Which schedule it holds is up to the kernel that expanded it. */
struct AesSchedule {
  union {
    VectorSchedule vector;
    NettleSchedule nettle;
  };
  unsigned rounds; /* 10, 12 or 14 */
};

inline constexpr size_t iv_keys_max = 2;

/* All that a cipher needs and that must stay secret; its memory belongs to the cipher. */
struct SectorKeys {
  AesSchedule data;
  AesSchedule iv[iv_keys_max];
  size_t iv_keys; /* how many of them are used */
  IvLayout iv_layout;
};

/* A run of so few bytes, and so of no more than that many sectors, takes less of the stack (crypto/traces.hpp). */
inline constexpr size_t few_bytes = 4096;
inline constexpr size_t few_sectors = few_bytes / 512;

/* `in` and `out` are equal or disjoint, and need no alignment. */
struct SectorRun {
  uint64_t first;     /* number of the first sector, in units of 512 bytes */
  size_t sector_size; /* 512, 1024, 2048 or 4096 */
  size_t count;       /* sectors */
  const std::byte* in;
  std::byte* out;

  /* How far apart the numbers of neighbours are. */
  uint64_t step() const noexcept { return sector_size / 512; }

  bool is_few() const noexcept { return count * sector_size <= few_bytes; }

  /* `n` sectors from the i-th. */
  SectorRun part(size_t i, size_t n) const noexcept {
    return {first + i * step(), sector_size, n, in + i * sector_size, out + i * sector_size};
  }
};

using SectorFn = void(const SectorKeys& keys, const SectorRun& run) noexcept;

struct Kernel {
  std::string_view name;
  bool (*supported)(const CpuFeatures& cpu) noexcept;
  int (*rank)(const CpuFeatures& cpu) noexcept; /* the highest supported one is taken */

  void (*expand_key)(std::span<const std::byte> key, AesSchedule& schedule) noexcept;
  SectorFn* xts_encrypt;
  SectorFn* xts_decrypt;
  SectorFn* cbc_encrypt;
  SectorFn* cbc_decrypt;
};

/* Every kernel that was built, whether this CPU has what it needs or not. */
std::span<const Kernel> kernels() noexcept;

/* Does it turn known sectors into known cipher text and back, with every key size and mode? */
bool passes_self_test(const Kernel& kernel);

/* Those that `cpu` supports, best first. */
std::vector<const Kernel*> ranked_kernels(const CpuFeatures& cpu);

/* The one that new ciphers get; nullptr if not even nettle's passes its self-test. */
const Kernel* chosen_kernel();

/* A cipher on a certain kernel, which this CPU must support. */
Result<std::shared_ptr<const SectorCipher>> make_sector_cipher(const Kernel& kernel, const CipherSpec& spec,
                                                               std::span<const std::byte> key, size_t sector_size);

} // namespace qluks

#endif
