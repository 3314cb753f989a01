/* SPDX-License-Identifier: BSD-3-Clause */
/* The inputs of the targets that open an image:
 *
 *      | script | the image's bytes … |                   LUKS: zeroes follow, up to the size in the script
 *      | script | piece header | bytes | piece … |        qcow2: several files, zero where no piece is
 *      | script | writing | either of these               targets that write
 *
 * The script says how to open the image and what to ask the guest disk.  Any bytes are a legal input.
 */
#ifndef QLUKS_TESTS_FUZZ_FUZZ_CASE_HPP
#define QLUKS_TESTS_FUZZ_FUZZ_CASE_HPP

#include <array>
#include <optional>
#include <span>
#include <vector>

#include "base/units.hpp"
#include "base/wire.hpp"
#include "tests/fuzz/sparse_device.hpp"

namespace qluks::fuzz {

/* A request to the guest disk; both numbers are taken modulo what is possible. */
struct RequestOnDisk {
  uint8_t kind;  /* the lowest bits; and large_request */
  uint8_t shift; /* of the offset, so that any part of a large disk can be meant */
  be32 offset;
  be32 length;
};
static_assert(sizeof(RequestOnDisk) == 10);

inline constexpr uint8_t large_request = 0x80;

inline constexpr size_t files_max = 2;

struct ScriptOnDisk {
  uint8_t keyring; /* which of keyrings.hpp */
  uint8_t options; /* bits that the target knows */
  uint8_t cache;   /* which size of the cache */
  uint8_t place;   /* of a LUKS header */
  std::array<char, 8> snapshot;
  std::array<be32, files_max> sectors; /* a file is not smaller than this */
  std::array<RequestOnDisk, 4> requests;
};
static_assert(sizeof(ScriptOnDisk) == 60);

/* What the targets that write have behind the script: what is done to the disk, and what storage does meanwhile.  What
 * the bits of `kind` mean is in written_disk.cpp. */
struct WritingOnDisk {
  uint8_t fail_at; /* which change below fails; 0: none */
  uint8_t storage; /* bits that OverlayDevice and the target know */
  be16 reserved;
  be32 lost; /* which writes a power cut loses */
  std::array<RequestOnDisk, 12> operations;
};
static_assert(sizeof(WritingOnDisk) == 128);

inline constexpr uint8_t storage_fails_for_ever = 1;
inline constexpr uint8_t storage_has_fua = 2;
inline constexpr uint8_t storage_loses_power = 4; /* at the end */

/* The bytes in front of the image, which a mutator keeps. */
extern const size_t script_bytes;

struct PieceOnDisk {
  be32 sector; /* where it goes; the highest bit says into which file */
  be16 length; /* bytes that follow, as far as there are any */
};
static_assert(sizeof(PieceOnDisk) == 6);

inline constexpr uint32_t second_file_flag = uint32_t{1} << 31;

/* Cut a structure off the front of `input`; nothing if it is too short. */
template <class OnDisk>
std::optional<OnDisk> take(std::span<const std::byte>& input) {
  if (input.size() < sizeof(OnDisk)) return std::nullopt;
  const auto value = load_on_disk<OnDisk>(input);
  input = input.subspan(sizeof(OnDisk));
  return value;
}

inline uint64_t size_in_script(const ScriptOnDisk& script, size_t file) {
  return uint64_t{script.sectors[file]} * sector_bytes;
}

inline uint64_t cache_bytes_in_script(const ScriptOnDisk& script) {
  constexpr uint64_t sizes[] = {1, 1 << 16, 16 << 20};
  return sizes[script.cache % std::size(sizes)];
}

/* The pieces of one file. */
inline SparseDevice gather_file(const ScriptOnDisk& script, std::span<const std::byte> input, size_t file) {
  SparseDevice device(size_in_script(script, file));
  while (const auto piece = take<PieceOnDisk>(input)) {
    const auto bytes = input.first(std::min<size_t>(piece->length, input.size()));
    input = input.subspan(bytes.size());
    const bool second = (piece->sector & second_file_flag) != 0;
    if (second == (file == 1)) device.add(uint64_t{piece->sector & ~second_file_flag} * sector_bytes, bytes);
  }
  return device;
}

} // namespace qluks::fuzz

#endif
