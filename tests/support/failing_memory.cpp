/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/support/failing_memory.hpp"

#include <dlfcn.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <new>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define QLUKS_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define QLUKS_SANITIZED 1
#endif
#endif

namespace {

std::atomic<bool> counting{false};
std::atomic<size_t> calls{0};
std::atomic<size_t> failures{0};
std::atomic<size_t> first_failure{0};
std::atomic<bool> all_from_then_on{false};
std::atomic<size_t> blocks{0};
std::atomic<size_t> mapped_bytes{0};

/* One more call: does it fail? */
bool fails() noexcept {
  if (!counting) return false;
  const size_t call = ++calls;
  const size_t first = first_failure;
  if (first == 0 || (all_from_then_on ? call < first : call != first)) return false;
  ++failures;
  errno = ENOMEM;
  return true;
}

void* counted(void* block) noexcept {
  if (block != nullptr) ++blocks;
  return block;
}

} // namespace

namespace qluks::test {

void fail_memory_at(size_t nth, bool always) noexcept {
  calls = 0;
  failures = 0;
  first_failure = nth;
  all_from_then_on = always;
}

void count_memory(bool on) noexcept { counting = on; }
size_t memory_calls() noexcept { return calls; }
size_t memory_failures() noexcept { return failures; }
MemoryInUse memory_in_use() noexcept { return {blocks, mapped_bytes}; }

} // namespace qluks::test

#ifdef QLUKS_SANITIZED

namespace {

void* allocate(size_t size, size_t alignment) {
  void* block = nullptr;
  if (fails() || posix_memalign(&block, alignment, size) != 0) throw std::bad_alloc();
  return counted(block);
}

void* allocate(size_t size) { return allocate(size, __STDCPP_DEFAULT_NEW_ALIGNMENT__); }

void* allocate_or_null(size_t size) noexcept {
  try {
    return allocate(size);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

void release(void* block) noexcept {
  if (block == nullptr) return;
  --blocks;
  std::free(block);
}

} // namespace

/* All of them: what the sanitizer allocates must not be released here. */
void* operator new(size_t size) { return allocate(size); }
void* operator new[](size_t size) { return allocate(size); }
void* operator new(size_t size, const std::nothrow_t&) noexcept { return allocate_or_null(size); }
void* operator new[](size_t size, const std::nothrow_t&) noexcept { return allocate_or_null(size); }
void* operator new(size_t size, std::align_val_t alignment) { return allocate(size, static_cast<size_t>(alignment)); }
void operator delete(void* block) noexcept { release(block); }
void operator delete[](void* block) noexcept { release(block); }
void operator delete(void* block, size_t) noexcept { release(block); }
void operator delete[](void* block, size_t) noexcept { release(block); }
void operator delete(void* block, std::align_val_t) noexcept { release(block); }
void operator delete(void* block, size_t, std::align_val_t) noexcept { release(block); }

#else

/* glibc's own, under the names that stay free for those who replace them.  Ours are for the libraries as well. */
#pragma GCC visibility push(default)
extern "C" {
void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);
void __libc_free(void*);

void* malloc(size_t size) { return fails() ? nullptr : counted(__libc_malloc(size)); }
void* calloc(size_t n, size_t size) { return fails() ? nullptr : counted(__libc_calloc(n, size)); }
void* memalign(size_t alignment, size_t size) { return fails() ? nullptr : counted(__libc_memalign(alignment, size)); }
void* aligned_alloc(size_t alignment, size_t size) { return memalign(alignment, size); }

void* realloc(void* block, size_t size) {
  if (block == nullptr) return malloc(size);
  return fails() ? nullptr : __libc_realloc(block, size);
}

int posix_memalign(void** block, size_t alignment, size_t size) {
  void* found = memalign(alignment, size);
  if (found == nullptr) return ENOMEM;
  *block = found;
  return 0;
}

void free(void* block) {
  if (block != nullptr) --blocks;
  __libc_free(block);
}

void* mmap(void* address, size_t length, int protection, int flags, int fd, off_t offset) {
  if (fails()) return MAP_FAILED;
  const long at = syscall(SYS_mmap, address, length, protection, flags, fd, offset);
  if (at == -1) return MAP_FAILED;
  mapped_bytes += length;
  return reinterpret_cast<void*>(at);
}

int munmap(void* address, size_t length) {
  mapped_bytes -= length;
  return static_cast<int>(syscall(SYS_munmap, address, length));
}

int mprotect(void* address, size_t length, int protection) {
  return fails() ? -1 : static_cast<int>(syscall(SYS_mprotect, address, length, protection));
}

int mlock(const void* address, size_t length) {
  return fails() ? -1 : static_cast<int>(syscall(SYS_mlock, address, length));
}

int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*start)(void*), void* argument) {
  static const auto real = reinterpret_cast<decltype(&pthread_create)>(dlsym(RTLD_NEXT, "pthread_create"));
  if (fails()) return EAGAIN;
  return real(thread, attributes, start, argument);
}
}
#pragma GCC visibility pop

#endif
