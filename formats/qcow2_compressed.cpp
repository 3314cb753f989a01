/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/qcow2_compressed.hpp"

#include <libdeflate.h>
#define ZLIB_CONST /* next_in points to what is only read */
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <mutex>
#include <new>
#include <vector>

#include "base/window.hpp"
#include "formats/text.hpp"

namespace qluks {

namespace {

/* Contexts of a library that are dear to make.  There are as many as threads have used at once. */
template <class T, T* (*make)(), auto destroy>
class ContextPool {
  struct Destroy {
    void operator()(T* context) const noexcept { destroy(context); }
  };
  using Context = std::unique_ptr<T, Destroy>;

 public:
  /* One that is the caller's for as long as it is held. */
  class Lease {
   public:
    explicit Lease(ContextPool& pool) : pool_(pool), context_(pool.take()) {}
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    ~Lease() { pool_.give_back(std::move(context_)); }
    T* get() const noexcept { return context_.get(); }

   private:
    ContextPool& pool_;
    Context context_;
  };

 private:
  Context take() {
    {
      const std::lock_guard lock(mutex_);
      if (!idle_.empty()) {
        Context context = std::move(idle_.back());
        idle_.pop_back();
        return context;
      }
    }
    Context context(make());
    if (context == nullptr) throw std::bad_alloc();
    return context;
  }

  void give_back(Context context) noexcept {
    const std::lock_guard lock(mutex_);
    if (idle_.size() < idle_.capacity()) idle_.push_back(std::move(context));
  }

  static constexpr size_t idle_max = 16; /* the threads of an nbdkit connection */

  std::mutex mutex_;
  std::vector<Context> idle_ = [] {
    std::vector<Context> empty;
    empty.reserve(idle_max); /* so that giving back never allocates */
    return empty;
  }();
};

/* libdeflate is several times as fast and wants a whole stream; zlib takes what QEMU takes: a stream that is longer
 * than the cluster, or that lacks its end but has filled the cluster. */
class DeflateDecompressor final : public Decompressor {
 public:
  Status decompress(std::span<const std::byte> in, std::span<std::byte> out) override {
    if (whole_stream(in, out) || stream_that_fills(in, out)) return ok();
    return fail(Errc::corrupt, "not a deflate stream of one cluster");
  }

 private:
  bool whole_stream(std::span<const std::byte> in, std::span<std::byte> out) {
    const Contexts::Lease context(contexts_);
    size_t consumed = 0; /* asked for, so that junk behind the stream is legal */
    return libdeflate_deflate_decompress_ex(context.get(), in.data(), in.size(), out.data(), out.size(), &consumed,
                                            nullptr) == LIBDEFLATE_SUCCESS;
  }

  static bool stream_that_fills(std::span<const std::byte> in, std::span<std::byte> out) {
    z_stream stream{};
    if (inflateInit2(&stream, -MAX_WBITS) != Z_OK) throw std::bad_alloc();
    stream.next_in = reinterpret_cast<const Bytef*>(in.data());
    stream.avail_in = static_cast<uInt>(in.size());
    stream.next_out = reinterpret_cast<Bytef*>(out.data());
    stream.avail_out = static_cast<uInt>(out.size());
    const int result = inflate(&stream, Z_FINISH);
    const bool filled = (result == Z_STREAM_END || result == Z_BUF_ERROR) && stream.avail_out == 0;
    inflateEnd(&stream);
    return filled;
  }

  using Contexts = ContextPool<libdeflate_decompressor, libdeflate_alloc_decompressor, libdeflate_free_decompressor>;
  Contexts contexts_;
};

/* Frame by frame into the output, which serves as the window: a frame that asks for a large one costs no memory. */
class ZstdDecompressor final : public Decompressor {
 public:
  Status decompress(std::span<const std::byte> in, std::span<std::byte> out) override {
    const Contexts::Lease context(contexts_);
    while (!out.empty()) {
      if (!starts_frame(in)) return fail(Errc::corrupt, "not zstd frames of one cluster: no magic");
      const size_t frame = ZSTD_findFrameCompressedSize(in.data(), in.size());
      if (ZSTD_isError(frame) != 0) return refuse(frame);
      const size_t written = ZSTD_decompressDCtx(context.get(), out.data(), out.size(), in.data(), frame);
      if (ZSTD_isError(written) != 0) return refuse(written);
      in = in.subspan(frame);
      out = out.subspan(written);
    }
    return ok();
  }

 private:
  /* The library may also know formats from before RFC 8878, whose decoders nobody has looked at for years. */
  static bool starts_frame(std::span<const std::byte> in) noexcept {
    if (in.size() < 4) return false;
    const auto byte = [&](size_t i) { return std::to_integer<uint32_t>(in[i]); };
    const uint32_t magic = byte(0) | byte(1) << 8 | byte(2) << 16 | byte(3) << 24;
    return magic == ZSTD_MAGICNUMBER || (magic & ZSTD_MAGIC_SKIPPABLE_MASK) == ZSTD_MAGIC_SKIPPABLE_START;
  }

  static tl::unexpected<Error> refuse(size_t error) {
    return fail(Errc::corrupt, std::string("not zstd frames of one cluster: ") + ZSTD_getErrorName(error));
  }

  using Contexts = ContextPool<ZSTD_DCtx, ZSTD_createDCtx, ZSTD_freeDCtx>;
  Contexts contexts_;
};

} // namespace

std::unique_ptr<Decompressor> make_decompressor(Qcow2Compression type) {
  if (type == Qcow2Compression::zstd) return std::make_unique<ZstdDecompressor>();
  return std::make_unique<DeflateDecompressor>();
}

CompressedClusters::CompressedClusters(const Qcow2Header& header, std::shared_ptr<Qcow2Cache> cache)
    : cluster_size_(static_cast<size_t>(header.cluster_size())),
      decompressor_(make_decompressor(header.compression)),
      cache_(std::move(cache)),
      owner_(cache_->new_owner()) {}

Status CompressedClusters::read(BlockDevice& container, const Compressed& cluster, uint64_t in_cluster,
                                std::span<std::byte> dst) const {
  if (dst.size() == cluster_size_) return decompress(container, cluster, dst);
  auto whole = cache_->get({.owner = owner_, .at = cluster.at.bytes}, cluster_size_,
                           [&](std::span<std::byte> out) { return decompress(container, cluster, out); });
  if (!whole) return propagate(whole);
  std::copy_n(whole->get() + in_cluster, dst.size(), dst.begin());
  return ok();
}

Status CompressedClusters::decompress(BlockDevice& container, const Compressed& cluster,
                                      std::span<std::byte> out) const {
  const auto in = std::make_unique_for_overwrite<std::byte[]>(cluster.bytes_max);
  /* The last sector may lie beyond the end of the file. */
  if (Status s = read_zero_padded(container, {in.get(), cluster.bytes_max}, cluster.at.bytes); !s) return s;
  Status s = decompressor_->decompress({in.get(), cluster.bytes_max}, out);
  if (!s) return propagate(s, "compressed cluster at " + hex(cluster.at.bytes));
  return s;
}

} // namespace qluks
