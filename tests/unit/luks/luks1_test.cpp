/* SPDX-License-Identifier: BSD-3-Clause */
/* What a LUKS1 header may say: one change to a valid volume each, and the verdict. */
#include "formats/luks/luks1.hpp"
#include "formats/luks/keyring.hpp"

#include <gtest/gtest.h>

#include <functional>

#include "formats/luks/layer.hpp"
#include "tests/support/luks_builder.hpp"
#include "tests/support/memory_device.hpp"

namespace qluks {
namespace {

using test::Luks1Spec;
using test::Luks1Volume;
using test::make_luks1;
using test::MemoryDevice;
using test::set_text;

struct Case {
  std::string name;
  std::function<void(Luks1Volume&)> change;
  HeaderPlace place;
  std::optional<Errc> refused;
  std::string message;
};

void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

Case opens(std::string name, std::function<void(Luks1Volume&)> change, HeaderPlace place = HeaderPlace::attached) {
  return {std::move(name), std::move(change), place, std::nullopt, ""};
}

Case invalid(std::string name, std::string message, std::function<void(Luks1Volume&)> change,
             HeaderPlace place = HeaderPlace::attached) {
  return {std::move(name), std::move(change), place, Errc::invalid_format, std::move(message)};
}

Case unsupported(std::string name, std::string message, std::function<void(Luks1Volume&)> change,
                 HeaderPlace place = HeaderPlace::attached) {
  return {std::move(name), std::move(change), place, Errc::unsupported, std::move(message)};
}

/* A field without a NUL. */
template <size_t N>
void fill(std::array<char, N>& field) {
  field.fill('a');
}

/* Put slot `i` at that sector, and its key material with it. */
void move_slot(Luks1Volume& v, size_t i, uint32_t sector) {
  be32& offset = v.phdr.keyslots[i].key_material_offset;
  const auto at = [&](uint32_t s) { return v.rest.begin() + s * 512 - static_cast<ptrdiff_t>(sizeof v.phdr); };
  const std::vector<std::byte> material(at(offset), at(offset + 250));
  std::copy(material.begin(), material.end(), at(sector));
  offset = sector;
}

/* The layout of cryptsetup 1.0: the first slot in sector 2, no rounding. */
void pack_slots(Luks1Volume& v) {
  for (uint32_t i = 0; i < 8; ++i) move_slot(v, i, 2 + i * 251);
}

void reverse_slots(Luks1Volume& v) {
  for (uint32_t i = 1; i < 8; ++i) v.phdr.keyslots[i].key_material_offset = 8 + 256 * (7 - i);
  move_slot(v, 0, 8 + 256 * 7);
}

const std::vector<Case> cases = {
    opens("Unchanged", [](Luks1Volume&) {}),
    opens(
        "UnchangedDetached", [](Luks1Volume&) {}, HeaderPlace::detached),
    opens(
        "UnchangedInQcow2", [](Luks1Volume&) {}, HeaderPlace::in_qcow2),
    opens("UuidWithoutNul", [](Luks1Volume& v) { fill(v.phdr.uuid); }),
    opens("HashInCapitals", [](Luks1Volume& v) { set_text(v.phdr.hash_spec, "SHA256"); }),
    opens("BytesBehindTheNul", [](Luks1Volume& v) { v.phdr.cipher_name[31] = 'x'; }),
    opens("InactiveSlotWithoutIterations", [](Luks1Volume& v) { v.phdr.keyslots[7].iterations = 0; }),
    opens("PackedSlotsOfOldCryptsetup", pack_slots),
    opens(
        "DetachedWithPayloadAtZero", [](Luks1Volume& v) { v.phdr.payload_offset = 0; }, HeaderPlace::detached),
    opens("SlotsInReverseOrder", reverse_slots),
    opens("StateOfAnotherSlotUnknown", [](Luks1Volume& v) { v.phdr.keyslots[5].active = 1; }),
    opens("AnotherActiveSlotWithoutIterations",
          [](Luks1Volume& v) {
            v.phdr.keyslots[5].active = luks1_slot_active;
            v.phdr.keyslots[5].iterations = 0;
          }),
    opens(
        "PayloadAt1Detached", [](Luks1Volume& v) { v.phdr.payload_offset = 1; }, HeaderPlace::detached),
    opens(
        "PayloadInKeyMaterialDetached", [](Luks1Volume& v) { v.phdr.payload_offset = 2048; }, HeaderPlace::detached),

    invalid(
        "NoMagic", "no magic", [](Luks1Volume& v) { v.phdr.magic[0] = 'l'; }, HeaderPlace::in_qcow2),
    unsupported(
        "Version2InQcow2", "version 2 is not 1", [](Luks1Volume& v) { v.phdr.version = 2; }, HeaderPlace::in_qcow2),
    unsupported(
        "Version0InQcow2", "version 0 is not 1", [](Luks1Volume& v) { v.phdr.version = 0; }, HeaderPlace::in_qcow2),
    invalid("Version0", "version 0 is not 2", [](Luks1Volume& v) { v.phdr.version = 0; }),
    invalid("Version3", "version 3 is not 2", [](Luks1Volume& v) { v.phdr.version = 3; }),

    invalid("CipherNameWithoutNul", "cipher name does not end", [](Luks1Volume& v) { fill(v.phdr.cipher_name); }),
    invalid("CipherModeWithoutNul", "cipher mode does not end", [](Luks1Volume& v) { fill(v.phdr.cipher_mode); }),
    invalid("HashWithoutNul", "hash name does not end", [](Luks1Volume& v) { fill(v.phdr.hash_spec); }),
    unsupported("EmptyCipherName", "cipher", [](Luks1Volume& v) { set_text(v.phdr.cipher_name, ""); }),
    unsupported("EmptyCipherMode", "mode", [](Luks1Volume& v) { set_text(v.phdr.cipher_mode, ""); }),
    unsupported("UnknownCipher", "\"rot13\"", [](Luks1Volume& v) { set_text(v.phdr.cipher_name, "rot13"); }),
    unsupported("UnknownMode", "\"xyz\"", [](Luks1Volume& v) { set_text(v.phdr.cipher_mode, "xyz-plain64"); }),
    unsupported("UnknownIv", "\"plain65\"", [](Luks1Volume& v) { set_text(v.phdr.cipher_mode, "xts-plain65"); }),
    unsupported("UnknownEssivHash", "\"md0\"", [](Luks1Volume& v) { set_text(v.phdr.cipher_mode, "cbc-essiv:md0"); }),
    unsupported("ModeWithoutDash", "xts", [](Luks1Volume& v) { set_text(v.phdr.cipher_mode, "xts"); }),
    unsupported("CapiCipher", "\"hctr2\"", [](Luks1Volume& v) { set_text(v.phdr.cipher_name, "capi:hctr2(aes)"); }),
    unsupported("NullCipher", "null",
                [](Luks1Volume& v) {
                  set_text(v.phdr.cipher_name, "cipher_null");
                  set_text(v.phdr.cipher_mode, "ecb");
                }),
    unsupported("NullCipherByItsShortName", "null", [](Luks1Volume& v) { set_text(v.phdr.cipher_name, "null"); }),
    unsupported("UnknownHash", "unknown hash \"sha257\"", [](Luks1Volume& v) { set_text(v.phdr.hash_spec, "sha257"); }),
    unsupported("EmptyHash", "unknown hash \"\"", [](Luks1Volume& v) { set_text(v.phdr.hash_spec, ""); }),
    unsupported("Md5", "hash \"md5\"", [](Luks1Volume& v) { set_text(v.phdr.hash_spec, "md5"); }),
    unsupported("UnprintableNameIsEscaped", "\"sha\\x0a1\"",
                [](Luks1Volume& v) { set_text(v.phdr.hash_spec, "sha\n1"); }),

    invalid("KeyBytes0", "key_bytes 0 is no key size of aes-xts-plain64", [](Luks1Volume& v) { v.phdr.key_bytes = 0; }),
    invalid("KeyBytes31", "key_bytes 31", [](Luks1Volume& v) { v.phdr.key_bytes = 31; }),
    invalid("KeyBytes24OfXts", "key_bytes 24", [](Luks1Volume& v) { v.phdr.key_bytes = 24; }),
    invalid("KeyBytes128", "key_bytes 128", [](Luks1Volume& v) { v.phdr.key_bytes = 128; }),
    invalid("KeyBytesHuge", "key_bytes 4294967295", [](Luks1Volume& v) { v.phdr.key_bytes = UINT32_MAX; }),
    invalid("KeyBytes64ReachesPayload", "key slot 7: key material ends at sector 2300, behind the payload's start",
            [](Luks1Volume& v) { v.phdr.key_bytes = 64; }),
    invalid("DigestIterations0", "iterations of the volume key's digest are 0",
            [](Luks1Volume& v) { v.phdr.digest_iterations = 0; }),

    unsupported("Iterations0", "no key slot can be tried; key slot 0 is not tried: iterations is 0",
                [](Luks1Volume& v) { v.phdr.keyslots[0].iterations = 0; }),
    unsupported("SlotState0", "key slot 0 is not tried: its state is neither active nor inactive but 0",
                [](Luks1Volume& v) { v.phdr.keyslots[0].active = 0; }),
    invalid("Stripes0", "key slot 0: stripes 0 is not 4000", [](Luks1Volume& v) { v.phdr.keyslots[0].stripes = 0; }),
    invalid("Stripes3999", "stripes 3999", [](Luks1Volume& v) { v.phdr.keyslots[0].stripes = 3999; }),
    invalid("StripesHuge", "stripes 4294967295", [](Luks1Volume& v) { v.phdr.keyslots[0].stripes = UINT32_MAX; }),
    invalid("StripesOfInactiveSlot", "key slot 7: stripes 1", [](Luks1Volume& v) { v.phdr.keyslots[7].stripes = 1; }),

    invalid("SlotAt0", "key slot 0: key material at sector 0 overlaps the header",
            [](Luks1Volume& v) { v.phdr.keyslots[0].key_material_offset = 0; }),
    invalid("SlotAt1", "key slot 0: key material at sector 1 overlaps the header",
            [](Luks1Volume& v) { v.phdr.keyslots[0].key_material_offset = 1; }),
    invalid(
        "SlotAt1Detached", "overlaps the header", [](Luks1Volume& v) { v.phdr.keyslots[0].key_material_offset = 1; },
        HeaderPlace::detached),
    invalid("InactiveSlotAt0", "key slot 6: key material at sector 0",
            [](Luks1Volume& v) { v.phdr.keyslots[6].key_material_offset = 0; }),
    invalid("PackedSlotsInQcow2", "overlaps the header, which ends at 8", pack_slots, HeaderPlace::in_qcow2),
    invalid(
        "SlotsPackedBySectorInQcow2", "overlaps that of key slot 0",
        [](Luks1Volume& v) { v.phdr.keyslots[1].key_material_offset = 8 + 251; }, HeaderPlace::in_qcow2),
    invalid("SlotsOverlapByOneSector", "key slot 1: key material at sector 257 overlaps that of key slot 0",
            [](Luks1Volume& v) { v.phdr.keyslots[1].key_material_offset = 8 + 249; }),
    invalid(
        "KeyBytes64OverlapsSlots", "key slot 1: key material at sector 264 overlaps that of key slot 0",
        [](Luks1Volume& v) {
          v.phdr.payload_offset = 0;
          v.phdr.key_bytes = 64;
          v.rest.resize(2 << 20);
        },
        HeaderPlace::detached),
    invalid("SlotsAtOneOffset", "overlaps", [](Luks1Volume& v) { v.phdr.keyslots[7].key_material_offset = 8; }),
    invalid("SlotEndsInPayload", "key slot 7: key material ends at sector 2050, behind the payload's start at 2049",
            [](Luks1Volume& v) {
              v.phdr.payload_offset = 2049;
              v.phdr.keyslots[7].key_material_offset = 1800;
            }),
    invalid("SlotBehindPayload", "behind the payload's start",
            [](Luks1Volume& v) { v.phdr.keyslots[7].key_material_offset = v.phdr.payload_offset; }),
    invalid(
        "SlotBehindPayloadInQcow2", "behind the payload's start",
        [](Luks1Volume& v) { v.phdr.keyslots[7].key_material_offset = v.phdr.payload_offset; }, HeaderPlace::in_qcow2),
    invalid("SlotOffsetHuge", "key material ends at sector 4294967545",
            [](Luks1Volume& v) { v.phdr.keyslots[0].key_material_offset = UINT32_MAX; }),
    invalid(
        "SlotOffsetHugeDetached", "but the header's device has",
        [](Luks1Volume& v) {
          v.phdr.payload_offset = 0;
          v.phdr.keyslots[0].key_material_offset = UINT32_MAX;
        },
        HeaderPlace::detached),
    invalid("LastSlotBehindDevice", "key slot 7: key material ends at sector 2050, but the header's device has 2049",
            [](Luks1Volume& v) { v.rest.resize(2049 * 512 - sizeof v.phdr); }),
    invalid("CutBehindHeader", "but the header's device has 2", [](Luks1Volume& v) { v.rest.resize(1024 - 592); }),
    invalid("CutInHeader", "has 1023 bytes", [](Luks1Volume& v) { v.rest.resize(1023 - 592); }),
    invalid("CutBehindPhdr", "has 592 bytes", [](Luks1Volume& v) { v.rest.clear(); }),

    invalid("PayloadAt0", "payload_offset 0 overlaps the header", [](Luks1Volume& v) { v.phdr.payload_offset = 0; }),
    invalid(
        "PayloadAt0InQcow2", "payload_offset 0", [](Luks1Volume& v) { v.phdr.payload_offset = 0; },
        HeaderPlace::in_qcow2),
    invalid("PayloadAt1", "payload_offset 1", [](Luks1Volume& v) { v.phdr.payload_offset = 1; }),
    invalid("PayloadInKeyMaterial", "behind the payload's start at 2049",
            [](Luks1Volume& v) { v.phdr.payload_offset = 2049; }),
};

class Luks1Header : public ::testing::TestWithParam<Case> {};

/* All are unlocked; attached volumes are read as well, others have their payload elsewhere. */
Result<std::vector<std::byte>> read_volume(const std::vector<std::byte>& image, HeaderPlace place) {
  MemoryDevice device(image);
  Keyring keyring;
  keyring.add_secret(test::secret_of("secret"));
  const auto header = read_luks_header(device, place);
  if (!header) return tl::unexpected(header.error());
  const auto key = keyring.unlock(*header, device);
  if (!key) return tl::unexpected(key.error());
  if (place != HeaderPlace::attached) return std::vector<std::byte>();
  const auto format = open_luks(device, keyring);
  if (!format) return tl::unexpected(format.error());
  const auto layer = (*format)->stack_on(device);
  std::vector<std::byte> read(static_cast<size_t>(layer->size()));
  if (Status s = layer->read(read, 0); !s) return propagate(s);
  return read;
}

const char* const suffixes[] = {".luks1", ".luks1-header", ".luks1-qcow2"};

TEST_P(Luks1Header, HasItsVerdict) {
  const Case& c = GetParam();
  Luks1Volume volume = make_luks1();
  c.change(volume);
  const auto read = read_volume(volume.image(), c.place);
  if (!c.refused) {
    test::keep_image(c.name + suffixes[static_cast<size_t>(c.place)], volume.image());
    ASSERT_TRUE(read) << read.error().what;
    EXPECT_EQ(*read, c.place == HeaderPlace::attached ? volume.plain : std::vector<std::byte>());
    return;
  }
  ASSERT_FALSE(read);
  EXPECT_EQ(read.error().code, *c.refused) << read.error().what;
  EXPECT_NE(read.error().what.find(c.message), std::string::npos) << read.error().what;
  EXPECT_EQ(read.error().what.find('\n'), std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(Cases, Luks1Header, ::testing::ValuesIn(cases),
                         [](const auto& each) { return each.param.name; });

TEST(Luks1, IsDecoded) {
  MemoryDevice device(make_luks1({.secrets = {"a", "b"}}).image());
  const auto header = read_luks_header(device, HeaderPlace::attached);
  ASSERT_TRUE(header);
  EXPECT_EQ(header->uuid, "11111111-2222-3333-4444-555555555555");
  EXPECT_EQ(header->cipher.name(), "aes-xts-plain64");
  EXPECT_EQ(header->key_bytes, 32U);
  EXPECT_EQ(header->sector_size, 512U);
  EXPECT_EQ(header->payload_offset, (8 + 8 * 256) * 512U);
  ASSERT_EQ(header->keyslots.size(), 2U);
  EXPECT_EQ(header->keyslots[1].number, 1U);
  EXPECT_EQ(header->keyslots[1].area_offset, (8 + 256) * 512U);
  EXPECT_EQ(header->digests.size(), 1U);
  EXPECT_EQ(header->digests[0].digest.size(), 20U);
}

TEST(Luks1, KeyOfAnOddNumberOfSectorsOpens) {
  const Luks1Volume volume = make_luks1({.cipher_mode = "cbc-plain64", .key_bytes = 24, .secrets = {"", "two"}});
  MemoryDevice device(volume.image());
  Keyring keyring;
  keyring.add_secret(test::secret_of("two"));
  const auto format = open_luks(device, keyring);
  ASSERT_TRUE(format) << format.error().what;
  EXPECT_EQ((*format)->describe(), "LUKS1 aes-cbc-plain64 192-bit");
}

TEST(Luks1, EveryCipherAndHashOpens) {
  for (const char* mode : {"xts-plain64", "xts-plain", "cbc-plain64", "cbc-plain", "cbc-essiv:sha256"}) {
    for (const char* hash : {"sha1", "sha224", "sha256", "sha384", "sha512"}) {
      const Luks1Volume volume = make_luks1({.cipher_mode = mode, .hash = hash});
      MemoryDevice device(volume.image());
      Keyring keyring;
      keyring.add_secret(test::secret_of("secret"));
      const auto format = open_luks(device, keyring);
      ASSERT_TRUE(format) << format.error().what;
      const auto layer = (*format)->stack_on(device);
      std::vector<std::byte> read(static_cast<size_t>(layer->size()));
      ASSERT_TRUE(layer->read(read, 0));
      EXPECT_EQ(read, volume.plain) << mode << " " << hash;
    }
  }
}

TEST(Luks1, FailingStorageIsNotABadHeader) {
  MemoryDevice device(make_luks1().image());
  for (const size_t nth : {1U, 2U}) {
    device.calls.clear();
    device.fail_call = nth;
    const auto header = read_luks_header(device, HeaderPlace::attached);
    ASSERT_FALSE(header);
    EXPECT_EQ(header.error().code, Errc::io);
  }
}

} // namespace
} // namespace qluks
