/* SPDX-License-Identifier: BSD-3-Clause */
/* Every layer at once, from many threads, with a cache that holds next to nothing: for ThreadSanitizer, and for answers
 * that are wrong. */
#include <gtest/gtest.h>

#include <functional>
#include <random>
#include <thread>

#include "formats/luks/keyring.hpp"
#include "formats/luks/layer.hpp"
#include "formats/qcow2/layer.hpp"
#include "tests/support/luks_builder.hpp"
#include "tests/support/qcow2_image.hpp"
#include "tests/support/stored_image.hpp"
#include "tests/support/streams.hpp"

namespace qluks {
namespace {

using Bytes = std::vector<std::byte>;
using test::Qcow2Image;

constexpr int threads_count = 8;

/* Unlike MemoryDevice it takes no lock, which would order the threads and hide a race. */
class BytesDevice final : public BlockDevice {
 public:
  explicit BytesDevice(const Bytes& bytes) : bytes_(bytes) {}
  uint64_t size() const noexcept override { return bytes_.size(); }
  Limits limits() const noexcept override { return {}; }
  Status read(std::span<std::byte> dst, uint64_t offset) override {
    if (!range_fits(offset, dst.size(), bytes_.size())) throw std::logic_error("read out of bounds");
    std::copy_n(bytes_.begin() + static_cast<ptrdiff_t>(offset), dst.size(), dst.begin());
    return ok();
  }
  Result<Extent> extent(uint64_t /*offset*/, uint64_t max) override { return Extent{.length = max}; }

 private:
  const Bytes& bytes_;
};

/* An image that some connections have open. */
struct Opened {
  std::vector<std::unique_ptr<Format>> formats;
};

/* One connection's layers. */
class View {
 public:
  View(const Bytes& image, const Opened& opened) : device_(image) {
    for (const auto& format : opened.formats) layers_.push_back(format->stack_on(top()));
  }
  BlockDevice& top() { return layers_.empty() ? device_ : *layers_.back(); }

 private:
  BytesDevice device_;
  std::vector<std::unique_ptr<BlockDevice>> layers_;
};

/* What all images of a server share. */
struct Shared {
  Keyring keyring;
  std::shared_ptr<Qcow2Cache> cache = std::make_shared<Qcow2Cache>(2048);
};

using OpenLayer = std::function<Result<std::unique_ptr<Format>>(BlockDevice&, Shared&)>;

Result<std::unique_ptr<Format>> open_qcow2_layer(BlockDevice& device, Shared& shared) {
  auto format = open_qcow2(device, shared.keyring, {.cache = shared.cache});
  if (!format) return propagate(format);
  return std::unique_ptr<Format>(std::move(*format));
}

Result<std::unique_ptr<Format>> open_luks_layer(BlockDevice& device, Shared& shared) {
  return open_luks(device, shared.keyring);
}

struct Sample {
  Bytes image;
  Bytes guest;
  std::vector<OpenLayer> layers; /* from the stored bytes upward */

  std::shared_ptr<Opened> open(Shared& shared) const {
    auto opened = std::make_shared<Opened>();
    for (const OpenLayer& layer : layers) {
      View below(image, *opened);
      auto format = layer(below.top(), shared);
      if (!format) throw std::runtime_error(format.error().what);
      opened->formats.push_back(std::move(*format));
    }
    return opened;
  }
};

/* Clusters of 4 KiB in turn as they are, compressed, and left out if they are zero. */
Bytes qcow2_image_of(const Bytes& guest) {
  constexpr unsigned cluster_bits = 12;
  constexpr size_t cluster = size_t{1} << cluster_bits;
  Qcow2Image image({.size = guest.size(), .cluster_bits = cluster_bits});
  for (size_t i = 0; i * cluster < guest.size(); ++i) {
    const auto at = guest.begin() + static_cast<ptrdiff_t>(i * cluster);
    const Bytes content(at, at + cluster);
    image.set_l2(i, 0);
    if (content == Bytes(cluster)) continue;
    const Bytes stored = i % 2 == 0 ? content : test::deflated(content);
    const uint64_t offset = image.add_cluster(0);
    if (stored.size() > cluster) image.add_cluster(0);
    std::copy(stored.begin(), stored.end(), image.bytes().begin() + static_cast<ptrdiff_t>(offset));
    const uint64_t more_sectors = (stored.size() - 1) / 512;
    image.set_l2(i, i % 2 == 0 ? offset | uint64_t{1} << 63
                               : Qcow2Image::compressed_flag | more_sectors << (62 - (cluster_bits - 8)) | offset);
  }
  return image.bytes();
}

Bytes sparse_pattern(size_t size) {
  Bytes bytes = test::MemoryDevice::pattern(size);
  for (size_t at = 0; at + 65536 <= size; at += 3 * 65536) {
    std::fill_n(bytes.begin() + static_cast<ptrdiff_t>(at), 65536, std::byte{0});
  }
  return bytes;
}

std::vector<Sample> make_samples() {
  std::vector<Sample> samples;
  const Bytes guest = sparse_pattern(4 << 20);
  samples.push_back({qcow2_image_of(guest), guest, {open_qcow2_layer}});
  auto luks1 = test::make_luks1({.secrets = {"one"}, .payload_bytes = 512 << 10});
  samples.push_back({luks1.image(), luks1.plain, {open_luks_layer}});
  samples.push_back({qcow2_image_of(luks1.image()), luks1.plain, {open_qcow2_layer, open_luks_layer}});
  auto luks2 = test::make_luks2({.sector_size = 4096, .slots = {{"two", true}}, .payload_bytes = 512 << 10});
  samples.push_back({luks2.image(), luks2.plain, {open_luks_layer}});
  auto essiv = test::make_luks2({.cipher = "aes-cbc-essiv:sha256", .slots = {{"one"}}, .payload_bytes = 512 << 10});
  samples.push_back({essiv.image(), essiv.plain, {open_luks_layer}});
  return samples;
}

/* As plugin/image.hpp does it: the first opens, the last one to go takes it along. */
class Registry {
 public:
  explicit Registry(const Sample& sample) : sample_(sample) {}

  std::shared_ptr<Opened> get(Shared& shared) {
    const std::lock_guard lock(mutex_);
    auto opened = known_.lock();
    if (!opened) known_ = opened = sample_.open(shared);
    return opened;
  }

 private:
  const Sample& sample_;
  std::mutex mutex_;
  std::weak_ptr<Opened> known_;
};

void expect_same(BlockDevice& disk, const Bytes& guest, uint64_t offset, size_t length) {
  Bytes out(length);
  const Status s = disk.read(out, offset);
  ASSERT_TRUE(s) << s.error().what;
  ASSERT_TRUE(std::equal(out.begin(), out.end(), guest.begin() + static_cast<ptrdiff_t>(offset))) << offset;
}

/* A connection from its beginning to its end. */
void serve(const Sample& sample, const Opened& opened, std::mt19937& random) {
  View view(sample.image, opened);
  BlockDevice& disk = view.top();
  ASSERT_EQ(disk.size(), sample.guest.size());
  for (int i = 0; i < 10; ++i) {
    const uint64_t offset = random() % disk.size();
    const size_t left = static_cast<size_t>(disk.size() - offset);
    expect_same(disk, sample.guest, offset, std::min<size_t>(left, 1 + random() % (i == 0 ? 200000 : 5000)));
    const auto extent = disk.extent(offset, left);
    ASSERT_TRUE(extent) << extent.error().what;
    ASSERT_TRUE(extent->length > 0 && extent->length <= left);
    ASSERT_TRUE(!extent->zero || sample.guest[offset] == std::byte{0});
  }
}

void run_threads(const std::function<void(std::mt19937& random)>& body) {
  std::vector<std::thread> threads;
  for (unsigned seed = 0; seed < threads_count; ++seed) {
    threads.emplace_back([&body, seed] {
      std::mt19937 random(seed);
      body(random);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

void add_secrets(Keyring& keyring) {
  for (const char* secret : {"wrong", "one", "two"}) keyring.add_secret(test::secret_of(secret));
}

TEST(Threads, ManyConnectionsToManyImagesThatComeAndGo) {
  const std::vector<Sample> samples = make_samples();
  Shared shared;
  add_secrets(shared.keyring);
  std::vector<std::unique_ptr<Registry>> registries;
  for (const Sample& sample : samples) registries.push_back(std::make_unique<Registry>(sample));
  run_threads([&](std::mt19937& random) {
    for (int i = 0; i < 40; ++i) {
      const size_t which = random() % samples.size();
      serve(samples[which], *registries[which]->get(shared), random);
    }
  });
}

void open_and_read(const test::StoredImage& image, Keyring& keyring, std::mt19937& random) {
  test::StoredImage::Devices devices;
  for (const Bytes& file : image.files) devices.push_back(std::make_unique<BytesDevice>(file));
  test::OpenedImage opened(*devices.front());
  const Status s = image.open(opened, devices, keyring);
  ASSERT_TRUE(s) << image.name << ": " << s.error().what;
  for (int i = 0; i < 5; ++i) {
    const size_t offset = random() % image.guest.size();
    expect_same(opened.disk(), image.guest, offset, std::min(image.guest.size() - offset, size_t{1} + random() % 9000));
  }
}

TEST(Threads, EveryOneOpensImagesOfEveryKind) {
  const std::vector<test::StoredImage> images = test::stored_images();
  for (int i = 0; i < 4; ++i) {
    Keyring keyring; // nothing is unlocked yet
    keyring.add_secret(test::secret_of(test::stored_image_secret));
    run_threads([&](std::mt19937& random) {
      for (const test::StoredImage& image : images) open_and_read(image, keyring, random);
    });
  }
}

TEST(Threads, OneDetachedHeaderForManyPayloads) {
  const auto volume = test::make_luks2({.payload_bytes = 256 << 10});
  const Bytes image = volume.image();
  BytesDevice device(image);
  Keyring keyring;
  keyring.add_secret(test::secret_of("secret"));
  const auto header = DetachedHeader::open(device, keyring);
  ASSERT_TRUE(header) << header.error().what;
  run_threads([&](std::mt19937&) {
    BytesDevice payload(image);
    const auto format = (*header)->open_payload(payload);
    ASSERT_TRUE(format) << format.error().what;
    expect_same(*(*format)->stack_on(payload), volume.plain, 1000, 100000);
  });
}

} // namespace
} // namespace qluks
