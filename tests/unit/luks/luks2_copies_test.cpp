/* SPDX-License-Identifier: BSD-3-Clause */
/* Which of the two header copies is used, and how a damaged one is got over. */
#include <gtest/gtest.h>

#include <functional>

#include "formats/luks/header.hpp"
#include "formats/luks/luks2_binary.hpp"
#include "tests/support/luks_builder.hpp"
#include "tests/support/memory_device.hpp"

namespace qluks {
namespace {

using test::Luks2Volume;
using test::make_luks2;
using test::MemoryDevice;
using test::set_text;
using Image = std::vector<std::byte>;

constexpr uint64_t second = 16 << 10; /* where the secondary copy lies */

/* An image whose copies have these sequence numbers, and labels that tell them apart. */
Image image_of(uint64_t primary_seqid, uint64_t secondary_seqid) {
  Luks2Volume volume = make_luks2();
  volume.hdr.seqid = primary_seqid;
  set_text(volume.hdr.label, "primary");
  Image image = volume.image();
  volume.hdr.seqid = secondary_seqid;
  set_text(volume.hdr.label, "secondary");
  const Image copy = volume.copy(second);
  std::copy(copy.begin(), copy.end(), image.begin() + second);
  return image;
}

/* Change the binary header at `offset`. */
void change_binary(Image& image, uint64_t offset, const std::function<void(Luks2HdrOnDisk&)>& change) {
  auto hdr = load_on_disk<Luks2HdrOnDisk>(std::span(image).subspan(static_cast<size_t>(offset)));
  change(hdr);
  std::memcpy(image.data() + offset, &hdr, sizeof hdr);
}

/* ... and give it a right checksum. */
void forge_binary(Image& image, uint64_t offset, const std::function<void(Luks2HdrOnDisk&)>& change) {
  change_binary(image, offset, change);
  test::repair_luks2_checksum(image, offset);
}

void flip(Image& image, uint64_t offset) { image[static_cast<size_t>(offset)] ^= std::byte{1}; }

std::string label_of(Image image, HeaderPlace place = HeaderPlace::attached) {
  MemoryDevice device(std::move(image));
  const auto header = read_luks_header(device, place);
  return header ? header->label : "refused: " + header.error().what;
}

bool probe(Image image) {
  MemoryDevice device(std::move(image));
  const auto found = probe_luks(device);
  return found && *found;
}

TEST(Luks2Copies, HigherSequenceNumberWins) {
  EXPECT_EQ(label_of(image_of(3, 3)), "primary");
  EXPECT_EQ(label_of(image_of(4, 3)), "primary");
  EXPECT_EQ(label_of(image_of(3, 4)), "secondary");
  EXPECT_EQ(label_of(image_of(UINT64_MAX, 0)), "primary");
  EXPECT_EQ(label_of(image_of(0, UINT64_MAX)), "secondary");
}

/* Each is damage to one copy: the other is used although its sequence number is lower. */
const std::vector<std::pair<const char*, std::function<void(Image&, uint64_t)>>> damages = {
    {"magic", [](Image& i, uint64_t at) { flip(i, at); }},
    {"version", [](Image& i, uint64_t at) { forge_binary(i, at, [](auto& h) { h.version = 3; }); }},
    {"hdr_size", [](Image& i, uint64_t at) { change_binary(i, at, [](auto& h) { h.hdr_size = 20480; }); }},
    {"hdr_size 0", [](Image& i, uint64_t at) { change_binary(i, at, [](auto& h) { h.hdr_size = 0; }); }},
    {"hdr_size huge", [](Image& i, uint64_t at) { change_binary(i, at, [](auto& h) { h.hdr_size = UINT64_MAX; }); }},
    {"hdr_size behind device",
     [](Image& i, uint64_t at) { change_binary(i, at, [](auto& h) { h.hdr_size = 4 << 20; }); }},
    {"hdr_offset",
     [](Image& i, uint64_t at) { forge_binary(i, at, [](auto& h) { h.hdr_offset = h.hdr_offset + 512; }); }},
    {"checksum", [](Image& i, uint64_t at) { flip(i, at + 448); }},
    {"unknown checksum",
     [](Image& i, uint64_t at) { change_binary(i, at, [](auto& h) { set_text(h.checksum_alg, "sha257"); }); }},
    {"endless checksum name",
     [](Image& i, uint64_t at) { change_binary(i, at, [](auto& h) { h.checksum_alg.fill('x'); }); }},
    {"salt", [](Image& i, uint64_t at) { flip(i, at + 104); }},
    {"last byte of the binary header", [](Image& i, uint64_t at) { flip(i, at + 4095); }},
    {"first byte of JSON", [](Image& i, uint64_t at) { flip(i, at + 4096); }},
    {"last byte of the JSON area", [](Image& i, uint64_t at) { flip(i, at + 16383); }},
    {"JSON with a right checksum",
     [](Image& i, uint64_t at) {
       flip(i, at + 4096);
       test::repair_luks2_checksum(i, at);
     }},
};

TEST(Luks2Copies, DamagedPrimaryIsGotOver) {
  for (const auto& [name, damage] : damages) {
    Image image = image_of(4, 3);
    damage(image, 0);
    EXPECT_EQ(label_of(image), "secondary") << name;
    EXPECT_EQ(label_of(image, HeaderPlace::detached), "secondary") << name;
  }
}

TEST(Luks2Copies, DamagedSecondaryIsGotOver) {
  for (const auto& [name, damage] : damages) {
    Image image = image_of(3, 4);
    damage(image, second);
    EXPECT_EQ(label_of(image), "primary") << name;
  }
}

TEST(Luks2Copies, TwoDamagedCopiesAreRefusedWithBothReasons) {
  Image image = image_of(3, 3);
  flip(image, 448);
  flip(image, second + 448);
  EXPECT_EQ(label_of(image),
            "refused: LUKS2: no valid header: primary: the checksum does not match; "
            "secondary: none with a good checksum at any of its nine places");
  image = image_of(3, 3);
  flip(image, 4096);
  test::repair_luks2_checksum(image, 0);
  flip(image, second + 448);
  EXPECT_EQ(label_of(image),
            "refused: LUKS2: no valid header: primary: JSON: the first byte is not '{'; "
            "secondary: the checksum does not match");
}

/* The newer copy is valid and asks for what we do not have: the older one must not be used instead. */
TEST(Luks2Copies, RequirementIsNotHiddenByTheOlderCopy) {
  Luks2Volume volume = make_luks2();
  Image image = volume.image();
  volume.hdr.seqid = 4;
  volume.json["config"]["requirements"] = {{"mandatory", {"online-reencrypt-v2"}}};
  const Image copy = volume.copy(second);
  std::copy(copy.begin(), copy.end(), image.begin() + second);
  EXPECT_NE(label_of(image).find("requirement \"online-reencrypt-v2\""), std::string::npos);
}

TEST(Luks2Copies, EverySizeOpensFromEitherCopy) {
  for (const uint64_t size : luks2_hdr_sizes) {
    const Luks2Volume volume = make_luks2({.payload_bytes = 4096, .hdr_size = size});
    Image image = volume.image();
    EXPECT_EQ(label_of(image), "a label") << size;
    std::fill_n(image.begin(), 4096, std::byte{0});
    EXPECT_EQ(label_of(image), "a label") << size;
    EXPECT_TRUE(probe(image)) << size;
  }
}

TEST(Luks2Copies, AnyKnownHashMakesTheChecksum) {
  for (const HashAlgorithm& hash : hash_algorithms()) {
    Luks2Volume volume = make_luks2();
    set_text(volume.hdr.checksum_alg, hash.name);
    EXPECT_EQ(label_of(volume.image()), "a label") << hash.name;
  }
}

TEST(Luks2Copies, SequenceOfPlacesDecidesAmongSecondaries) {
  Image image = image_of(3, 9);
  flip(image, 0);
  Luks2Volume later = make_luks2({.hdr_size = 32 << 10});
  later.hdr.seqid = 99;
  const Image copy = later.copy(32 << 10);
  std::copy(copy.begin(), copy.end(), image.begin() + (32 << 10));
  EXPECT_EQ(label_of(image), "secondary");
}

TEST(Luks2Copies, SecondaryCopyOfAnotherSizeIsNone) {
  Image image = image_of(3, 3);
  std::fill_n(image.begin(), 4096, std::byte{0});
  Image other = make_luks2({.hdr_size = 32 << 10}).copy(second);
  image.resize(1 << 20);
  std::copy(other.begin(), other.end(), image.begin() + second);
  EXPECT_EQ(label_of(image).substr(0, 8), "refused:");
}

TEST(Luks2Copies, DevicesOfEveryLengthAreRefusedQuietly) {
  const Image image = image_of(3, 3);
  for (const size_t length :
       {0U, 1U, 7U, 8U, 591U, 1024U, 4095U, 4096U, 16383U, 16384U, 20480U, 32767U, 32768U, 294911U}) {
    Image cut(image.begin(), image.begin() + static_cast<ptrdiff_t>(length));
    EXPECT_EQ(label_of(cut).substr(0, 8), "refused:") << length;
    EXPECT_EQ(probe(cut), length >= 8) << length;
  }
}

TEST(Luks2Copies, FailingStorageIsReportedAndNothingElseIsTried) {
  const Image image = image_of(3, 4);
  MemoryDevice device(image);
  ASSERT_TRUE(read_luks_header(device, HeaderPlace::attached));
  const size_t reads = device.calls.size();
  EXPECT_EQ(reads, 5U); /* the magic, then each copy in two */
  for (size_t nth = 1; nth <= reads; ++nth) {
    device.calls.clear();
    device.fail_call = nth;
    const auto header = read_luks_header(device, HeaderPlace::attached);
    ASSERT_FALSE(header);
    EXPECT_EQ(header.error().code, Errc::io);
    EXPECT_EQ(device.calls.size(), nth);
  }
}

TEST(Luks2Copies, FailingStorageEndsTheScan) {
  Image image = image_of(3, 4);
  flip(image, 0);
  image.resize(8 << 20);
  MemoryDevice device(image);
  device.fail_call = 3; /* the first place of a secondary copy */
  const auto header = read_luks_header(device, HeaderPlace::attached);
  ASSERT_FALSE(header);
  EXPECT_EQ(header.error().code, Errc::io);
  device.calls.clear();
  device.fail_call = 2;
  const auto found = probe_luks(device);
  ASSERT_FALSE(found);
  EXPECT_EQ(found.error().code, Errc::io);
}

TEST(ProbeLuks, FindsBothVersionsAndNothingElse) {
  EXPECT_TRUE(probe(test::make_luks1().image()));
  EXPECT_TRUE(probe(make_luks2().image()));
  EXPECT_FALSE(probe(MemoryDevice::pattern(8 << 20)));
  EXPECT_FALSE(probe(Image(4 << 20)));
  EXPECT_FALSE(probe({}));
}

/* A header at 0 that says it is a secondary copy, or a secondary one that says it lies elsewhere, is none. */
TEST(ProbeLuks, SecondaryCopyHasToSayWhereItIs) {
  Image image = make_luks2().image();
  std::copy_n(image.begin() + second, second, image.begin());
  EXPECT_TRUE(probe(image));
  change_binary(image, second, [](auto& hdr) { hdr.hdr_offset = 32768; });
  EXPECT_FALSE(probe(image));
}

} // namespace
} // namespace qluks
