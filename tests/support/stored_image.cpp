/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/support/stored_image.hpp"

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <iterator>
#include <ostream>

#include "crypto/sector_cipher.hpp"
#include "formats/luks/keyring.hpp"
#include "formats/qcow2/header.hpp"
#include "tests/support/luks_builder.hpp"
#include "tests/support/qcow2_image.hpp"
#include "tests/support/streams.hpp"

namespace qluks::test {

template <class T>
Status OpenedImage::push(Result<std::unique_ptr<T>> format) {
  if (!format) return propagate(format);
  formats_.push_back(std::move(*format));
  layers_.push_back(formats_.back()->stack_on(*top_));
  top_ = layers_.back().get();
  return ok();
}

std::string OpenedImage::describe() const {
  std::string text;
  for (const auto& format : formats_) text += (text.empty() ? "" : ", ") + format->describe();
  return text;
}

Status OpenedImage::open_qcow2(Keyring& keyring, const Qcow2Options& options) {
  auto found = probe_qcow2(*top_);
  if (!found) return propagate(found);
  return push(qluks::open_qcow2(*top_, keyring, options));
}

Status OpenedImage::open_luks(Keyring& keyring) {
  auto found = probe_luks(*top_);
  if (!found) return propagate(found);
  return push(qluks::open_luks(*top_, keyring));
}

Status OpenedImage::open_payload_of(BlockDevice& header, Keyring& keyring) {
  auto detached = DetachedHeader::open(header, keyring);
  if (!detached) return propagate(detached);
  return push((*detached)->open_payload(*top_));
}

namespace {

Content& put(Content& target, uint64_t offset, std::span<const std::byte> bytes) {
  std::copy(bytes.begin(), bytes.end(), target.begin() + static_cast<ptrdiff_t>(offset));
  return target;
}

} // namespace

std::string StoredImage::test_name() const {
  std::string text;
  std::copy_if(name.begin(), name.end(), std::back_inserter(text),
               [](char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0; });
  return text;
}

void PrintTo(const StoredImage& image, std::ostream* out) { *out << image.name; }

void StoredImage::rename(unsigned number) {
  constexpr size_t uuid_at = 168; /* in both versions */
  char text[16];
  const auto length = static_cast<size_t>(std::snprintf(text, sizeof text, "%010u", number));
  const auto uuid = std::as_bytes(std::span(text, length));
  for (const auto& [file, offset] : luks_headers) {
    Content& bytes = files[file];
    const bool luks2 = bytes[offset + 7] == std::byte{2};
    put(bytes, offset + uuid_at, uuid);
    if (!luks2) continue;
    const uint64_t secondary = offset + load_on_disk<Luks2HdrOnDisk>(std::span(bytes).subspan(offset)).hdr_size;
    put(bytes, secondary + uuid_at, uuid);
    repair_luks2_checksum(bytes, offset);
    repair_luks2_checksum(bytes, secondary);
  }
}

namespace {

constexpr size_t guest_bytes = 96 << 10;
constexpr uint64_t copied = uint64_t{1} << 63;

std::shared_ptr<const SectorCipher> cipher_of(const std::string& spec, std::span<const std::byte> key) {
  return *make_sector_cipher(*parse_cipher_spec(spec), key, sector_bytes);
}

/* Writes guest clusters into a qcow2 and keeps what they read as. */
class Qcow2Writer {
 public:
  explicit Qcow2Writer(const Qcow2Image::Shape& shape) : image(shape), guest(shape.size) {}

  size_t cluster_size() const { return static_cast<size_t>(image.cluster_size()); }
  size_t clusters() const { return guest.size() / cluster_size(); }
  std::span<std::byte> cluster(size_t i) { return std::span(guest).subspan(i * cluster_size(), cluster_size()); }

  /* A cluster with those bytes, which need not be what the guest reads. */
  uint64_t store(std::span<const std::byte> bytes) {
    const uint64_t at = image.add_cluster(0);
    put(image.bytes(), at, bytes);
    return at;
  }

  void write(size_t i, std::span<const std::byte> plain, uint64_t bitmap = 0xffffffff) {
    put(guest, i * cluster_size(), plain);
    const uint64_t at = store(plain);
    if (cipher) {
      const auto sector = SectorNumber{(counts_guest ? i * cluster_size() : at) / sector_bytes};
      const auto stored = std::span(image.bytes()).subspan(at, plain.size());
      cipher->encrypt(sector, stored, stored);
    }
    image.set_l2(i, copied | at, bitmap);
  }

  /* Data in two clusters of three, but for a zero cluster and a kept one; the data differs by `seed`. */
  void fill(unsigned seed) {
    const Content content = compressible(guest.size() + seed);
    for (size_t i = 0; i < clusters(); ++i) {
      const auto plain = std::span(content).subspan(i * cluster_size() + seed, cluster_size());
      if (i % 16 == 5) {
        image.set_l2(i, Qcow2Image::zero_flag);
      } else if (i % 16 == 6) {
        image.set_l2(i, copied | store(plain) | Qcow2Image::zero_flag);
      } else if (i % 3 != 2) {
        write(i, plain);
      }
    }
  }

  Qcow2Image image;
  Content guest;
  std::shared_ptr<const SectorCipher> cipher; /* null: plain */
  bool counts_guest = false;
};

Status open_plain_qcow2(OpenedImage& opened, const StoredImage::Devices&, Keyring& keyring) {
  return opened.open_qcow2(keyring, {});
}

StoredImage one_file(std::string name, Qcow2Writer& writer, StoredImage::OpenFn open = open_plain_qcow2) {
  return {std::move(name), {writer.image.bytes()}, writer.guest, std::move(open)};
}

StoredImage plain_qcow2(uint32_t version, unsigned cluster_bits) {
  Qcow2Writer writer({.size = guest_bytes, .cluster_bits = cluster_bits, .version = version});
  if (version == 3) writer.fill(0);
  for (size_t i = 0; version == 2 && i < writer.clusters(); i += 2) writer.write(i, compressible(512));
  return one_file("qcow2 v" + std::to_string(version), writer);
}

/* Subclusters of 512 bytes: data, zeroes and nothing side by side in each cluster. */
StoredImage extended_l2() {
  Qcow2Writer writer({.size = guest_bytes, .cluster_bits = 14, .extended_l2 = true});
  constexpr uint32_t has_data = 0x0ff0ff0f;
  constexpr uint64_t is_zero = 0xf0000000;
  for (size_t i = 0; i + 1 < writer.clusters(); ++i) {
    Content plain = compressible(writer.cluster_size());
    for (unsigned sub = 0; sub < 32; ++sub) {
      if ((has_data >> sub & 1) == 0) std::fill_n(plain.begin() + sub * 512, 512, std::byte{0});
    }
    writer.write(i, plain, is_zero << 32 | has_data);
  }
  return one_file("qcow2, extended L2", writer);
}

StoredImage compressed(Qcow2Compression type, unsigned cluster_bits) {
  const size_t cluster_size = size_t{1} << cluster_bits;
  Qcow2Writer writer({.size = std::max(guest_bytes, cluster_size), .cluster_bits = cluster_bits});
  const bool is_zstd = type == Qcow2Compression::zstd;
  if (is_zstd) {
    writer.image.header().compression_type = 1;
    writer.image.header().incompatible_features = 1U << qcow2_compression_bit;
  }
  const Content plain = compressible(cluster_size);
  for (size_t i = 0; i < writer.clusters(); ++i) {
    if (i % 7 == 6) {
      writer.write(i, plain);
      continue;
    }
    put(writer.guest, i * cluster_size, plain);
    /* Every fifth by a stream that is longer than the cluster, which libdeflate leaves to zlib. */
    const Content stream = is_zstd ? zstd_frame(plain) : deflated(compressible(cluster_size + (i % 5 == 4 ? 700 : 0)));
    const uint64_t at = writer.store(stream);
    const uint64_t sectors = (stream.size() + 511) / 512 - 1;
    writer.image.set_l2(i, Qcow2Image::compressed_flag | sectors << (70 - cluster_bits) | at);
  }
  return one_file(
      std::string("qcow2, ") + (is_zstd ? "zstd" : "zlib") + (cluster_size > guest_bytes ? ", one large cluster" : ""),
      writer);
}

/* Everything was discarded after the snapshot was taken. */
StoredImage snapshot() {
  Qcow2Writer writer({.size = guest_bytes, .cluster_bits = 12});
  writer.fill(0);
  const auto active_l1 = std::span(writer.image.bytes()).subspan(writer.image.l1_offset(), writer.cluster_size());
  const uint64_t l1 = writer.store(Content(active_l1.begin(), active_l1.end()));
  put(writer.image.bytes(), writer.image.l1_offset(), Content(writer.cluster_size()));
  const uint64_t table = writer.store({});
  Qcow2SnapshotOnDisk disk{};
  disk.l1_table_offset = l1;
  disk.l1_size = writer.image.header().l1_size;
  disk.id_size = 1;
  disk.name_size = 6;
  disk.extra_data_size = 16;
  put(writer.image.bytes(), table, std::as_bytes(std::span(&disk, 1)));
  writer.image.put_u64(table + sizeof disk + 8, guest_bytes);
  put(writer.image.bytes(), table + sizeof disk + 16, std::as_bytes(std::span("7before", 7)));
  writer.image.header().nb_snapshots = 1;
  writer.image.header().snapshots_offset = table;
  return one_file("qcow2, snapshot", writer, [](OpenedImage& opened, const StoredImage::Devices&, Keyring& keyring) {
    return opened.open_qcow2(keyring, {.snapshot = "before"});
  });
}

/* For a device that someone else owns. */
std::shared_ptr<BlockDevice> borrowed(BlockDevice& device) {
  return {&device, [](BlockDevice*) {}};
}

void name_backing(Qcow2Image& image) {
  constexpr std::string_view name = "base";
  image.header().backing_file_offset = 256;
  image.header().backing_file_size = static_cast<uint32_t>(name.size());
  put(image.bytes(), 256, std::as_bytes(std::span(name)));
}

/* top.qcow2 ▶ middle.qcow2, shorter ▶ base.raw, shorter still */
StoredImage backing_chain() {
  Qcow2Writer top({.size = guest_bytes, .cluster_bits = 12});
  Qcow2Writer middle({.size = guest_bytes / 2, .cluster_bits = 9});
  const Content base = compressible(guest_bytes / 4 + 700);
  put(middle.guest, 0, base);
  for (size_t i = 0; i < middle.clusters(); i += 5) middle.write(i, Content(512, std::byte{0x11}));
  put(top.guest, 0, middle.guest);
  for (size_t i = 0; i < top.clusters(); i += 4) top.write(i, Content(4096, std::byte{0x22}));
  name_backing(middle.image);
  name_backing(top.image);
  const auto open = [](OpenedImage& opened, const StoredImage::Devices& devices, Keyring& keyring) -> Status {
    const auto below = std::make_shared<OpenedImage>(*devices[1]);
    if (Status s = below->open_qcow2(keyring, {.backing = borrowed(*devices[2]), .read_only = true}); !s) return s;
    return opened.open_qcow2(keyring, {.backing = std::shared_ptr<BlockDevice>(below, &below->disk())});
  };
  return {"qcow2, backing chain", {top.image.bytes(), middle.image.bytes(), base}, top.guest, open};
}

/* Clusters are where the guest has them. */
StoredImage data_file() {
  Qcow2Writer writer({.size = guest_bytes, .cluster_bits = 12});
  writer.image.header().incompatible_features = 1U << qcow2_data_file_bit;
  Content data = compressible(guest_bytes - 1000);
  for (size_t i = 0; i < writer.clusters(); ++i) {
    if (i % 4 == 3) continue;
    const size_t at = i * 4096;
    put(writer.guest, at, std::span(data).subspan(at, std::min<size_t>(4096, data.size() - at)));
    writer.image.set_l2(i, copied | at);
  }
  const auto open = [](OpenedImage& opened, const StoredImage::Devices& devices, Keyring& keyring) {
    return opened.open_qcow2(keyring, {.data_file = borrowed(*devices[1])});
  };
  return {"qcow2, data file", {writer.image.bytes(), data}, writer.guest, open};
}

StoredImage legacy_aes() {
  Qcow2Writer writer({.size = guest_bytes, .cluster_bits = 12});
  writer.image.header().crypt_method = 1;
  Content key(16);
  put(key, 0, std::as_bytes(std::span(std::string_view(stored_image_secret))));
  writer.cipher = cipher_of("aes-cbc-plain64", key);
  writer.counts_guest = true;
  writer.fill(0);
  return one_file("qcow2, AES", writer);
}

/* The header and key material of a LUKS volume in clusters of the qcow2. */
StoredImage qcow2_with_luks() {
  Qcow2Writer writer({.size = guest_bytes, .cluster_bits = 12});
  Luks1Volume volume = make_luks1({.payload_bytes = 0});
  const Content luks = volume.image();
  const uint64_t at = writer.image.bytes().size();
  for (size_t done = 0; done < luks.size(); done += 4096) {
    writer.store(std::span(luks).subspan(done, std::min<size_t>(4096, luks.size() - done)));
  }
  const Qcow2EncryptionOnDisk extension{at, luks.size()};
  writer.image.header().crypt_method = 2;
  writer.image.add_extension(qcow2_ext_encryption, std::as_bytes(std::span(&extension, 1)));
  writer.cipher = cipher_of("aes-xts-plain64", volume_key(32));
  writer.fill(0);
  StoredImage image = one_file("qcow2 with LUKS", writer);
  image.luks_headers = {{0, at}};
  return image;
}

Status open_only_luks(OpenedImage& opened, const StoredImage::Devices&, Keyring& keyring) {
  return opened.open_luks(keyring);
}

StoredImage luks1() {
  const Luks1Volume volume = make_luks1({.secrets = {"another", stored_image_secret}});
  return {"LUKS1", {volume.image()}, volume.plain, open_only_luks, {{0, 0}}};
}

StoredImage luks2(const Luks2Spec& spec) {
  const Luks2Volume volume = make_luks2(spec);
  return {"LUKS2, sectors of " + std::to_string(spec.sector_size),
          {volume.image()},
          volume.plain,
          open_only_luks,
          {{0, 0}}};
}

/* The primary copy is gone, so all places of the secondary one are looked at. */
StoredImage luks2_with_secondary_only() {
  const Luks2Volume volume = make_luks2({.hdr_size = 32 << 10});
  Content bytes = volume.image();
  std::fill_n(bytes.begin(), 4096, std::byte{0});
  return {"LUKS2, secondary header", {bytes}, volume.plain, open_only_luks};
}

StoredImage detached_header() {
  const Luks2Volume volume = make_luks2({.sector_size = 4096});
  const Content whole = volume.image();
  const auto payload_at = whole.end() - static_cast<ptrdiff_t>(volume.plain.size());
  Luks2Volume header = volume;
  header.segment()["offset"] = "0";
  const auto open = [](OpenedImage& opened, const StoredImage::Devices& devices, Keyring& keyring) {
    return opened.open_payload_of(*devices[1], keyring);
  };
  return {"LUKS2, detached header", {Content(payload_at, whole.end()), header.image()}, volume.plain, open, {{1, 0}}};
}

/* What the guest of a qcow2 holds is a volume by itself. */
StoredImage luks_in_qcow2() {
  const Luks1Volume volume = make_luks1();
  const Content inner = volume.image();
  Qcow2Writer writer({.size = inner.size(), .cluster_bits = 16});
  for (size_t i = 0; i * 65536 < inner.size(); ++i) {
    const auto rest = std::span(inner).subspan(i * 65536);
    const uint64_t at = writer.store(rest.first(std::min<size_t>(rest.size(), 65536)));
    writer.image.set_l2(i, copied | at);
  }
  const uint64_t header_at = writer.image.bytes().size() - (inner.size() + 65535) / 65536 * 65536;
  const auto open = [](OpenedImage& opened, const StoredImage::Devices&, Keyring& keyring) -> Status {
    if (Status s = opened.open_qcow2(keyring, {}); !s) return s;
    return opened.open_luks(keyring);
  };
  return {"LUKS in qcow2", {writer.image.bytes()}, volume.plain, open, {{0, header_at}}};
}

StoredImage qcow2_in_luks() {
  Qcow2Writer writer({.size = guest_bytes, .cluster_bits = 12});
  writer.fill(0);
  const Luks2Volume volume = make_luks2({.payload = writer.image.bytes()});
  const auto open = [](OpenedImage& opened, const StoredImage::Devices&, Keyring& keyring) -> Status {
    if (Status s = opened.open_luks(keyring); !s) return s;
    return opened.open_qcow2(keyring, {});
  };
  return {"qcow2 in LUKS", {volume.image()}, writer.guest, open, {{0, 0}}};
}

} // namespace

std::vector<StoredImage> stored_images() {
  return {plain_qcow2(3, 9),
          plain_qcow2(2, 9),
          extended_l2(),
          compressed(Qcow2Compression::zlib, 12),
          compressed(Qcow2Compression::zstd, 12),
          compressed(Qcow2Compression::zlib, 19),
          snapshot(),
          backing_chain(),
          data_file(),
          legacy_aes(),
          qcow2_with_luks(),
          luks1(),
          luks2({.slots = {{"another"}, {stored_image_secret}}}),
          luks2({.sector_size = 4096, .slots = {{stored_image_secret, true}}}),
          luks2_with_secondary_only(),
          detached_header(),
          luks_in_qcow2(),
          qcow2_in_luks()};
}

std::vector<StoredImage> writable_images() {
  constexpr uint64_t room_bytes = 160 << 10;
  std::vector<StoredImage> images = stored_images();
  std::erase_if(images, [](const StoredImage& image) {
    return load_on_disk<be32>(image.files[0]) != qcow2_magic || image.name == "qcow2, snapshot";
  });
  for (StoredImage& image : images) {
    Content& bytes = image.files[0];
    Qcow2Image::set_copied(bytes);
    Qcow2Image::count_clusters(bytes);
    const uint64_t cluster_size = uint64_t{1} << load_on_disk<Qcow2HeaderOnDisk>(bytes).cluster_bits;
    /* First noise, then zeroes. */
    const uint64_t room = std::max(room_bytes, 3 * cluster_size);
    bytes.resize(bytes.size() + room / 2, std::byte{0xa5});
    bytes.resize(bytes.size() + room / 2);
    if (image.name == "qcow2, data file") image.files[1].resize(image.guest.size());
  }
  return images;
}

} // namespace qluks::test
