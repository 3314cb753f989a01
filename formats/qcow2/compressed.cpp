/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/qcow2/compressed.hpp"

#include <libdeflate.h>
#define ZLIB_CONST /* next_in points to what is only read */
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <mutex>
#include <new>
#include <vector>

#include "base/page_buffer.hpp"
#include "base/window.hpp"
#include "formats/text.hpp"

namespace qluks {

namespace {

/* No read of several streams is longer; the longest stream has two clusters. */
constexpr uint64_t fetch_bytes_max = 2 << 20;

/* Several of the largest clusters at once, of one image: 2 MiB of output and as much input. */
constexpr uint64_t loads_bytes_max = 16 << 20;

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
    inflateEnd(&stream);
    if (result == Z_MEM_ERROR) throw std::bad_alloc();
    return (result == Z_STREAM_END || result == Z_BUF_ERROR) && stream.avail_out == 0;
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
      owner_(cache_->new_owner()),
      loads_(std::make_unique<MemoryBudget>(loads_bytes_max)) {}

Status CompressedClusters::read(BlockDevice& container, std::span<const Part> parts) const {
  while (!parts.empty()) {
    const size_t count = neighbours(parts);
    Status s = count == 0 ? read_from_cache(container, parts[0]) : read_whole(container, parts.first(count));
    if (!s) return s;
    parts = parts.subspan(std::max<size_t>(count, 1));
  }
  return ok();
}

/* How many parts from the first on are whole clusters that one read can fetch without fetching much else. */
size_t CompressedClusters::neighbours(std::span<const Part> parts) const noexcept {
  if (!is_whole(parts[0])) return 0;
  const uint64_t start = parts[0].stream.at.bytes;
  size_t count = 1;
  for (; count < parts.size() && is_whole(parts[count]); ++count) {
    const Compressed& before = parts[count - 1].stream;
    const Compressed& next = parts[count].stream;
    const bool follows = next.at >= before.at && next.at.bytes <= before.at.bytes + before.bytes_max;
    if (!follows || next.at.bytes + next.bytes_max - start > fetch_bytes_max) break;
  }
  return count;
}

Status CompressedClusters::read_whole(BlockDevice& container, std::span<const Part> parts) const {
  const uint64_t start = parts[0].stream.at.bytes;
  uint64_t end = start;
  for (const Part& part : parts) end = std::max(end, part.stream.at.bytes + part.stream.bytes_max);
  const size_t length = static_cast<size_t>(end - start);
  const auto lease = loads_->lease(length);
  if (!lease) return tl::unexpected(lease.error());
  return decompress_whole(container, parts, start, length);
}

/* All parts from what one read of [start, start + length) fetches. */
Status CompressedClusters::decompress_whole(BlockDevice& container, std::span<const Part> parts, uint64_t start,
                                            size_t length) const {
  const PageBuffer fetched = make_page_buffer(length);
  /* The last sector of a stream may lie beyond the end of the file. */
  const uint64_t to_end = container.size() - std::min(container.size(), start);
  const auto in = std::span(fetched.get(), length).first(static_cast<size_t>(std::min<uint64_t>(length, to_end)));
  if (Status s = read_present(container, in, start); !s) return s;
  for (const Part& part : parts) {
    const size_t at = static_cast<size_t>(part.stream.at.bytes - start);
    const auto stream = in.subspan(std::min(at, in.size()));
    Status s =
        decompress_stream(stream.first(std::min<size_t>(stream.size(), part.stream.bytes_max)), part, container.size());
    if (!s) return propagate(s, "guest offset " + hex(part.guest.bytes) + ": compressed cluster at " + hex(start + at));
  }
  return ok();
}

/* A stream that fails and goes past the end of the file most likely fails by that. */
Status CompressedClusters::decompress_stream(std::span<const std::byte> in, const Part& part,
                                             uint64_t container_end) const {
  if (!in.empty()) {
    Status s = decompressor_->decompress(in, part.out);
    if (s || in.size() == part.stream.bytes_max) return s;
  }
  return past_the_end("", part.stream.at.bytes, part.stream.bytes_max, container_end);
}

Status CompressedClusters::read_from_cache(BlockDevice& container, const Part& part) const {
  const uint64_t in_cluster = part.guest.bytes & (cluster_size_ - 1);
  const GuestOffset cluster{part.guest.bytes - in_cluster};
  const Compressed& stream = part.stream;
  const auto decompress = [&](std::span<std::byte> out) -> Status {
    const auto lease = loads_->lease(out.size() + stream.bytes_max);
    if (!lease) return tl::unexpected(lease.error());
    const Part all{stream, cluster, out};
    return decompress_whole(container, {&all, 1}, stream.at.bytes, stream.bytes_max);
  };
  auto whole = cache_->get({.owner = owner_, .at = stream.at.bytes}, cluster_size_, decompress);
  if (!whole) return propagate(whole);
  std::copy_n(whole->get() + in_cluster, part.out.size(), part.out.begin());
  return ok();
}

} // namespace qluks
