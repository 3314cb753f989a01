/* SPDX-License-Identifier: BSD-3-Clause */
#include "plugin/image_lock.hpp"

#include <fcntl.h>

#include <cerrno>

#include "base/system_message.hpp"

namespace qluks {

namespace {

constexpr off_t used = 100;
constexpr off_t denied = 200;
constexpr const char* names[] = {"consistent read", "write", "write unchanged", "resize"};
constexpr unsigned permissions = 4;

/* Bit n: permission n. */
constexpr unsigned uses[] = {0b0001, 0b0011, 0b1011}; /* by ImageUse */
constexpr unsigned not_for_others = 0b1010;           /* the tables must not change under us */

flock lock_of(short type, off_t byte) {
  flock lock{};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = byte;
  lock.l_len = 1;
  return lock;
}

tl::unexpected<Error> system_error(const std::string& path) {
  const int err = errno;
  return fail(Errc::io, path + ": cannot lock: " + system_message(err), err);
}

Status take(int fd, const std::string& path, off_t first, unsigned bits) {
  for (unsigned n = 0; n < permissions; ++n) {
    flock lock = lock_of(F_RDLCK, first + static_cast<off_t>(n));
    if ((bits >> n & 1) != 0 && fcntl(fd, F_OFD_SETLK, &lock) != 0) return system_error(path);
  }
  return ok();
}

/* Has another one a lock on one of these bytes? */
Status check(int fd, const std::string& path, off_t first, unsigned bits) {
  for (unsigned n = 0; n < permissions; ++n) {
    if ((bits >> n & 1) == 0) continue;
    flock lock = lock_of(F_WRLCK, first + static_cast<off_t>(n));
    if (fcntl(fd, F_OFD_GETLK, &lock) != 0) return system_error(path);
    if (lock.l_type == F_UNLCK) continue;
    const std::string what = first == used ? " uses \"" : " does not allow \"";
    return fail(Errc::unsupported, path + " is locked: another program" + what + names[n] + "\"", EBUSY);
  }
  return ok();
}

} // namespace

void unlock_image(int fd) noexcept {
  flock lock = lock_of(F_UNLCK, used);
  lock.l_len = denied + permissions - used;
  fcntl(fd, F_OFD_SETLK, &lock);
}

Status lock_image(int fd, const std::string& path, ImageUse use) {
  const unsigned permissions_used = uses[static_cast<size_t>(use)];
  Status s = take(fd, path, used, permissions_used);
  if (s) s = take(fd, path, denied, not_for_others);
  if (s) s = check(fd, path, denied, permissions_used);
  if (s) s = check(fd, path, used, not_for_others);
  if (!s) unlock_image(fd);
  return s;
}

} // namespace qluks
