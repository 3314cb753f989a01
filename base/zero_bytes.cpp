/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/zero_bytes.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <new>

#include "base/shutdown.hpp"

namespace qluks {

namespace {

constexpr size_t zeroes_length = 1 << 20;

const void* map_zeroes() {
  const void* pages = mmap(nullptr, zeroes_length, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (pages == MAP_FAILED) throw std::bad_alloc();
  return pages;
}

} // namespace

std::span<const std::byte> zero_bytes() {
  static const void* const pages = map_zeroes(); /* if it throws, the next one tries again */
  return {static_cast<const std::byte*>(pages), zeroes_length};
}

Status write_zero_bytes(uint64_t offset, uint64_t length, const WriteFn& write) {
  const std::span zeroes = zero_bytes();
  while (length != 0) {
    const uint64_t piece = std::min<uint64_t>(length, zeroes_length - (offset & (zeroes_length - 1)));
    if (Status s = write(zeroes.first(static_cast<size_t>(piece)), offset); !s) return s;
    offset += piece;
    length -= piece;
    if (length != 0 && shutting_down()) return given_up();
  }
  return ok();
}

} // namespace qluks
