/* SPDX-License-Identifier: BSD-3-Clause */
/* Marks for AddressSanitizer: memory that nobody may touch until it is handed out.  Nothing in any other build. */
#ifndef QLUKS_BASE_POISON_HPP
#define QLUKS_BASE_POISON_HPP

/* GCC tells by a macro that the sanitizer is there, clang by a feature. */
#if defined(__SANITIZE_ADDRESS__)
#define QLUKS_ADDRESS_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define QLUKS_ADDRESS_SANITIZER 1
#endif
#endif

#ifdef QLUKS_ADDRESS_SANITIZER
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, size) static_cast<void>(0)
#define ASAN_UNPOISON_MEMORY_REGION(address, size) static_cast<void>(0)
#endif

#endif
