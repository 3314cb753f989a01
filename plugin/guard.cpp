/* SPDX-License-Identifier: BSD-3-Clause */
#include "plugin/guard.hpp"

#include <nbdkit-filter.h>

#include "plugin/private_names.hpp"

namespace qluks {

int errno_of(const Error& error) noexcept {
  if (error.sys > 0) return error.sys;
  switch (error.code) {
    case Errc::no_memory:
      return ENOMEM;
    case Errc::read_only:
      return EROFS;
    case Errc::wrong_passphrase:
      return EPERM;
    case Errc::out_of_bounds:
      return EINVAL;
    case Errc::shutting_down:
      return ESHUTDOWN;
    case Errc::not_fast:
      return ENOTSUP;
    case Errc::io:
    case Errc::invalid_format:
    case Errc::unsupported:
    case Errc::corrupt:
      break;
  }
  return EIO;
}

/* Newer servers hand the last line of a request that failed to its client. */
void report(const Error& error) noexcept {
  if (error.what.empty()) return;
  nbdkit_error("%s", error.what.c_str());
  try {
    const std::string shown = without_private_names(error.what);
    if (shown != error.what) nbdkit_error("%s", shown.c_str());
  } catch (const std::bad_alloc&) {
    nbdkit_error("out of memory");
  }
}

void report_bug(const char* callback) noexcept { nbdkit_error("internal error in %s: unexpected exception", callback); }

} // namespace qluks
