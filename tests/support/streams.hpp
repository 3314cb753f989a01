/* SPDX-License-Identifier: BSD-3-Clause */
/* Compressed clusters as QEMU writes them, and as it does not. */
#ifndef QLUKS_TESTS_SUPPORT_STREAMS_HPP
#define QLUKS_TESTS_SUPPORT_STREAMS_HPP

#define ZLIB_CONST
#include <zlib.h>
#include <zstd.h>

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <vector>

namespace qluks::test {

/* Compressible, and with matches from far away. */
inline std::vector<std::byte> compressible(size_t size) {
  std::vector<std::byte> out(size);
  uint32_t state = 1;
  for (size_t i = 0; i < size; ++i) {
    state = state * 1103515245 + 12345;
    out[i] = i >= 30000 && i % 1000 < 500 ? out[i - 30000] : static_cast<std::byte>(state >> 28);
  }
  return out;
}

inline std::vector<std::byte> deflated(const std::vector<std::byte>& plain, int flush = Z_FINISH,
                                       int window_bits = 12) {
  z_stream stream{};
  if (deflateInit2(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, -window_bits, 9, Z_DEFAULT_STRATEGY) != Z_OK) {
    throw std::logic_error("deflateInit2");
  }
  std::vector<std::byte> out(plain.size() * 2 + 100);
  stream.next_in = reinterpret_cast<const Bytef*>(plain.data());
  stream.avail_in = static_cast<uInt>(plain.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  deflate(&stream, flush);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

inline std::vector<std::byte> zstd_frame(const std::vector<std::byte>& plain, int window_log = 0,
                                         bool checksum = false) {
  ZSTD_CCtx* context = ZSTD_createCCtx();
  ZSTD_CCtx_setParameter(context, ZSTD_c_windowLog, window_log);
  ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, checksum ? 1 : 0);
  if (window_log != 0) ZSTD_CCtx_setParameter(context, ZSTD_c_contentSizeFlag, 0);
  std::vector<std::byte> out(ZSTD_compressBound(plain.size()));
  /* In pieces, so that the library does not know the size and keeps the window. */
  ZSTD_outBuffer to{out.data(), out.size(), 0};
  ZSTD_inBuffer from{plain.data(), plain.size(), 0};
  while (from.pos < from.size) ZSTD_compressStream2(context, &to, &from, ZSTD_e_continue);
  while (ZSTD_compressStream2(context, &to, &from, ZSTD_e_end) != 0) continue;
  ZSTD_freeCCtx(context);
  out.resize(to.pos);
  return out;
}

} // namespace qluks::test

#endif
