/* SPDX-License-Identifier: BSD-3-Clause */
/* A buffer that goes back to the system when it goes.  malloc keeps large blocks in the arena of the thread that
 * freed them: with many threads, several times what is in use. */
#ifndef QLUKS_BASE_PAGE_BUFFER_HPP
#define QLUKS_BASE_PAGE_BUFFER_HPP

#include <sys/mman.h>

#include <cstddef>
#include <memory>
#include <new>

namespace qluks {

/* From here on pages are mapped; below, mapping costs more than it saves. */
constexpr size_t page_buffer_bytes_min = 512 * 1024;

struct PageBufferDeleter {
  size_t length = 0;
  void operator()(std::byte* bytes) const noexcept {
    if (length < page_buffer_bytes_min) {
      delete[] bytes;
    } else {
      munmap(bytes, length);
    }
  }
};

using PageBuffer = std::unique_ptr<std::byte[], PageBufferDeleter>;

/* What it holds is undefined. */
inline PageBuffer make_page_buffer(size_t length) {
  if (length < page_buffer_bytes_min) return PageBuffer(new std::byte[length], {length});
  void* pages = mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (pages == MAP_FAILED) throw std::bad_alloc();
  return PageBuffer(static_cast<std::byte*>(pages), {length});
}

} // namespace qluks

#endif
