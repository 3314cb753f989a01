/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/qcow2/header.hpp"

#include <gtest/gtest.h>

#include <functional>

#include "tests/support/qcow2_image.hpp"

namespace qluks {
namespace {

using test::Qcow2Image;

std::span<const std::byte> bytes_of(std::string_view s) { return std::as_bytes(std::span(s)); }

template <class OnDisk>
std::span<const std::byte> bytes_of_struct(const OnDisk& disk) {
  return std::as_bytes(std::span(&disk, 1));
}

/* One change to a sound image, and what is said about it. */
struct Defect {
  const char* name;
  std::function<void(Qcow2Image&)> make;
  Errc code;
  const char* says;
};

std::ostream& operator<<(std::ostream& out, const Defect& d) { return out << d.name; }

void add_name_table(Qcow2Image& image) {
  Qcow2FeatureNameOnDisk names[2]{};
  names[0] = {1, 7, {"wrong type"}};
  names[1] = {0, 7, {"time\ntravel"}};
  image.add_extension(qcow2_ext_feature_names, std::as_bytes(std::span(names)));
}

void add_bitmaps(Qcow2Image& image, const Qcow2BitmapsOnDisk& bitmaps) {
  image.header().autoclear_features = 1 << qcow2_bitmaps_bit;
  image.add_extension(qcow2_ext_bitmaps, bytes_of_struct(bitmaps));
}

void add_encryption(Qcow2Image& image, uint64_t offset, uint64_t length) {
  image.header().crypt_method = 2;
  image.add_extension(qcow2_ext_encryption, bytes_of_struct(Qcow2EncryptionOnDisk{offset, length}));
}

const Defect defects[] = {
    {"Magic", [](auto& i) { i.header().magic = 0x51464900; }, Errc::invalid_format, "magic 0x51464900"},
    {"Version1", [](auto& i) { i.header().version = 1; }, Errc::unsupported, "version 1 is not 2 or 3"},
    {"Version4", [](auto& i) { i.header().version = 4; }, Errc::unsupported, "version 4 is not 2 or 3"},
    {"ClusterBits8", [](auto& i) { i.header().cluster_bits = 8; }, Errc::invalid_format, "cluster_bits 8 "},
    {"ClusterBits22", [](auto& i) { i.header().cluster_bits = 22; }, Errc::invalid_format, "cluster_bits 22 "},
    {"ClusterBitsHuge", [](auto& i) { i.header().cluster_bits = 0xffffffff; }, Errc::invalid_format, "cluster_bits"},
    {"HeaderLengthShort", [](auto& i) { i.header().header_length = 103; }, Errc::invalid_format, "header_length 103"},
    {"HeaderLengthBeyondCluster", [](auto& i) { i.header().header_length = 65537; }, Errc::invalid_format,
     "header_length 65537 is more than a cluster (65536)"},
    {"BackingOffsetBeyondCluster", [](auto& i) { i.header().backing_file_offset = 65537; }, Errc::invalid_format,
     "backing_file_offset 65537"},
    {"BackingNameTooLong",
     [](auto& i) {
       i.header().backing_file_offset = 4096;
       i.header().backing_file_size = 1024;
     },
     Errc::invalid_format, "backing_file_size 1024 is more than 1023"},
    {"BackingNameBeyondCluster",
     [](auto& i) {
       i.header().backing_file_offset = 65526;
       i.header().backing_file_size = 11;
     },
     Errc::invalid_format, "backing_file_size 11 is more than 10"},
    {"CompressionUnknown", [](auto& i) { i.header().compression_type = 2; }, Errc::unsupported, "compression_type 2"},
    {"CompressionWithoutBit", [](auto& i) { i.header().compression_type = 1; }, Errc::invalid_format,
     "incompatible bit 3 contradict"},
    {"CompressionBitWithoutType", [](auto& i) { i.header().incompatible_features = 8; }, Errc::invalid_format,
     "incompatible bit 3 contradict"},
    {"UnknownBit", [](auto& i) { i.header().incompatible_features = 1ULL << 63; }, Errc::unsupported, "bit 63"},
    {"UnknownBitsWithNames",
     [](auto& i) {
       add_name_table(i);
       i.header().incompatible_features = (1 << 7) | (1 << 9);
     },
     Errc::unsupported, "bit 7 \"time\\x0atravel\", bit 9"},
    {"ExtendedL2WithSmallClusters",
     [](auto& i) {
       i.header().cluster_bits = 13;
       i.header().incompatible_features = 1 << qcow2_extended_l2_bit;
     },
     Errc::invalid_format, "cluster_bits 13 is less than 14"},
    {"RawDataFileBitAlone", [](auto& i) { i.header().autoclear_features = 2; }, Errc::invalid_format,
     "autoclear bit 1"},
    {"RefcountOrder", [](auto& i) { i.header().refcount_order = 7; }, Errc::invalid_format, "refcount_order 7"},
    {"CryptMethod", [](auto& i) { i.header().crypt_method = 3; }, Errc::unsupported, "crypt_method 3"},
    {"SizeTooBig", [](auto& i) { i.header().size = ~0ULL; }, Errc::invalid_format, "is too big for clusters"},
    {"L1TooSmall", [](auto& i) { i.header().size = 1ULL << 40; }, Errc::invalid_format, "l1_size 1 is less than"},
    {"L1TooLong", [](auto& i) { i.header().l1_size = (4 << 20) + 1; }, Errc::invalid_format, "l1_table of 33554440"},
    {"L1Unaligned", [](auto& i) { i.header().l1_table_offset = 512; }, Errc::invalid_format, "l1_table offset 0x200"},
    {"L1BeyondAnyFile", [](auto& i) { i.header().l1_table_offset = 0xffffffffffff0000; }, Errc::invalid_format,
     "l1_table offset 0xffffffffffff0000"},
    {"NoRefcountTable", [](auto& i) { i.header().refcount_table_clusters = 0; }, Errc::invalid_format,
     "refcount_table_clusters is 0"},
    {"RefcountTableTooLong", [](auto& i) { i.header().refcount_table_clusters = 129; }, Errc::invalid_format,
     "refcount_table of 8454144 bytes is longer than 8388608"},
    {"RefcountTableUnaligned", [](auto& i) { i.header().refcount_table_offset = 1; }, Errc::invalid_format,
     "refcount_table offset 0x1"},
    {"SnapshotsTooMany", [](auto& i) { i.header().nb_snapshots = 65537; }, Errc::invalid_format, "nb_snapshots 65537"},
    {"SnapshotsUnalignedEvenIfNone", [](auto& i) { i.header().snapshots_offset = 1; }, Errc::invalid_format,
     "snapshots offset 0x1"},
    {"ExtensionTooLong", [](auto& i) { i.add_extension(0x12345678, {}, 0xffffffff); }, Errc::invalid_format,
     "extension 0x12345678 of 4294967295 bytes"},
    {"EndWithHugeLength", [](auto& i) { i.add_extension(qcow2_ext_end, {}, 65536); }, Errc::invalid_format,
     "extension 0x0 of 65536 bytes"},
    {"ExtensionHeaderCutOff", [](auto& i) { i.header().backing_file_offset = 116; }, Errc::invalid_format,
     "the extension at 112 does not end before 116"},
    {"BackingFormatTooLong", [](auto& i) { i.add_extension(qcow2_ext_backing_format, bytes_of("0123456789abcdef")); },
     Errc::invalid_format, "backing format name of 16 bytes"},
    {"LuksWithoutExtension", [](auto& i) { i.header().crypt_method = 2; }, Errc::invalid_format,
     "crypt_method 2 (LUKS) without an encryption extension"},
    {"EncryptionWithoutLuks", [](auto& i) { i.add_extension(qcow2_ext_encryption, bytes_of("0123456789abcdef")); },
     Errc::invalid_format, "without crypt_method 2"},
    {"EncryptionLength",
     [](auto& i) {
       i.header().crypt_method = 2;
       i.add_extension(qcow2_ext_encryption, bytes_of("01234567"));
     },
     Errc::invalid_format, "the encryption extension has 8 bytes"},
    {"EncryptionUnaligned", [](auto& i) { add_encryption(i, 512, 4096); }, Errc::invalid_format,
     "encryption header offset 0x200"},
    {"EncryptionOverflow", [](auto& i) { add_encryption(i, 0x7fffffffffff0000, 65536); }, Errc::invalid_format,
     "encryption header offset 0x7fffffffffff0000"},
    {"EncryptionTooLong", [](auto& i) { add_encryption(i, 65536, ~0ULL); }, Errc::invalid_format,
     "encryption header of 18446744073709551615 bytes"},
    {"BitmapsLength", [](auto& i) { i.add_extension(qcow2_ext_bitmaps, bytes_of("01234567")); }, Errc::invalid_format,
     "the bitmaps extension has 8 bytes"},
    {"BitmapsReserved",
     [](auto& i) {
       add_bitmaps(i, {1, 1, 64, 65536});
     },
     Errc::invalid_format, "reserved field"},
    {"BitmapsNone",
     [](auto& i) {
       add_bitmaps(i, {0, 0, 64, 65536});
     },
     Errc::invalid_format, "nb_bitmaps 0"},
    {"BitmapsTooMany",
     [](auto& i) {
       add_bitmaps(i, {65536, 0, 64, 65536});
     },
     Errc::invalid_format, "nb_bitmaps 65536"},
    {"BitmapDirectoryUnaligned",
     [](auto& i) {
       add_bitmaps(i, {1, 0, 64, 65537});
     },
     Errc::invalid_format, "bitmap directory offset 0x10001"},
    {"BitmapDirectoryTooLong",
     [](auto& i) {
       add_bitmaps(i, {1, 0, 1024 * 65535 + 1, 65536});
     },
     Errc::invalid_format, "bitmap directory of 67107841 bytes"},
};

class Qcow2HeaderDefect : public ::testing::TestWithParam<Defect> {};

TEST_P(Qcow2HeaderDefect, IsRefusedByName) {
  Qcow2Image image({});
  GetParam().make(image);
  auto device = image.device();
  const auto header = read_qcow2_header(device);
  ASSERT_FALSE(header);
  EXPECT_EQ(header.error().code, GetParam().code);
  EXPECT_NE(header.error().what.find(GetParam().says), std::string::npos) << header.error().what;
  EXPECT_EQ(header.error().what.find('\n'), std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(Qcow2, Qcow2HeaderDefect, ::testing::ValuesIn(defects),
                         [](const auto& test) { return std::string(test.param.name); });

Qcow2Header read_sound(Qcow2Image& image) {
  auto device = image.device();
  auto header = read_qcow2_header(device);
  EXPECT_TRUE(header) << (header ? "" : header.error().what);
  return header ? *header : Qcow2Header{};
}

TEST(Qcow2Header, Version2ImpliesWhatItDoesNotSay) {
  Qcow2Image image({.cluster_bits = 9, .version = 2});
  /* What follows the 72 bytes belongs to extensions: END, then junk. */
  std::fill(image.bytes().begin() + 80, image.bytes().begin() + 512, std::byte{0xff});
  const Qcow2Header header = read_sound(image);
  EXPECT_EQ(header.version, 2U);
  EXPECT_EQ(header.incompatible, 0U);
  EXPECT_EQ(header.refcount_order, 4U);
  EXPECT_EQ(header.compression, Qcow2Compression::zlib);
}

TEST(Qcow2Header, SizeIsRoundedDownToSectors) {
  Qcow2Image image({.size = 1025});
  EXPECT_EQ(read_sound(image).size, 1024U);
}

TEST(Qcow2Header, DirtyCorruptAndUnknownCompatibleBitsAreNoHeaderErrors) {
  Qcow2Image image({});
  image.header().incompatible_features = 3;
  image.header().compatible_features = ~0ULL;
  image.header().autoclear_features = ~2ULL;
  const Qcow2Header header = read_sound(image);
  EXPECT_TRUE(header.has(qcow2_dirty_bit) && header.has(qcow2_corrupt_bit));
  EXPECT_EQ(header.compatible, ~0ULL);
}

TEST(Qcow2Header, ExtensionsAreReadUpToTheBackingName) {
  Qcow2Image image({});
  image.add_extension(0xabcdef01, bytes_of("unknown"));
  image.add_extension(qcow2_ext_backing_format, bytes_of("raw"));
  image.add_extension(qcow2_ext_data_file, bytes_of("data.raw"));
  const std::string name = "base.img";
  image.header().backing_file_offset = 168;
  image.header().backing_file_size = static_cast<uint32_t>(name.size());
  std::memcpy(&image.bytes()[168], name.data(), name.size());
  const Qcow2Header header = read_sound(image);
  EXPECT_EQ(header.backing_format, "raw");
  EXPECT_EQ(header.data_file_name, "data.raw");
  EXPECT_EQ(header.backing_name, "base.img");
}

TEST(Qcow2Header, BackingOffsetAtTheEndOfTheClusterIsLegal) {
  Qcow2Image image({});
  image.header().backing_file_offset = 65536;
  EXPECT_EQ(read_sound(image).backing_name, "");
}

TEST(Qcow2Header, StaleBitmapsAreNotLookedAt) {
  Qcow2Image image({});
  image.add_extension(qcow2_ext_bitmaps, bytes_of("012345670123456701234567"));
  read_sound(image);
}

TEST(Qcow2Header, EncryptionIsFound) {
  Qcow2Image image({});
  add_encryption(image, 0x40000, 2068480);
  const Qcow2Header header = read_sound(image);
  ASSERT_TRUE(header.encryption);
  EXPECT_EQ(header.encryption->at, HostOffset{0x40000});
  EXPECT_EQ(header.encryption->length, 2068480U);
}

TEST(Qcow2Header, IsOneReadOfTheStorage) {
  Qcow2Image image({});
  auto device = image.device();
  ASSERT_TRUE(read_qcow2_header(device));
  EXPECT_EQ(device.calls, (std::vector<test::ReadCall>{{0, 65536}}));
}

TEST(Qcow2Header, LongListOfExtensionsIsReadInFewPieces) {
  Qcow2Image image({.cluster_bits = 21});
  for (int i = 0; i < 200000; ++i) image.add_extension(0x11111111, {});
  auto device = image.device();
  ASSERT_TRUE(read_qcow2_header(device));
  EXPECT_LE(device.calls.size(), 7U);
}

TEST(Qcow2Header, FileThatEndsInTheHeaderIsRefused) {
  for (const uint32_t version : {2U, 3U}) {
    const Qcow2Image image({.version = version});
    const size_t header_length = version == 2 ? 72 : 112;
    for (size_t length = 0; length < header_length + 8; ++length) {
      auto device = image.device();
      device.bytes.resize(length);
      const auto header = read_qcow2_header(device);
      ASSERT_FALSE(header) << length;
      EXPECT_NE(
          header.error().what.find("go past the end, which is at " + std::to_string(length) + ": is the file cut"),
          std::string::npos)
          << header.error().what;
    }
    auto device = image.device();
    device.bytes.resize(header_length + 8); /* with the end of the extensions */
    EXPECT_TRUE(read_qcow2_header(device));
  }
}

TEST(Qcow2Header, FailingStorageIsTheResult) {
  Qcow2Image image({});
  auto device = image.device();
  device.fail_call = 1;
  const auto header = read_qcow2_header(device);
  ASSERT_FALSE(header);
  EXPECT_EQ(header.error().code, Errc::io);
}

} // namespace
} // namespace qluks
