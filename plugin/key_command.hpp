/* SPDX-License-Identifier: BSD-3-Clause */
/* Secrets from a program that the user names: Clevis, Vault, a KMS, the kernel keyring. */
#ifndef QLUKS_PLUGIN_KEY_COMMAND_HPP
#define QLUKS_PLUGIN_KEY_COMMAND_HPP

#include <cstdint>
#include <string>

#include "base/result.hpp"
#include "base/secure_buffer.hpp"
#include "formats/luks/header.hpp"

namespace qluks {

/* Run `command` by /bin/sh and take what it prints, byte for byte.  It finds out what the secret is for from
 *
 *      QLUKS_UUID      of the volume
 *      QLUKS_VERSION   1 or 2
 *      QLUKS_LAYER     "luks", "qcow2" (the header lies in a qcow2) or "detached"
 *      standard input  the LUKS2 tokens, a JSON object; {} if there are none
 *
 * A program that fails, prints nothing, prints more than a key file may hold or runs longer than `seconds_max` is an
 * error; what still runs is ended. */
Result<SecureBuffer> run_key_command(const std::string& command, const LuksHeader& header, uint32_t seconds_max);

} // namespace qluks

#endif
