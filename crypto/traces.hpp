/* SPDX-License-Identifier: BSD-3-Clause */
/* What computing with a key leaves behind, where no destructor reaches: vector registers, which a core dump shows as
 * well, and the stack frames of functions that have returned, ours and the libraries'. */
#ifndef QLUKS_CRYPTO_TRACES_HPP
#define QLUKS_CRYPTO_TRACES_HPP

#include <algorithm>
#include <cstddef>
#include <span>

#include "base/secure_buffer.hpp"

namespace qluks {

/* Every vector register, as far as this CPU has them.  On x86-64 and AArch64 only. */
void wipe_vector_registers() noexcept;

/* When it goes, it wipes the traces of all that was called since it came, down to that many bytes of stack.  Declare
 * it first, in the function that makes the calls. */
template <size_t StackBytes>
class TraceWiper {
 public:
  TraceWiper() = default;
  TraceWiper(const TraceWiper&) = delete;
  TraceWiper& operator=(const TraceWiper&) = delete;
  __attribute__((always_inline)) ~TraceWiper() {
    wipe_stack();
    wipe_vector_registers();
  }

 private:
  /* For longer pieces, C libraries take an instruction that pays only for much longer ones. */
  static constexpr size_t piece_bytes = 1024;

  /* Its frame lies where those of the calls have been. */
  __attribute__((noinline)) static void wipe_stack() noexcept {
    std::byte frame[StackBytes];
    const std::span<std::byte> all(frame);
    for (size_t at = 0; at < StackBytes; at += piece_bytes)
      wipe(all.subspan(at, std::min(StackBytes - at, piece_bytes)));
  }
};

/* Of turning sectors.  A request of 4 KiB takes 150 ns, so it matters that no more is wiped than is needed: by a kernel
 * of AES for few_bytes at most, in XTS either way or in CBC to decrypt; for more of them in XTS; for more of them in
 * CBC to encrypt; and for all else.  Without optimisation no vector stays in a register. */
#ifdef __OPTIMIZE__
inline constexpr size_t unoptimised_stack_bytes = 0;
#else
inline constexpr size_t unoptimised_stack_bytes = 65536;
#endif
using FewSectorsTraces = TraceWiper<1280 + unoptimised_stack_bytes>;
using XtsTraces = TraceWiper<3584 + unoptimised_stack_bytes>;
using CbcEncryptTraces = TraceWiper<6400 + unoptimised_stack_bytes>;
using RequestTraces = TraceWiper<2048 + unoptimised_stack_bytes>;

/* Of deriving and expanding keys. */
using KeyTraces = TraceWiper<32768>;

} // namespace qluks

#endif
