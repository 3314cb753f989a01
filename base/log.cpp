/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/log.hpp"

namespace qluks {

namespace {
LogSink log_sink = nullptr;
}

void set_log_sink(LogSink sink) noexcept { log_sink = sink; }

void log_debug(const std::string& line) {
  if (log_sink != nullptr) log_sink(LogLevel::debug, line);
}

void log_warning(const std::string& line) {
  if (log_sink != nullptr) log_sink(LogLevel::warning, line);
}

} // namespace qluks
