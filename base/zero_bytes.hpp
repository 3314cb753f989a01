/* SPDX-License-Identifier: BSD-3-Clause */
/* Zeroes to write, where a device cannot zero by itself. */
#ifndef QLUKS_BASE_ZERO_BYTES_HPP
#define QLUKS_BASE_ZERO_BYTES_HPP

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

#include "base/result.hpp"

namespace qluks {

/* 1 MiB of zeroes.  They are pages that were never written, so they take no memory and little of the cache. */
std::span<const std::byte> zero_bytes();

using WriteFn = std::function<Status(std::span<const std::byte> src, uint64_t offset)>;

/* Write zeroes to [offset, offset + length), in requests that end where a multiple of 1 MiB does.  Given up in between
 * when the process has to end. */
Status write_zero_bytes(uint64_t offset, uint64_t length, const WriteFn& write);

} // namespace qluks

#endif
