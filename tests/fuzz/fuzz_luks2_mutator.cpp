/* SPDX-License-Identifier: BSD-3-Clause */
/* How libFuzzer changes the inputs of fuzz_luks2: one part at a time, and then magics, sizes and checksums of both
 * copies are put right again, or nothing but these would ever be looked at.
 *
 *      | script | binary header, JSON text, zeroes | the same once more |
 */
#include <algorithm>
#include <random>

#include "formats/luks/luks2_ondisk.hpp"
#include "tests/fuzz/fuzz_case.hpp"
#include "tests/support/luks_builder.hpp"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned seed);

namespace {

using namespace qluks;
using Buffer = std::vector<std::byte>;

constexpr size_t fields_bytes = 512; /* of the binary header; what follows is padding */

/* Let libFuzzer change `part`, which keeps its length; what gets longer is cut off. */
void mutate_in_place(std::span<std::byte> part) {
  auto* bytes = reinterpret_cast<uint8_t*>(part.data());
  const size_t length = LLVMFuzzerMutate(bytes, part.size(), part.size());
  std::fill(part.begin() + static_cast<ptrdiff_t>(length), part.end(), std::byte{0});
}

/* The same for the JSON text in an area, which may grow as far as that goes, but for the NUL at its end. */
void mutate_text(std::span<std::byte> area) {
  auto* bytes = reinterpret_cast<uint8_t*>(area.data());
  const auto text_end = std::find(area.begin(), area.end(), std::byte{0});
  const size_t room = area.size() - 1;
  const size_t length = LLVMFuzzerMutate(bytes, std::min(static_cast<size_t>(text_end - area.begin()), room), room);
  std::fill(area.begin() + static_cast<ptrdiff_t>(length), area.end(), std::byte{0});
}

/* Where the secondary copy is: at a legal place that leaves room for it. */
size_t copy_bytes_of(const Buffer& image) {
  const uint64_t claimed = load_on_disk<Luks2HdrOnDisk>(image).hdr_size;
  const bool legal = std::find(luks2_hdr_sizes.begin(), luks2_hdr_sizes.end(), claimed) != luks2_hdr_sizes.end();
  return static_cast<size_t>(legal && claimed <= image.size() / 2 ? claimed : luks2_hdr_sizes[0]);
}

void repair(Buffer& image, size_t offset, size_t copy_bytes) {
  auto hdr = load_on_disk<Luks2HdrOnDisk>(std::span(image).subspan(offset));
  hdr.magic = offset == 0 ? luks_magic : luks2_secondary_magic;
  hdr.version = 2;
  hdr.hdr_size = copy_bytes;
  hdr.hdr_offset = offset;
  hdr.checksum_alg.back() = '\0';
  const auto bytes = std::as_bytes(std::span(&hdr, 1));
  std::copy(bytes.begin(), bytes.end(), image.begin() + static_cast<ptrdiff_t>(offset));
  test::repair_luks2_checksum(image, offset);
}

void mutate_image(Buffer& image, std::minstd_rand& random) {
  const size_t copy_bytes = copy_bytes_of(image);
  const size_t offset = random() % 2 == 0 ? 0 : copy_bytes;
  const auto copy = std::span(image).subspan(offset, copy_bytes);
  if (random() % 8 == 0) {
    mutate_in_place(copy.first(fields_bytes));
  } else {
    mutate_text(copy.subspan(luks2_binary_bytes));
  }
  if (random() % 2 == 0)
    std::copy(copy.begin(), copy.end(), image.begin() + static_cast<ptrdiff_t>(copy_bytes - offset));
  if (random() % 32 == 0) return;
  repair(image, 0, copy_bytes);
  if (random() % 16 != 0) repair(image, copy_bytes, copy_bytes);
}

} // namespace

size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned seed) {
  constexpr size_t script_bytes = sizeof(fuzz::ScriptOnDisk);
  if (size < script_bytes + 2 * luks2_hdr_sizes[0]) return LLVMFuzzerMutate(data, size, max_size);
  std::minstd_rand random(seed);
  const auto input = std::as_writable_bytes(std::span(data, size));
  if (random() % 8 == 0) {
    mutate_in_place(input.first(script_bytes));
    return size;
  }
  const auto stored = input.subspan(script_bytes);
  Buffer image(stored.begin(), stored.end());
  mutate_image(image, random);
  std::copy(image.begin(), image.end(), stored.begin());
  return size;
}
