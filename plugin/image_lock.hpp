/* SPDX-License-Identifier: BSD-3-Clause */
/* QEMU's locks on image files: whoever uses an image in one way says so, and says what others must not do meanwhile.
 *
 *      byte 100 + n    "I use permission n"                n: 0 consistent read, 1 write, 2 write unchanged, 3 resize
 *      byte 200 + n    "nobody else may have permission n"
 *
 * The locks are shared ones (OFD), so that any number may say the same; that nobody contradicts is found by asking
 * whether an exclusive one could be had.
 */
#ifndef QLUKS_PLUGIN_IMAGE_LOCK_HPP
#define QLUKS_PLUGIN_IMAGE_LOCK_HPP

#include <cstdint>
#include <string>

#include "base/result.hpp"

namespace qluks {

enum class ImageUse : uint8_t { read, write, write_and_resize };

/* Lock the open file for that use, until it is unlocked or closed.  Fails, naming the permission, if another program is
 * in the way. */
Status lock_image(int fd, const std::string& path, ImageUse use);

void unlock_image(int fd) noexcept;

} // namespace qluks

#endif
