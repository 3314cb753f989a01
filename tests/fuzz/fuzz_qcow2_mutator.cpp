/* SPDX-License-Identifier: BSD-3-Clause */
/* How libFuzzer changes the inputs of fuzz_qcow2, fuzz_qcow2_write and fuzz_info: half of the time anywhere, as it does
 * by itself; else inside of one piece, whose length stays, so that what follows stays a list of pieces.  Headers and
 * tables are at the start of a piece more often than not. */
#include <random>

#include "tests/fuzz/fuzz_case.hpp"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned seed);

namespace {

using namespace qluks;

constexpr size_t start_bytes = 512;

/* The script and the pieces of an input; the bytes of each without its header. */
std::vector<std::span<std::byte>> parts_of(std::span<std::byte> input) {
  std::vector<std::span<std::byte>> parts = {input.first(fuzz::script_bytes)};
  std::span<const std::byte> rest = input.subspan(parts[0].size());
  while (const auto piece = fuzz::take<fuzz::PieceOnDisk>(rest)) {
    const size_t length = std::min<size_t>(piece->length, rest.size());
    parts.push_back(input.last(rest.size()).first(length));
    rest = rest.subspan(length);
  }
  return parts;
}

} // namespace

size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned seed) {
  std::minstd_rand random(seed);
  if (size <= fuzz::script_bytes || random() % 2 == 0) return LLVMFuzzerMutate(data, size, max_size);
  const auto parts = parts_of(std::as_writable_bytes(std::span(data, size)));
  auto part = parts[random() % parts.size()];
  if (random() % 4 != 0) part = part.first(std::min(part.size(), start_bytes));
  if (part.empty()) return size;
  const size_t length = LLVMFuzzerMutate(reinterpret_cast<uint8_t*>(part.data()), part.size(), part.size());
  std::fill(part.begin() + static_cast<ptrdiff_t>(length), part.end(), std::byte{0});
  return size;
}
