/* SPDX-License-Identifier: BSD-3-Clause */
/* Storage that gives another answer each time: bits flip, and two images change places from one read to the next.
 *
 * Nothing crashes and nothing is read out of range; a header is read once, so that what is opened is one image or the
 * other or is refused.  QLUKS_SEEDS sets how many different sequences of lies are told. */
#include <gtest/gtest.h>

#include <cstdlib>
#include <random>

#include "base/checked.hpp"
#include "tests/support/luks_builder.hpp"
#include "tests/support/stored_image.hpp"

namespace qluks {
namespace {

using test::Content;
using test::OpenedImage;
using test::StoredImage;

struct Read {
  uint64_t offset;
  size_t length;
};

/* A file as long as the longer one of two, whose bytes come from either. */
class LyingDevice final : public BlockDevice {
 public:
  struct Lies {
    bool swap = false;
    bool flip = false;
    std::optional<uint64_t> size = {}; /* instead of its own */
  };

  LyingDevice(const Content& a, const Content& b, const Lies& lies, std::mt19937_64& random)
      : files_{&a, &b}, lies_(lies), random_(random), size_(lies.size.value_or(std::max(a.size(), b.size()))) {}

  uint64_t size() const noexcept override { return size_; }
  Limits limits() const noexcept override { return {}; }

  Status read(std::span<std::byte> dst, uint64_t offset) override {
    if (!range_fits(offset, dst.size(), size_) || dst.empty()) throw std::logic_error("read out of bounds");
    reads.push_back({offset, dst.size()});
    const Content& file = *files_[lies_.swap && random_() % 2 != 0];
    const uint64_t present = offset < file.size() ? std::min<uint64_t>(dst.size(), file.size() - offset) : 0;
    std::fill(dst.begin(), dst.end(), std::byte{0});
    std::copy_n(file.begin() + static_cast<ptrdiff_t>(present != 0 ? offset : 0), present, dst.begin());
    if (lies_.flip && random_() % 4 == 0) dst[random_() % dst.size()] ^= static_cast<std::byte>(1U << random_() % 8);
    return ok();
  }

  Result<Extent> extent(uint64_t offset, uint64_t max) override {
    if (!range_fits(offset, max, size_) || max == 0) throw std::logic_error("extent out of bounds");
    return Extent{.length = 1 + random_() % max, .hole = random_() % 2 == 0, .zero = random_() % 2 == 0};
  }

  std::vector<Read> reads;

 private:
  const Content* files_[2];
  Lies lies_;
  std::mt19937_64& random_;
  uint64_t size_;
};

/* What a client sees of an image. */
using Identity = std::pair<std::string, uint64_t>;

class LyingStorage : public ::testing::Test {
 protected:
  LyingStorage() {
    keyring_.add_secret(test::secret_of(test::stored_image_secret));
    keyring_.set_kdf_limits({.seconds = 1}); /* a bit of an iteration count may flip */
  }

  static size_t seeds() {
    const char* given = std::getenv("QLUKS_SEEDS");
    return given != nullptr ? std::strtoull(given, nullptr, 10) : 3000;
  }

  static const std::vector<StoredImage>& images() {
    static const std::vector<StoredImage> all = test::stored_images();
    return all;
  }

  /* The files of `image`, each with one of `other` behind it. */
  StoredImage::Devices devices(const StoredImage& image, const StoredImage& other, const LyingDevice::Lies& lies) {
    StoredImage::Devices devices;
    for (size_t i = 0; i < image.files.size(); ++i) {
      const Content& second = other.files[std::min(i, other.files.size() - 1)];
      devices.push_back(std::make_unique<LyingDevice>(image.files[i], second, lies, random_));
    }
    return devices;
  }

  Result<Identity> identity(const StoredImage& image, const StoredImage& other, const LyingDevice::Lies& lies) {
    const auto files = devices(image, other, lies);
    OpenedImage opened(*files[0]);
    if (Status s = image.open(opened, files, keyring_); !s) return propagate(s);
    return Identity{opened.describe(), opened.disk().size()};
  }

  /* Every call, wherever it leads. */
  void look_around(const StoredImage& image, const StoredImage& other, const LyingDevice::Lies& lies) {
    const auto files = devices(image, other, lies);
    OpenedImage opened(*files[0]);
    if (const Status s = image.open(opened, files, keyring_); !s) {
      EXPECT_FALSE(s.error().what.empty());
      return;
    }
    BlockDevice& disk = opened.disk();
    if (disk.size() == 0) return;
    for (int i = 0; i < 8; ++i) {
      const uint64_t at = random_() % disk.size();
      std::array<std::byte, 20000> bytes;
      const auto length = std::min<uint64_t>(1 + random_() % bytes.size(), disk.size() - at);
      (void)bool(disk.read(std::span(bytes).first(static_cast<size_t>(length)), at));
      const auto extent = disk.extent(at, length);
      if (extent) {
        EXPECT_GT(extent->length, 0U);
        EXPECT_LE(extent->length, length);
      }
      (void)bool(disk.cache(at, length));
    }
  }

  std::mt19937_64 random_;
  Keyring keyring_;
};

TEST_F(LyingStorage, IsOpenedSomehowOrRefused) {
  for (uint64_t seed = 0; seed < seeds() && !HasFailure(); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    random_.seed(seed);
    const StoredImage& image = images()[random_() % images().size()];
    const StoredImage& other = images()[random_() % images().size()];
    LyingDevice::Lies lies{.swap = random_() % 2 == 0, .flip = random_() % 2 == 0};
    if (random_() % 4 == 0) lies.size = random_() % (2 * image.files[0].size());
    look_around(image, other, lies);
  }
  std::printf("%zu seeds\n", seeds());
}

TEST_F(LyingStorage, NoImageIsMadeOfTwo) {
  const size_t count = images().size();
  size_t pairs = 0;
  size_t opened = 0;
  for (size_t i = 0; i < count * count; ++i) {
    const StoredImage& a = images()[i / count];
    const StoredImage& b = images()[i % count];
    if (a.files.size() != b.files.size()) continue;
    const auto as_a = identity(a, b, {});
    ASSERT_TRUE(as_a) << a.name;
    /* Is the other one an image of that kind as well? */
    const auto as_b = identity({a.name, b.files, b.guest, a.open}, a, {});
    if (!as_b || *as_a == *as_b) continue;
    ++pairs;
    for (uint64_t seed = 0; seed < seeds() / 50 && !HasFailure(); ++seed) {
      SCOPED_TRACE(a.name + " and " + b.name + ", seed " + std::to_string(seed));
      random_.seed(seed);
      const auto found = identity(a, b, {.swap = true});
      if (!found) continue;
      ++opened;
      EXPECT_TRUE(*found == *as_a || *found == *as_b) << found->first << " of " << found->second << " bytes";
    }
  }
  EXPECT_GT(pairs, 20U);
  EXPECT_GT(opened, pairs);
  std::printf("%zu pairs of images, %zu times opened\n", pairs, opened);
}

/* But for the magic, which probing looks at before. */
TEST_F(LyingStorage, HeaderIsReadOnce) {
  for (const StoredImage& image : images()) {
    /* Each of the nine places is looked at before; a checksum over all of the copy vouches for the last read. */
    if (image.name == "LUKS2, secondary header") continue;
    const auto files = devices(image, image, {});
    OpenedImage opened(*files[0]);
    ASSERT_TRUE(image.open(opened, files, keyring_));
    for (size_t i = 0; i < files.size(); ++i) {
      const std::string_view magic(reinterpret_cast<const char*>(image.files[i].data()), 4);
      if (magic != "LUKS" && magic != "QFI\xfb") continue;
      const auto& reads = static_cast<const LyingDevice&>(*files[i]).reads;
      const auto of_header = [](const Read& read) { return read.offset < 592 && read.offset + read.length > 8; };
      EXPECT_EQ(std::count_if(reads.begin(), reads.end(), of_header), 1) << image.name << ", file " << i;
    }
  }
}

} // namespace
} // namespace qluks
