/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/support/luks_builder.hpp"

#include <algorithm>
#include <cstdlib>
#include <fstream>

#include "base/checked.hpp"
#include "base/units.hpp"
#include "crypto/kdf/pbkdf.hpp"
#include "crypto/sector_cipher.hpp"
#include "formats/luks/af.hpp"
#include "formats/luks/header.hpp"
#include "tests/support/memory_device.hpp"

namespace qluks::test {

namespace {

using Buffer = std::vector<std::byte>;

constexpr uint32_t iterations = 2;

/* Bytes that differ from one `kind` to the next. */
Buffer filler(size_t size, unsigned kind) {
  Buffer bytes = MemoryDevice::pattern(size);
  for (std::byte& b : bytes) b ^= static_cast<std::byte>(kind * 37 + 11);
  return bytes;
}

Buffer derive_pbkdf2(const std::string& hash, std::span<const std::byte> secret, std::span<const std::byte> salt,
                     size_t bytes) {
  Buffer key(bytes);
  if (!pbkdf2(*find_hash(hash), secret, salt, iterations, key)) throw std::logic_error("pbkdf2");
  return key;
}

Buffer encrypt(const std::string& cipher, std::span<const std::byte> key, size_t sector_size, uint64_t first_sector,
               const Buffer& plain) {
  const auto spec = parse_cipher_spec(cipher);
  if (!spec) throw std::logic_error(spec.error().what);
  const auto sector_cipher = make_sector_cipher(*spec, key, sector_size);
  if (!sector_cipher) throw std::logic_error(sector_cipher.error().what);
  Buffer encrypted(plain.size());
  (*sector_cipher)->encrypt(SectorNumber{first_sector}, plain, encrypted);
  return encrypted;
}

/* Split `key`, encrypt the stripes; whole sectors. */
Buffer make_material(const std::string& cipher, const std::string& hash, std::span<const std::byte> keyslot_key,
                     const Buffer& key) {
  Buffer stripes = filler(*checked_align_up<size_t>(key.size() * af_stripes, sector_bytes), 3);
  af_split(*find_hash(hash), key, std::span(stripes).first(key.size() * af_stripes));
  return encrypt(cipher, keyslot_key, sector_bytes, 0, stripes);
}

/* What the payload decrypts to. */
template <class Spec>
Buffer plain_payload(const Spec& spec) {
  return spec.payload.empty() ? filler(spec.payload_bytes, 2) : spec.payload;
}

void put(Buffer& target, uint64_t offset, std::span<const std::byte> bytes) {
  std::copy(bytes.begin(), bytes.end(), target.begin() + static_cast<ptrdiff_t>(offset));
}

std::string base64(const Buffer& bytes) {
  constexpr std::string_view alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t group = 0;
    for (size_t j = 0; j < 3; ++j)
      group = group << 8 | (i + j < bytes.size() ? std::to_integer<uint32_t>(bytes[i + j]) : 0);
    for (size_t j = 0; j < 4; ++j) text += i + j > bytes.size() ? '=' : alphabet[group >> (18 - 6 * j) & 63];
  }
  return text;
}

} // namespace

void keep_image(const std::string& name, const std::vector<std::byte>& image) {
  const char* folder = std::getenv("QLUKS_KEEP_IMAGES");
  if (folder == nullptr) return;
  std::ofstream file(std::string(folder) + "/" + name, std::ios::binary);
  file.write(reinterpret_cast<const char*>(image.data()), static_cast<std::streamsize>(image.size()));
  if (!file) throw std::runtime_error("cannot write " + name);
}

std::vector<std::byte> volume_key(size_t bytes) { return filler(bytes, 1); }

SecureBuffer secret_of(std::string_view text) { return SecureBuffer::copy_of(std::as_bytes(std::span(text))); }

/* ── LUKS1 ── */

std::vector<std::byte> Luks1Volume::image() const {
  Buffer bytes(sizeof phdr + rest.size());
  put(bytes, 0, std::as_bytes(std::span(&phdr, 1)));
  put(bytes, sizeof phdr, rest);
  return bytes;
}

namespace {

void add_luks1_slot(Luks1Volume& volume, const Luks1Spec& spec, const Buffer& key, uint32_t number) {
  auto& slot = volume.phdr.keyslots[number];
  slot.active = luks1_slot_active;
  slot.iterations = iterations;
  const Buffer salt = filler(slot.salt.size(), number + 20);
  std::copy(salt.begin(), salt.end(), slot.salt.begin());
  const Buffer keyslot_key =
      derive_pbkdf2(spec.hash, std::as_bytes(std::span(spec.secrets[number])), salt, spec.key_bytes);
  const Buffer material = make_material(spec.cipher_name + "-" + spec.cipher_mode, spec.hash, keyslot_key, key);
  put(volume.rest, slot.key_material_offset * uint64_t{sector_bytes} - sizeof volume.phdr, material);
}

/* Eight slots from 4 KiB on, in units of 4 KiB, then the payload: as QEMU does it. */
void lay_out_luks1(Luks1Volume& volume, const Luks1Spec& spec) {
  const auto slot_sectors = static_cast<uint32_t>(*checked_align_up<size_t>(spec.key_bytes * af_stripes, 4096) / 512);
  uint32_t sector = 8;
  for (auto& slot : volume.phdr.keyslots) {
    slot.active = luks1_slot_inactive;
    slot.key_material_offset = sector;
    slot.stripes = af_stripes;
    sector += slot_sectors;
  }
  volume.phdr.payload_offset = sector;
  volume.rest.resize(sector * size_t{sector_bytes} + volume.plain.size() - sizeof volume.phdr);
}

} // namespace

Luks1Volume make_luks1(const Luks1Spec& spec) {
  Luks1Volume volume{};
  Luks1PhdrOnDisk& phdr = volume.phdr;
  phdr.magic = luks_magic;
  phdr.version = 1;
  set_text(phdr.cipher_name, spec.cipher_name);
  set_text(phdr.cipher_mode, spec.cipher_mode);
  set_text(phdr.hash_spec, spec.hash);
  set_text(phdr.uuid, "11111111-2222-3333-4444-555555555555");
  phdr.key_bytes = spec.key_bytes;
  phdr.digest_iterations = iterations;
  volume.plain = plain_payload(spec);
  lay_out_luks1(volume, spec);

  const Buffer key = volume_key(spec.key_bytes);
  const Buffer digest = derive_pbkdf2(spec.hash, key, phdr.digest_salt, phdr.digest.size());
  std::copy(digest.begin(), digest.end(), phdr.digest.begin());
  for (uint32_t i = 0; i < spec.secrets.size(); ++i) add_luks1_slot(volume, spec, key, i);
  put(volume.rest, phdr.payload_offset * uint64_t{sector_bytes} - sizeof phdr,
      encrypt(spec.cipher_name + "-" + spec.cipher_mode, key, sector_bytes, 0, volume.plain));
  return volume;
}

/* ── LUKS2 ── */

std::vector<std::byte> Luks2Volume::copy(uint64_t offset) const {
  Luks2HdrOnDisk binary = hdr;
  binary.magic = offset == 0 ? luks_magic : luks2_secondary_magic;
  binary.hdr_offset = offset;
  Buffer bytes(static_cast<size_t>(hdr.hdr_size));
  put(bytes, 0, std::as_bytes(std::span(&binary, 1)));
  const std::string area = text.empty() ? json.dump() : text;
  put(bytes, luks2_binary_bytes, std::as_bytes(std::span(area)));
  repair_luks2_checksum(bytes, 0);
  return bytes;
}

void Luks2Volume::split_segment(uint64_t bytes) {
  const uint64_t offset = std::stoull(segment()["offset"].get<std::string>());
  json["segments"]["1"] = segment();
  segment()["size"] = std::to_string(bytes);
  json["segments"]["1"]["offset"] = std::to_string(offset + bytes);
  json["segments"]["1"]["iv_tweak"] = std::to_string(bytes / 512);
  digest()["segments"] = {"0", "1"};
}

std::vector<std::byte> Luks2Volume::image() const {
  Buffer bytes = copy(0);
  const Buffer secondary = copy(hdr.hdr_size);
  bytes.insert(bytes.end(), secondary.begin(), secondary.end());
  bytes.insert(bytes.end(), rest.begin(), rest.end());
  return bytes;
}

void repair_luks2_checksum(std::vector<std::byte>& image, uint64_t offset) {
  auto hdr = load_on_disk<Luks2HdrOnDisk>(std::span(image).subspan(static_cast<size_t>(offset)));
  const HashAlgorithm* algorithm = find_hash(hdr.checksum_alg.data());
  if (algorithm == nullptr) return;
  hdr.checksum.fill(std::byte{0});
  put(image, offset, std::as_bytes(std::span(&hdr, 1)));
  Hash hash(*algorithm);
  hash.update(std::span(image).subspan(static_cast<size_t>(offset), static_cast<size_t>(hdr.hdr_size)));
  hash.digest(std::span(hdr.checksum).first(algorithm->digest_bytes()));
  put(image, offset, std::as_bytes(std::span(&hdr, 1)));
}

namespace {

uint64_t area_bytes(const Luks2Spec& spec) { return *checked_align_up<uint64_t>(spec.key_bytes * af_stripes, 4096); }

/* One key slot: its object and its key material. */
void add_luks2_slot(Luks2Volume& volume, const Luks2Spec& spec, const Buffer& key, size_t number) {
  const Luks2Slot& slot = spec.slots[number];
  const Buffer salt = filler(32, static_cast<unsigned>(number) + 20);
  const auto secret = std::as_bytes(std::span(slot.secret));
  Buffer keyslot_key(spec.key_bytes);
  nlohmann::ordered_json kdf;
  if (slot.argon2) {
    if (!argon2(Argon2Type::id, secret, salt, {1, 32, 2}, keyslot_key)) throw std::logic_error("argon2");
    kdf = {{"type", "argon2id"}, {"time", 1}, {"memory", 32}, {"cpus", 2}, {"salt", base64(salt)}};
  } else {
    keyslot_key = derive_pbkdf2(spec.hash, secret, salt, spec.key_bytes);
    kdf = {{"type", "pbkdf2"}, {"hash", spec.hash}, {"iterations", iterations}, {"salt", base64(salt)}};
  }
  const uint64_t offset = number * area_bytes(spec);
  put(volume.rest, offset, make_material(spec.cipher, spec.hash, keyslot_key, key));
  nlohmann::ordered_json& object = volume.json["keyslots"][std::to_string(number)];
  object = {{"type", "luks2"},
            {"key_size", spec.key_bytes},
            {"af", {{"type", "luks1"}, {"stripes", 4000}, {"hash", spec.hash}}},
            {"area",
             {{"type", "raw"},
              {"offset", std::to_string(2 * spec.hdr_size + offset)},
              {"size", std::to_string(area_bytes(spec))},
              {"encryption", spec.cipher},
              {"key_size", spec.key_bytes}}},
            {"kdf", kdf}};
  if (slot.priority >= 0) object["priority"] = slot.priority;
}

nlohmann::ordered_json make_digest(const Luks2Spec& spec, const Buffer& key, bool bound) {
  const Buffer salt = filler(32, 40);
  const size_t bytes = find_hash(spec.hash)->digest_bytes();
  nlohmann::ordered_json keyslots = nlohmann::ordered_json::array();
  for (size_t i = 0; i < spec.slots.size(); ++i) {
    if (spec.slots[i].bound == bound) keyslots.push_back(std::to_string(i));
  }
  nlohmann::ordered_json segments = nlohmann::ordered_json::array();
  if (bound) segments.push_back("0");
  return {{"type", "pbkdf2"},
          {"keyslots", keyslots},
          {"segments", segments},
          {"hash", spec.hash},
          {"iterations", iterations},
          {"salt", base64(salt)},
          {"digest", base64(derive_pbkdf2(spec.hash, key, salt, bytes))}};
}

void fill_json(Luks2Volume& volume, const Luks2Spec& spec, uint64_t keyslots_size) {
  volume.json = {{"keyslots", nlohmann::ordered_json::object()},
                 {"tokens", nlohmann::ordered_json::object()},
                 {"segments",
                  {{"0",
                    {{"type", "crypt"},
                     {"offset", std::to_string(2 * spec.hdr_size + keyslots_size)},
                     {"size", "dynamic"},
                     {"iv_tweak", std::to_string(spec.iv_tweak)},
                     {"encryption", spec.cipher},
                     {"sector_size", spec.sector_size}}}}},
                 {"digests", nlohmann::ordered_json::object()},
                 {"config",
                  {{"json_size", std::to_string(spec.hdr_size - luks2_binary_bytes)},
                   {"keyslots_size", std::to_string(keyslots_size)}}}};
}

} // namespace

Luks2Volume make_luks2(const Luks2Spec& spec) {
  Luks2Volume volume{};
  volume.hdr.version = 2;
  volume.hdr.hdr_size = spec.hdr_size;
  volume.hdr.seqid = 3;
  set_text(volume.hdr.checksum_alg, "sha256");
  set_text(volume.hdr.label, "a label");
  set_text(volume.hdr.uuid, "66666666-7777-8888-9999-000000000000");

  const uint64_t keyslots_size = std::max<size_t>(spec.slots.size(), 2) * area_bytes(spec);
  volume.plain = plain_payload(spec);
  volume.rest.resize(static_cast<size_t>(keyslots_size) + volume.plain.size());
  fill_json(volume, spec, keyslots_size);
  const Buffer key = volume_key(spec.key_bytes);
  const Buffer other_key = filler(spec.key_bytes, 5);
  for (size_t i = 0; i < spec.slots.size(); ++i) {
    add_luks2_slot(volume, spec, spec.slots[i].bound ? key : other_key, i);
  }
  volume.json["digests"]["0"] = make_digest(spec, key, true);
  const bool has_unbound =
      std::any_of(spec.slots.begin(), spec.slots.end(), [](const Luks2Slot& slot) { return !slot.bound; });
  if (has_unbound) volume.json["digests"]["1"] = make_digest(spec, other_key, false);

  put(volume.rest, keyslots_size, encrypt(spec.cipher, key, spec.sector_size, spec.iv_tweak, volume.plain));
  return volume;
}

} // namespace qluks::test
