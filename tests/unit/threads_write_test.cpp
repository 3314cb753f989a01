/* SPDX-License-Identifier: BSD-3-Clause */
/* One encrypted qcow2 that many connections write at once: in place, into free clusters, zeroes, trim, flush, while
 * others open it, with a cache that holds next to nothing.  For ThreadSanitizer, and for bytes that are lost. */
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <random>
#include <thread>

#include "base/checked.hpp"
#include "formats/luks/keyring.hpp"
#include "formats/qcow2/layer.hpp"
#include "tests/support/luks_builder.hpp"
#include "tests/support/qcow2_check.hpp"
#include "tests/support/qcow2_image.hpp"

namespace qluks {
namespace {

using Bytes = std::vector<std::byte>;
using test::Qcow2Image;

constexpr unsigned threads_count = 8;
constexpr unsigned rounds = 60;
constexpr uint64_t cluster = 4096;
constexpr uint64_t shared_clusters = 2;  /* in which each sector has bytes of every thread */
constexpr uint64_t clusters_of_each = 8; /* behind them */
constexpr uint64_t part = 64;            /* of a sector */

/* Storage as the kernel has it: each byte is whole, nothing is in order, no lock is taken that would hide a race. */
class UnorderedStorage final : public BlockDevice {
 public:
  explicit UnorderedStorage(Bytes content) : bytes_(std::move(content)) {}

  uint64_t size() const noexcept override { return bytes_.size(); }
  Limits limits() const noexcept override { return {}; }
  WriteAbilities write_abilities() const noexcept override { return {.write = true, .flush = true, .trim = true}; }

  Status read(std::span<std::byte> dst, uint64_t offset) override {
    check(offset, dst.size());
    for (size_t i = 0; i < dst.size(); ++i) dst[i] = at(offset + i).load(std::memory_order_relaxed);
    std::this_thread::yield();
    return ok();
  }
  Result<Extent> extent(uint64_t /*offset*/, uint64_t max) override { return Extent{.length = max}; }
  Status write(std::span<const std::byte> src, uint64_t offset, Fua /*fua*/) override {
    check(offset, src.size());
    for (size_t i = 0; i < src.size(); ++i) at(offset + i).store(src[i], std::memory_order_relaxed);
    return ok();
  }
  /* What was there is gone at once. */
  Status trim(uint64_t offset, uint64_t length, Fua fua) override {
    return write(Bytes(static_cast<size_t>(length), std::byte{0x99}), offset, fua);
  }
  Status flush() override { return ok(); }

  const Bytes& bytes() const { return bytes_; }

 private:
  void check(uint64_t offset, uint64_t length) const {
    if (!range_fits(offset, length, bytes_.size())) throw std::logic_error("request out of bounds");
  }
  std::atomic_ref<std::byte> at(uint64_t offset) { return std::atomic_ref(bytes_[static_cast<size_t>(offset)]); }

  Bytes bytes_;
};

class ThreadsWrite : public testing::Test {
 protected:
  ThreadsWrite() : storage(encrypted_image()) {
    keyring.add_secret(test::secret_of("secret"));
    auto opened = open_qcow2(storage, keyring, {.cache_bytes = 1});
    format = std::move(*opened);
  }

  static Bytes encrypted_image() {
    Qcow2Image image({.size = (shared_clusters + threads_count * clusters_of_each) * cluster, .cluster_bits = 12});
    image.header().crypt_method = 1; /* AES-CBC, 512-byte sectors */
    for (uint64_t i = 0; i < shared_clusters; ++i) image.set_l2(i, image.add_cluster(0x11));
    Qcow2Image::set_copied(image.bytes());
    image.make_writable(200);
    return image.bytes();
  }

  /* Bytes that only this thread writes, in sectors that all of them do. */
  static void write_parts(BlockDevice& disk, unsigned thread, unsigned round) {
    const Bytes mine(part, static_cast<std::byte>(round + 10 * thread));
    for (uint64_t at = thread * part; at < shared_clusters * cluster; at += 512) {
      ASSERT_TRUE(disk.write(mine, at, Fua::no));
    }
  }

  /* A cluster that nobody else writes becomes this, and is read back. */
  static void change_own(BlockDevice& disk, unsigned thread, std::mt19937& random) {
    const uint64_t at = (shared_clusters + thread * clusters_of_each + random() % clusters_of_each) * cluster;
    const Bytes mine(cluster, static_cast<std::byte>(random()));
    Bytes now(cluster);
    switch (random() % 4) {
      case 0:
        ASSERT_TRUE(disk.zero(at, cluster, ZeroMode::may_trim, Fua::no));
        ASSERT_TRUE(disk.read(now, at));
        ASSERT_EQ(now, Bytes(cluster));
        break;
      case 1:
        ASSERT_TRUE(disk.trim(at, cluster, Fua::no));
        break;
      default:
        ASSERT_TRUE(disk.write(mine, at, Fua::no));
        ASSERT_TRUE(disk.read(now, at));
        ASSERT_EQ(now, mine);
    }
  }

  void work(unsigned thread) {
    std::mt19937 random(thread);
    for (unsigned round = 1; round <= rounds; ++round) {
      const auto disk = format->stack_on(storage); /* a connection of its own */
      write_parts(*disk, thread, round);
      for (int i = 0; i < 6; ++i) change_own(*disk, thread, random);
      if (random() % 3 == 0) {
        ASSERT_TRUE(disk->flush());
      }
    }
  }

  Keyring keyring;
  UnorderedStorage storage;
  std::unique_ptr<Qcow2Format> format;
};

TEST_F(ThreadsWrite, NobodyLosesABit) {
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < threads_count; ++t) threads.emplace_back([this, t] { work(t); });
  for (std::thread& thread : threads) thread.join();

  const auto disk = format->stack_on(storage);
  ASSERT_TRUE(disk->flush());
  Bytes now(shared_clusters * cluster);
  ASSERT_TRUE(disk->read(now, 0));
  for (size_t i = 0; i < now.size(); ++i) {
    ASSERT_EQ(now[i], static_cast<std::byte>(rounds + 10 * (i % 512 / part))) << i;
  }
  EXPECT_EQ(test::Qcow2Check(storage.bytes()).run(), "");
}

} // namespace
} // namespace qluks
