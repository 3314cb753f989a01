/* SPDX-License-Identifier: BSD-3-Clause */
/* Argon2 by libargon2, with its memory on huge pages: filling a gigabyte through 4 KiB pages spends a large part of
 * its time in page faults and TLB misses.
 *
 * The memory is not locked (it is larger than any usual RLIMIT_MEMLOCK).  libargon2 overwrites it before it calls
 * free_arena, and it is left out of core dumps.
 */
#include <argon2.h>
#include <sys/mman.h>

#include <algorithm>
#include <thread>

#include "crypto/pbkdf.hpp"

namespace qluks {

namespace {

extern "C" int allocate_arena(uint8_t** memory, size_t bytes) {
  void* arena = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (arena == MAP_FAILED) return ARGON2_MEMORY_ALLOCATION_ERROR;
  /* Both are advice: without them the result is the same. */
  madvise(arena, bytes, MADV_HUGEPAGE);
  madvise(arena, bytes, MADV_DONTDUMP);
  *memory = static_cast<uint8_t*>(arena);
  return ARGON2_OK;
}

extern "C" void free_arena(uint8_t* memory, size_t bytes) { munmap(memory, bytes); }

/* libargon2 never writes to its inputs unless a flag asks for it; its interface has no const. */
uint8_t* input_pointer(Bytes bytes) noexcept {
  return const_cast<uint8_t*>(reinterpret_cast<const uint8_t*>(bytes.data()));
}

Status argon2_status(int code) {
  if (code == ARGON2_OK) return ok();
  const bool memory = code == ARGON2_MEMORY_ALLOCATION_ERROR || code == ARGON2_THREAD_FAIL;
  return fail(memory ? Errc::no_memory : Errc::invalid_format, std::string("argon2: ") + argon2_error_message(code));
}

} // namespace

Status argon2(Argon2Type type, Bytes secret, Bytes salt, const Argon2Cost& cost, std::span<std::byte> out) {
  constexpr size_t length_max = UINT32_MAX;
  if (std::max({secret.size(), salt.size(), out.size()}) > length_max) {
    return fail(Errc::invalid_format, "argon2: an input is longer than 2^32-1 bytes");
  }
  argon2_context context{};
  context.out = reinterpret_cast<uint8_t*>(out.data());
  context.outlen = static_cast<uint32_t>(out.size());
  context.pwd = input_pointer(secret);
  context.pwdlen = static_cast<uint32_t>(secret.size());
  context.salt = input_pointer(salt);
  context.saltlen = static_cast<uint32_t>(salt.size());
  context.t_cost = cost.time;
  context.m_cost = cost.memory_kib;
  context.lanes = cost.lanes;
  /* Threads only share out the lanes: more of them than CPUs would cost memory and give nothing. */
  context.threads = std::clamp(cost.lanes, 1U, std::max(1U, std::thread::hardware_concurrency()));
  context.version = ARGON2_VERSION_13;
  context.allocate_cbk = allocate_arena;
  context.free_cbk = free_arena;
  context.flags = ARGON2_DEFAULT_FLAGS;
  return argon2_status(argon2_ctx(&context, type == Argon2Type::i ? Argon2_i : Argon2_id));
}

} // namespace qluks
