/* SPDX-License-Identifier: BSD-3-Clause */
/* Passphrases, by the rules that nbdkit has for passwords.
 *
 * nbdkit's own reader goes through stdio, whose buffers keep a copy of the passphrase when they are freed; this one
 * reads into secret memory.
 */
#ifndef QLUKS_PLUGIN_PASSPHRASE_HPP
#define QLUKS_PLUGIN_PASSPHRASE_HPP

#include "base/result.hpp"
#include "base/secure_buffer.hpp"

namespace qluks {

struct Passphrase {
  SecureBuffer secret;
  bool newline_dropped = false; /* one stood behind it, which is not part of it */
};

/* `value` is the parameter's:
 *
 *      -       ask on the terminal
 *      -FD     the first line that this file descriptor gives; it is closed
 *      +FILE   the first line of a file
 *      others  the passphrase itself */
Result<Passphrase> read_passphrase(const char* value);

} // namespace qluks

#endif
