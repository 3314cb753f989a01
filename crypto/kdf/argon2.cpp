/* SPDX-License-Identifier: BSD-3-Clause */
/* Argon2 by libargon2, with its memory on huge pages: filling a gigabyte through 4 KiB pages spends a large part of
 * its time in page faults and TLB misses.
 *
 * The memory is not locked (it is larger than any usual RLIMIT_MEMLOCK).  libargon2 overwrites it before it calls
 * free_arena, and it is left out of core dumps.
 *
 * libargon2 cannot be interrupted.  So it runs on a thread of its own, which is left to itself when the process has to
 * end in the meantime.  All that it uses is in an Argon2Run that it shares; its code has to stay mapped until the
 * process is gone, for which the filter is linked with -z nodelete.
 */
#include <argon2.h>
#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <latch>
#include <memory>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>
#include <vector>

#include "base/secure_buffer.hpp"
#include "base/shutdown.hpp"
#include "crypto/kdf/pbkdf.hpp"

namespace qluks {

namespace {

/* What the derivation on this thread works in; null: nothing, or given back. */
struct Arena {
  void* memory = nullptr;
  size_t bytes = 0;
};
thread_local Arena arena;

extern "C" int allocate_arena(uint8_t** memory, size_t bytes) {
  void* mapped = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return ARGON2_MEMORY_ALLOCATION_ERROR;
  /* Both are advice: without them the result is the same. */
  madvise(mapped, bytes, MADV_HUGEPAGE);
  madvise(mapped, bytes, MADV_DONTDUMP);
  arena = {mapped, bytes};
  *memory = static_cast<uint8_t*>(mapped);
  return ARGON2_OK;
}

extern "C" void free_arena(uint8_t* memory, size_t bytes) {
  munmap(memory, bytes);
  arena = {};
}

/* libargon2 forgets the arena when it fails later than that.  If it was for a thread that it could not start, others
 * may still be writing. */
void free_forgotten_arena(int code) noexcept {
  if (arena.memory != nullptr && code != ARGON2_THREAD_FAIL) munmap(arena.memory, arena.bytes);
  arena = {};
}

/* Does the system have that many threads for us?  When it has not, the library of before 2019 does not wait for those
 * that it has started, and they go on with what is gone.  So it is made to start some only if there are some. */
bool can_start_threads(uint32_t count) noexcept {
  std::latch all_started(1);
  std::vector<std::thread> threads;
  bool enough = true;
  try {
    threads.reserve(count);
    while (threads.size() < count) threads.emplace_back([&all_started] { all_started.wait(); });
  } catch (...) {
    enough = false;
  }
  all_started.count_down();
  for (std::thread& thread : threads) thread.join();
  return enough;
}

/* Threads only share out the lanes: more of them than CPUs would cost memory and give nothing. */
uint32_t threads_for(uint32_t lanes) noexcept {
  const uint32_t wanted = std::clamp(lanes, 1U, std::max(1U, std::thread::hardware_concurrency()));
  return wanted == 1 || can_start_threads(wanted) ? wanted : 1;
}

/* One derivation, which may outlive whoever wanted it. */
struct Argon2Run {
  Argon2Run(Argon2Type type_, Bytes secret_, Bytes salt_, const Argon2Cost& cost_, size_t out_bytes)
      : type(type_),
        cost(cost_),
        secret(SecureBuffer::copy_of(secret_)),
        salt(salt_.begin(), salt_.end()),
        out(out_bytes) {}

  const Argon2Type type;
  const Argon2Cost cost;
  SecureBuffer secret;
  std::vector<std::byte> salt;
  SecureBuffer out;

  std::mutex mutex; /* guards what follows */
  std::condition_variable ended;
  std::optional<int> code; /* libargon2's, when it has ended */
};

uint8_t* octets(std::byte* bytes) noexcept { return reinterpret_cast<uint8_t*>(bytes); }

int derive(Argon2Run& run) noexcept {
  argon2_context context{};
  context.out = octets(run.out.data());
  context.outlen = static_cast<uint32_t>(run.out.size());
  context.pwd = octets(run.secret.data());
  context.pwdlen = static_cast<uint32_t>(run.secret.size());
  context.salt = octets(run.salt.data());
  context.saltlen = static_cast<uint32_t>(run.salt.size());
  context.t_cost = run.cost.time;
  context.m_cost = run.cost.memory_kib;
  context.lanes = run.cost.lanes;
  context.threads = threads_for(run.cost.lanes);
  context.version = ARGON2_VERSION_13;
  context.allocate_cbk = allocate_arena;
  context.free_cbk = free_arena;
  context.flags = ARGON2_DEFAULT_FLAGS;
  const int code = argon2_ctx(&context, run.type == Argon2Type::i ? Argon2_i : Argon2_id);
  free_forgotten_arena(code);
  return code;
}

void derive_and_tell(const std::shared_ptr<Argon2Run>& run) noexcept {
  const int code = derive(*run);
  const std::lock_guard lock(run->mutex);
  run->code = code;
  run->ended.notify_one();
}

/* libargon2's code; nullopt if the process has to end first. */
std::optional<int> wait_for_end(Argon2Run& run) {
  constexpr auto pause = std::chrono::milliseconds(100);
  std::unique_lock lock(run.mutex);
  while (!run.ended.wait_for(lock, pause, [&run] { return run.code.has_value(); })) {
    if (shutting_down()) return std::nullopt;
  }
  return run.code;
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
  const auto run = std::make_shared<Argon2Run>(type, secret, salt, cost, out.size());
  std::thread thread;
  try {
    thread = std::thread(derive_and_tell, run);
  } catch (const std::system_error&) {
    return argon2_status(ARGON2_THREAD_FAIL);
  }
  const std::optional<int> code = wait_for_end(*run);
  if (!code) {
    thread.detach();
    return given_up();
  }
  thread.join();
  std::copy_n(run->out.data(), out.size(), out.data());
  return argon2_status(*code);
}

} // namespace qluks
