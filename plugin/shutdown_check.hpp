/* SPDX-License-Identifier: BSD-3-Clause */
/* Tells the parts below that nbdkit has been told to end. */
#ifndef QLUKS_PLUGIN_SHUTDOWN_CHECK_HPP
#define QLUKS_PLUGIN_SHUTDOWN_CHECK_HPP

namespace qluks {

/* From .after_fork on.  Before that a signal ends nbdkit at once. */
void install_shutdown_check() noexcept;

} // namespace qluks

#endif
