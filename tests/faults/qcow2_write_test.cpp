/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2 images of each kind that are written while the n-th call of the storage fails, for every n, once and for ever,
 * also half-way through a write; and while storage gives other bytes than it was given. */
#include <cstdlib>
#include <random>

#include "tests/faults/write_workload.hpp"
#include "tests/support/faulty_device.hpp"
#include "tests/support/writable_device.hpp"

namespace qluks {
namespace {

using test::Content;
using test::Fault;
using test::FaultKind;
using test::FaultyDevice;
using test::FaultySwitch;
using test::WritableDevice;
using test::WriteStep;

class Qcow2WriteFaults : public test::WriteWorkload<Qcow2WriteFaults> {
 public:
  std::optional<Error> run_step(const WriteStep& step) {
    Status s = change(step);
    return s ? std::nullopt : std::optional(std::move(s.error()));
  }
  template <class Body>
  void quietly(Body body) {
    faults_.pause(true);
    body();
    faults_.pause(false);
  }
  void expect_injected(const Error& error) {
    EXPECT_GT(faults_.hits(), 0U) << error.what;
    EXPECT_EQ(error.sys, fault_.error.sys) << error.what;
  }
  const Content& stored() const { return image_file_->bytes; }

 protected:
  std::unique_ptr<BlockDevice> device_of(const Content& file) {
    auto memory = std::make_unique<WritableDevice>(file);
    if (devices_.empty()) image_file_ = memory.get();
    return std::make_unique<FaultyDevice>(std::move(memory), faults_);
  }

  /* Every n until none is hit; how many there are. */
  size_t fail_each(Fault fault) {
    for (fault.nth = 1;; ++fault.nth) {
      SCOPED_TRACE("call " + std::to_string(fault.nth) + (fault.always ? " and all after it" : ""));
      faults_.disarm();
      load([this](const Content& file) { return device_of(file); });
      fault_ = fault;
      faults_.arm(fault);
      run_all(fault.always);
      if (faults_.hits() == 0 || HasFailure()) return fault.nth - 1;
    }
  }

  FaultySwitch faults_;
  Fault fault_;
  WritableDevice* image_file_ = nullptr;
  static inline size_t total_ = 0;
};

TEST_P(Qcow2WriteFaults, EachCallOfTheStorageMayFail) {
  size_t points = 0;
  for (const bool always : {false, true}) {
    for (const auto& [kind, sys] : {std::pair(FaultKind::error, 5), {FaultKind::error, 28}, {FaultKind::half, 5}}) {
      points += fail_each({.always = always, .kind = kind, .error = {Errc::io, sys, "injected failure"}});
      if (HasFailure()) return;
    }
  }
  total_ += points;
  std::printf("%-32s %5zu failing calls (%zu in all)\n", image_.name.c_str(), points, total_);
  EXPECT_GT(points, 60U);
}

INSTANTIATE_TEST_SUITE_P(Images, Qcow2WriteFaults, ::testing::ValuesIn(test::writable_images()),
                         [](const auto& each) { return each.param.test_name(); });

/* A bit of what is read may flip, and another program writes noise into the file, or cuts it short. */
class ChangingDevice final : public BlockDevice {
 public:
  ChangingDevice(const Content& file, std::mt19937& random) : file_(file), end_(file.size()), random_(random) {}

  uint64_t size() const noexcept override { return file_.size(); }
  Limits limits() const noexcept override { return file_.limits(); }
  WriteAbilities write_abilities() const noexcept override { return file_.write_abilities(); }
  Result<Extent> extent(uint64_t offset, uint64_t max) override { return file_.extent(offset, max); }
  Status read(std::span<std::byte> dst, uint64_t offset) override {
    if (Status s = interfere(offset, dst.size()); !s) return s;
    Status s = file_.read(dst, offset);
    if (random_() % 16 == 0) dst[random_() % dst.size()] ^= static_cast<std::byte>(1U << random_() % 8);
    return s;
  }
  Status write(std::span<const std::byte> src, uint64_t offset, Fua fua) override {
    Status s = interfere(offset, src.size());
    return s ? file_.write(src, offset, fua) : s;
  }
  Status zero(uint64_t offset, uint64_t length, ZeroMode mode, Fua fua) override {
    Status s = interfere(offset, length);
    return s ? file_.zero(offset, length, mode, fua) : s;
  }
  Status trim(uint64_t offset, uint64_t length, Fua fua) override { return file_.trim(offset, length, fua); }

 private:
  Status interfere(uint64_t offset, uint64_t length) {
    const auto number = random_();
    if (number % 16 == 1) file_.bytes[random_() % file_.bytes.size()] ^= static_cast<std::byte>(random_());
    if (number % 512 == 2) end_ = random_() % file_.size();
    return offset + length <= end_ ? ok() : fail(Errc::io, "behind the end", 5);
  }

  WritableDevice file_;
  uint64_t end_;
  std::mt19937& random_;
};

/* Nothing crashes, no request is out of range, and who reads is told or reads something. */
TEST(Qcow2WriteChangingStorage, IsWrittenSomehowOrRefused) {
  const auto images = test::writable_images();
  const char* given = std::getenv("QLUKS_SEEDS");
  const size_t seeds = given != nullptr ? std::strtoull(given, nullptr, 10) : 1500;
  Keyring keyring;
  keyring.add_secret(test::secret_of(test::stored_image_secret));
  keyring.set_kdf_limits({.seconds = 1});
  size_t written = 0;
  for (size_t seed = 0; seed < seeds; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937 random(static_cast<uint32_t>(seed));
    const test::StoredImage& image = images[seed % images.size()];
    test::StoredImage::Devices devices;
    for (const Content& file : image.files) devices.push_back(std::make_unique<ChangingDevice>(file, random));
    test::OpenedImage opened(*devices[0]);
    if (!image.open(opened, devices, keyring)) continue;
    BlockDevice& disk = opened.disk();
    if (!disk.write_abilities().write || disk.size() == 0) continue;
    for (int i = 0; i < 24; ++i) {
      Content bytes(1 + random() % 20000, static_cast<std::byte>(i));
      const uint64_t at = random() % disk.size();
      bytes.resize(static_cast<size_t>(std::min<uint64_t>(bytes.size(), disk.size() - at)));
      const auto use = [&]() -> Status {
        switch (random() % 6) {
          case 0:
            return disk.flush();
          case 1:
            return disk.zero(at, bytes.size(), static_cast<ZeroMode>(random() % 4), Fua::no);
          case 2:
            return disk.trim(at, bytes.size(), Fua::no);
          case 3:
            return disk.read(bytes, at);
          default:
            return disk.write(bytes, at, static_cast<Fua>(random() % 2));
        }
      };
      const Status s = use();
      EXPECT_TRUE(s || !s.error().what.empty());
      written += static_cast<bool>(s);
    }
  }
  std::printf("%zu seeds, %zu requests that succeeded\n", seeds, written);
  EXPECT_GT(written, seeds);
}

} // namespace
} // namespace qluks
