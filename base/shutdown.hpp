/* SPDX-License-Identifier: BSD-3-Clause */
/* Has the process been asked to end?  Work that takes long asks now and then, and gives up.  The parts below plugin/
 * know nothing of nbdkit; the plugin sets who answers. */
#ifndef QLUKS_BASE_SHUTDOWN_HPP
#define QLUKS_BASE_SHUTDOWN_HPP

#include "base/result.hpp"

namespace qluks {

/* Called from any thread, every few milliseconds of each long computation. */
using ShutdownCheck = bool (*)() noexcept;

/* Set once, before any thread exists.  Without a check nothing is ever given up. */
void set_shutdown_check(ShutdownCheck check) noexcept;

bool shutting_down() noexcept;

/* What work that was given up returns. */
tl::unexpected<Error> given_up();

} // namespace qluks

#endif
