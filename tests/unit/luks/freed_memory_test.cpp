/* SPDX-License-Identifier: BSD-3-Clause */
/* What a key slot is opened with lies in secret memory alone: every block of ordinary memory that is given back is
 * searched for the passphrase, the stripes of the key and the key itself.
 *
 * A program of its own, since it replaces operator new and delete of all that is in it. */
#include <gtest/gtest.h>
#include <malloc.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <new>

#include "crypto/sector_cipher.hpp"
#include "formats/luks/keyslot.hpp"
#include "tests/support/luks_builder.hpp"
#include "tests/support/memory_device.hpp"

namespace {

struct Needle {
  std::array<std::byte, 32> bytes;
  size_t size;
};

constexpr size_t needles_max = 3;
std::array<Needle, needles_max> needles;
std::atomic<size_t> needle_count{0};
std::atomic<size_t> found{0};

void search_and_free(void* block) noexcept {
  for (size_t i = 0; block != nullptr && i < needle_count; ++i) {
    found += memmem(block, malloc_usable_size(block), needles[i].bytes.data(), needles[i].size) != nullptr;
  }
  std::free(block);
}

void* allocate(size_t size) {
  if (void* block = std::malloc(size)) return block;
  throw std::bad_alloc();
}

} // namespace

void* operator new(size_t size) { return allocate(size); }
void* operator new[](size_t size) { return allocate(size); }
void operator delete(void* block) noexcept { search_and_free(block); }
void operator delete[](void* block) noexcept { search_and_free(block); }
void operator delete(void* block, size_t) noexcept { search_and_free(block); }
void operator delete[](void* block, size_t) noexcept { search_and_free(block); }

namespace qluks {
namespace {

using test::MemoryDevice;

constexpr std::string_view passphrase = "the passphrase that is looked for";

void look_for(Bytes bytes) {
  Needle& needle = needles[needle_count];
  needle.size = std::min(bytes.size(), needle.bytes.size());
  std::copy_n(bytes.begin(), needle.size, needle.bytes.begin());
  ++needle_count;
}

/* The stripes as they are before they are merged: some of them that are not the first. */
void look_for_stripes(const LuksKeyslot& slot, Bytes material, const SecureBuffer& secret) {
  SecureBuffer key(slot.area_key_bytes);
  if (const auto* kdf = std::get_if<Pbkdf2Params>(&slot.kdf)) {
    ASSERT_TRUE(pbkdf2(*kdf->hash, secret.span(), slot.salt, kdf->iterations, key.span()));
  } else {
    const auto& params = std::get<Argon2Params>(slot.kdf);
    ASSERT_TRUE(argon2(params.type, secret.span(), slot.salt, params.cost, key.span()));
  }
  const auto cipher = make_sector_cipher(slot.area_cipher, std::as_const(key).span(), 512);
  ASSERT_TRUE(cipher);
  SecureBuffer stripes(material.size());
  (*cipher)->decrypt(SectorNumber{0}, material, stripes.span());
  look_for(std::as_const(stripes).span().subspan(4096, 32));
}

void expect_nothing_found(MemoryDevice& device) {
  needle_count = 0;
  const SecureBuffer secret = test::secret_of(passphrase);
  const auto header = read_luks_header(device, HeaderPlace::attached);
  ASSERT_TRUE(header) << header.error().what;
  const LuksKeyslot& slot = header->keyslots.at(0);
  const auto material = read_key_material(slot, device);
  ASSERT_TRUE(material);
  look_for_stripes(slot, *material, secret);
  look_for(secret.span());
  look_for(test::volume_key(slot.key_bytes));
  found = 0;
  /* Several times: the thread of a derivation may give its memory back a moment later than it answers. */
  for (int i = 0; i < 5; ++i) {
    const auto key = open_keyslot(slot, header->digests[slot.digest], *material, secret.span());
    ASSERT_TRUE(key);
    ASSERT_TRUE(*key);
  }
  EXPECT_EQ(found, 0U);
  needle_count = 0;
}

TEST(FreedMemory, IsSearched) {
  look_for(std::as_bytes(std::span(passphrase)));
  found = 0;
  delete new std::string(passphrase);
  EXPECT_EQ(found, 1U);
  needle_count = 0;
}

TEST(FreedMemory, Pbkdf2) {
  MemoryDevice device(test::make_luks1({.secrets = {std::string(passphrase)}}).image());
  expect_nothing_found(device);
}

TEST(FreedMemory, Argon2) {
  MemoryDevice device(test::make_luks2({.slots = {{.secret = std::string(passphrase), .argon2 = true}}}).image());
  expect_nothing_found(device);
}

} // namespace
} // namespace qluks
