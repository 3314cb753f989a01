/* SPDX-License-Identifier: BSD-3-Clause */
/* Lines for the operator.  The parts below plugin/ know nothing of nbdkit; the plugin sets where the lines go.
 * Nothing secret is ever passed here. */
#ifndef QLUKS_BASE_LOG_HPP
#define QLUKS_BASE_LOG_HPP

#include <string>

namespace qluks {

enum class LogLevel { debug, warning };

using LogSink = void (*)(LogLevel, const std::string& line);

/* Set once, before any thread exists.  Without a sink lines are dropped. */
void set_log_sink(LogSink sink) noexcept;

void log_debug(const std::string& line);   /* shown by nbdkit -v */
void log_warning(const std::string& line); /* always shown */

} // namespace qluks

#endif
