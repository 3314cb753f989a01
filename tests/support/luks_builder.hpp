/* SPDX-License-Identifier: BSD-3-Clause */
/* Makes LUKS volumes in memory: valid ones, to be damaged by one field and put together with right checksums.
 *
 * It is built on the parts under test (key derivation, splitter, ciphers); that those agree with the rest of the
 * world is shown by published vectors and by volumes that cryptsetup and qemu-img made.
 */
#ifndef QLUKS_TESTS_SUPPORT_LUKS_BUILDER_HPP
#define QLUKS_TESTS_SUPPORT_LUKS_BUILDER_HPP

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/secure_buffer.hpp"
#include "formats/luks/luks1_ondisk.hpp"
#include "formats/luks/luks2_ondisk.hpp"

namespace qluks::test {

SecureBuffer secret_of(std::string_view text);

/* Write the image to the folder that QLUKS_KEEP_IMAGES names, if it is set: for asking other programs about it. */
void keep_image(const std::string& name, const std::vector<std::byte>& image);

/* ── LUKS1 ── */

struct Luks1Spec {
  std::string cipher_name = "aes";
  std::string cipher_mode = "xts-plain64";
  std::string hash = "sha256";
  uint32_t key_bytes = 32;
  std::vector<std::string> secrets = {"secret"}; /* slots 0, 1, … */
  size_t payload_bytes = 64 << 10;
  std::vector<std::byte> payload = {}; /* whole sectors; empty: payload_bytes of anything */
};

struct Luks1Volume {
  Luks1PhdrOnDisk phdr;
  std::vector<std::byte> rest;  /* all that follows phdr: key material, encrypted payload */
  std::vector<std::byte> plain; /* what the payload decrypts to */

  std::vector<std::byte> image() const;
};

/* The key of every volume that is made here. */
std::vector<std::byte> volume_key(size_t bytes);

Luks1Volume make_luks1(const Luks1Spec& spec = {});

/* ── LUKS2 ── */

struct Luks2Slot {
  std::string secret;
  bool argon2 = false;
  int priority = -1; /* none is written */
  bool bound = true; /* to the payload; else it holds another key */
};

struct Luks2Spec {
  std::string cipher = "aes-xts-plain64";
  std::string hash = "sha256"; /* of everything but the header checksum */
  uint32_t key_bytes = 32;
  uint32_t sector_size = 512;
  uint64_t iv_tweak = 0;
  std::vector<Luks2Slot> slots = {{"secret"}};
  size_t payload_bytes = 64 << 10;
  uint64_t hdr_size = 16 << 10;
  std::vector<std::byte> payload = {}; /* whole sectors; empty: payload_bytes of anything */
};

struct Luks2Volume {
  nlohmann::ordered_json json;
  std::string text;             /* the JSON area instead of what `json` gives; may hold NULs */
  Luks2HdrOnDisk hdr;           /* of both copies, but for magic, offset and checksum */
  std::vector<std::byte> rest;  /* what follows the second copy: keyslots area, encrypted payload */
  std::vector<std::byte> plain; /* what the payload decrypts to */

  nlohmann::ordered_json& slot() { return json["keyslots"]["0"]; }
  nlohmann::ordered_json& segment() { return json["segments"]["0"]; }
  nlohmann::ordered_json& digest() { return json["digests"]["0"]; }

  /* One copy for `offset`, with its checksum. */
  std::vector<std::byte> copy(uint64_t offset) const;
  std::vector<std::byte> image() const;

  /* Split the segment in two that are one range, the first of which has `bytes`. */
  void split_segment(uint64_t bytes);
};

Luks2Volume make_luks2(const Luks2Spec& spec = {});

/* Set the checksum of the copy at `offset` in an image that was changed. */
void repair_luks2_checksum(std::vector<std::byte>& image, uint64_t offset);

template <size_t N>
void set_text(std::array<char, N>& field, std::string_view text) {
  field.fill('\0');
  std::copy(text.begin(), text.end(), field.begin());
}

} // namespace qluks::test

#endif
