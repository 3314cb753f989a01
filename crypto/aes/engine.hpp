/* SPDX-License-Identifier: BSD-3-Clause */
/* Which kernels this machine has, and which one new ciphers get. */
#ifndef QLUKS_CRYPTO_AES_ENGINE_HPP
#define QLUKS_CRYPTO_AES_ENGINE_HPP

#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace qluks {

/* Names of the AES kernels that run on this CPU and have passed their self-test, best first. */
std::vector<std::string_view> available_engines();

/* "auto" or a name; anything else is an error that lists the available ones.  Call before any cipher is made. */
Status choose_engine(std::string_view name);

/* The kernel that a new cipher would get; "none" when no kernel passes its self-test. */
std::string_view chosen_engine();

} // namespace qluks

#endif
