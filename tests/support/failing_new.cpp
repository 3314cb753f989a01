/* SPDX-License-Identifier: BSD-3-Clause */
/* Preloaded into nbdkit: the n-th operator new of the filter fails, and of nothing else.
 *
 * Controlled by the file that QLUKS_FAILING_NEW names, as faulty_plugin.cpp is by its own: calls, fail_at, always,
 * (unused), hits. */
#include <fcntl.h>
#include <link.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

namespace {

using Word = std::atomic<uint64_t>;

struct Control {
  Word calls;
  Word fail_at;
  Word always;
  Word unused;
  Word hits;
};

Control* map_control() {
  const char* path = std::getenv("QLUKS_FAILING_NEW");
  const int fd = path != nullptr ? open(path, O_RDWR | O_CLOEXEC) : -1;
  if (fd < 0) return nullptr;
  void* memory = mmap(nullptr, sizeof(Control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  return memory != MAP_FAILED ? static_cast<Control*>(memory) : nullptr;
}

Control* const control = map_control();

/* Where the code of the filter is; 0 until nbdkit has loaded it. */
std::atomic<uintptr_t> code_start{0};
std::atomic<uintptr_t> code_end{0};

int look_for_filter(dl_phdr_info* info, size_t, void*) {
  if (std::strstr(info->dlpi_name, "qluks-filter") == nullptr) return 0;
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const auto& segment = info->dlpi_phdr[i];
    if (segment.p_type != PT_LOAD || (segment.p_flags & PF_X) == 0) continue;
    code_end = info->dlpi_addr + segment.p_vaddr + segment.p_memsz;
    code_start = info->dlpi_addr + segment.p_vaddr;
  }
  return 1;
}

bool is_from_filter(const void* caller) {
  if (code_start == 0) dl_iterate_phdr(look_for_filter, nullptr);
  const auto at = reinterpret_cast<uintptr_t>(caller);
  return code_start != 0 && at >= code_start && at < code_end;
}

void* allocate(size_t size, const void* caller) {
  if (control != nullptr && is_from_filter(caller)) {
    const uint64_t call = ++control->calls;
    const uint64_t at = control->fail_at;
    if (at != 0 && (control->always != 0 ? call >= at : call == at)) {
      ++control->hits;
      throw std::bad_alloc();
    }
  }
  void* block = std::malloc(size != 0 ? size : 1);
  if (block == nullptr) throw std::bad_alloc();
  return block;
}

} // namespace

void* operator new(size_t size) { return allocate(size, __builtin_return_address(0)); }
void* operator new[](size_t size) { return allocate(size, __builtin_return_address(0)); }
void operator delete(void* block) noexcept { std::free(block); }
void operator delete(void* block, size_t) noexcept { std::free(block); }
void operator delete[](void* block) noexcept { std::free(block); }
void operator delete[](void* block, size_t) noexcept { std::free(block); }
