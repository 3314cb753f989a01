/* SPDX-License-Identifier: BSD-3-Clause */
/* What a fallible function returns.
 *
 * Expected failures (storage, a bad image, a wrong passphrase) travel as values; exceptions are left to allocation
 * and to bugs, and stop at the plugin's boundary.  The names are those of std::expected, so that this header can
 * become a `using` once the oldest supported compiler has it.
 */
#ifndef QLUKS_BASE_RESULT_HPP
#define QLUKS_BASE_RESULT_HPP

#include <cstdint>
#include <string>
#include <tl/expected.hpp>
#include <utility>
#include <variant>

namespace qluks {

enum class Errc : uint8_t {
  io,               /* the storage below failed */
  invalid_format,   /* not the format it was said to be, or a field is out of its limits */
  unsupported,      /* a feature that is known and not served */
  corrupt,          /* metadata that contradicts itself, found while serving */
  out_of_bounds,    /* a request or a pointer beyond its device */
  wrong_passphrase, /* every secret was tried, none opens it */
  no_memory,
  read_only,
  not_fast,      /* zeroing would take as long as writing, and was asked for only if it does not */
  shutting_down, /* given up half-way */
};

struct Error {
  Errc code;
  int sys = 0;      /* errno from below, 0 if there is none */
  std::string what; /* one line, lower case; empty: whoever failed below has already reported it */
};

template <class T>
class [[nodiscard]] Result : public tl::expected<T, Error> {
 public:
  using tl::expected<T, Error>::expected;
  T& value() = delete; /* throws: test first, then dereference */
};

/* The success path of a Status allocates nothing. */
using Status = Result<std::monostate>;

inline Status ok() { return std::monostate{}; }

/* `return fail(Errc::io, "…");` works for every Result. */
inline tl::unexpected<Error> fail(Errc code, std::string what, int sys = 0) {
  return tl::unexpected<Error>(Error{code, sys, std::move(what)});
}

/* Hand an error on as it is: `if (!r) return propagate(r);` */
template <class T>
tl::unexpected<Error> propagate(Result<T>& r) {
  return tl::unexpected<Error>(std::move(r.error()));
}

/* Hand an error on and say where it happened: "backing file 1: l1_size 5 is …".  An error that has been reported
 * below stays silent. */
template <class T>
tl::unexpected<Error> propagate(Result<T>& r, const std::string& where) {
  Error e = std::move(r.error());
  if (!e.what.empty()) e.what.insert(0, where + ": ");
  return tl::unexpected<Error>(std::move(e));
}

} // namespace qluks

#endif
