/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/shutdown.hpp"

#include <cerrno>

namespace qluks {

namespace {
ShutdownCheck shutdown_check = nullptr;
}

void set_shutdown_check(ShutdownCheck check) noexcept { shutdown_check = check; }

bool shutting_down() noexcept { return shutdown_check != nullptr && shutdown_check(); }

tl::unexpected<Error> given_up() {
  return fail(Errc::shutting_down, "given up, as the server has been told to end", ESHUTDOWN);
}

} // namespace qluks
