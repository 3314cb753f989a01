/* SPDX-License-Identifier: BSD-3-Clause */
/* libFuzzer's way into a target. */
#include <cstdint>

#include "base/log.hpp"
#include "tests/fuzz/checks.hpp"
#include "tests/fuzz/target.hpp"

/* Freed memory is kept apart for a while, but not as much of it as a program may have. */
extern "C" const char* __asan_default_options() { return "quarantine_size_mb=8:malloc_context_size=12"; }

extern "C" int LLVMFuzzerInitialize(int* /*argc*/, char*** /*argv*/) {
  qluks::set_log_sink([](qluks::LogLevel, const std::string& line) { qluks::fuzz::check_line(line); });
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  qluks::fuzz::run_target(std::as_bytes(std::span(data, size)));
  return 0;
}
