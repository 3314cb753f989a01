/* SPDX-License-Identifier: BSD-3-Clause */
/* The wall between C++ and nbdkit's C frames.
 *
 * nbdkit aborts when an exception crosses a callback, and when a data callback fails without an error number.  So
 * every callback is one line: a body that returns a Result, inside one of these.
 */
#ifndef QLUKS_PLUGIN_GUARD_HPP
#define QLUKS_PLUGIN_GUARD_HPP

#include <cerrno>
#include <new>
#include <utility>

#include "base/result.hpp"

namespace qluks {

/* The error number that a client gets. */
int errno_of(const Error& error) noexcept;

/* Send the error to nbdkit's log; errors that were reported below stay silent.  Once, unless it names what only the
 * operator may see: then without that a second time, for the client. */
void report(const Error& error) noexcept;

/* An exception other than std::bad_alloc is a bug: say where. */
void report_bug(const char* callback) noexcept;

/* Run a body that returns a Result.  On failure: report it, set `*err` (never to 0) and return `failed`. */
template <class Value, class Body>
Value guard(const char* callback, Value failed, int* err, Body&& body) noexcept {
  try {
    auto result = std::forward<Body>(body)();
    if (result) return static_cast<Value>(*result);
    report(result.error());
    *err = errno_of(result.error());
  } catch (const std::bad_alloc&) {
    report({.code = Errc::no_memory, .what = "out of memory"});
    *err = ENOMEM;
  } catch (...) {
    report_bug(callback);
    *err = EIO;
  }
  return failed;
}

/* For data callbacks, whose bodies return a Status. */
template <class Body>
int guard_data(const char* callback, int* err, Body&& body) noexcept {
  return guard(callback, -1, err, [&]() -> Result<int> {
    Status s = body();
    if (!s) return propagate(s);
    return 0;
  });
}

/* For control callbacks, which have no error number. */
template <class Body>
int guard_control(const char* callback, Body&& body) noexcept {
  int err = 0;
  return guard_data(callback, &err, std::forward<Body>(body));
}

} // namespace qluks

#endif
