/* SPDX-License-Identifier: BSD-3-Clause */
/* Each target is one function; libFuzzer calls it for ever, replay.cpp once for each file. */
#ifndef QLUKS_TESTS_FUZZ_TARGET_HPP
#define QLUKS_TESTS_FUZZ_TARGET_HPP

#include <cstddef>
#include <span>

namespace qluks::fuzz {

void run_target(std::span<const std::byte> input);

} // namespace qluks::fuzz

#endif
