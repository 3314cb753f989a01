/* SPDX-License-Identifier: BSD-3-Clause */
/* The speed that no AES code of this CPU can pass: independent AES instructions on registers, and nothing else. */
#ifndef QLUKS_BENCH_LIMITS_HPP
#define QLUKS_BENCH_LIMITS_HPP

#include <cstddef>
#include <span>
#include <string_view>

#include "crypto/cpu.hpp"

namespace qluks::bench {

struct Limit {
  std::string_view name;
  bool (*supported)(const CpuFeatures& cpu);
  size_t vector_bytes;
  /* `rounds` times `instructions_per_round` AES instructions. */
  void (*run)(size_t rounds);
};

inline constexpr size_t instructions_per_round = 12;

/* Widest first. */
std::span<const Limit> limits();

} // namespace qluks::bench

#endif
