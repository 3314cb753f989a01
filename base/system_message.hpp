/* SPDX-License-Identifier: BSD-3-Clause */
/* An errno in words. */
#ifndef QLUKS_BASE_SYSTEM_MESSAGE_HPP
#define QLUKS_BASE_SYSTEM_MESSAGE_HPP

#include <string>

namespace qluks {

/* Untranslated, and safe for many threads at once, which strerror() is not. */
std::string system_message(int err);

} // namespace qluks

#endif
