/* SPDX-License-Identifier: BSD-3-Clause */
/* Seeds of fuzz_parameters: lines of NAME=VALUE, and the image behind them. */
#include "formats/luks/luks1_ondisk.hpp"
#include "formats/qcow2/ondisk.hpp"
#include "tests/fuzz/seeds.hpp"
#include "tests/support/partition_builder.hpp"
#include "tests/support/streams.hpp"

namespace qluks::fuzz {

namespace {

void write_parameters(const std::string& name, std::string_view lines, std::span<const std::byte> image) {
  Content content = text_of(std::string(lines) + "\n");
  append(content, image);
  write("fuzz_parameters", name, content);
}

void write_luks_parameters(std::span<const std::byte> luks1) {
  write_parameters("auto", "qluks-passphrase=secret\nqluks-discard=false\n", luks1);
  write_parameters("command", "qluks-key-command=echo\nqluks-layers=luks\nqluks-key-slot=1\nqluks-kdf-time=5\n", luks1);
  write_parameters("no_such_slot", "qluks-key-slot=32\n", {});
  write_parameters("header", "qluks-header=file\nqluks-key-file=null\nqluks-key-file-offset=0\nqluks-passphrase=x\n",
                   luks1);
  write_parameters("snapshot_of_luks", "qluks-snapshot=a\nqluks-passphrase=secret\n", luks1);
  write_parameters("volume_key", "qluks-volume-key-file=key\nqluks-kdf-memory=1048576\nqluks-layers=luks,qcow2\n",
                   luks1);
  write_parameters("key_file", "qluks-key-file=-\nqluks-key-file-size=32\nqluks-layers=raw\n", {});
  write_parameters("key_file_part", "qluks-key-file=key\nqluks-key-file-offset=3\nqluks-key-file-size=32\n", luks1);
  write_parameters("key_file_short", "qluks-key-file=key\nqluks-key-file-size=1000\n", luks1);
  write_parameters("key_file_large", "qluks-key-file=key\nqluks-key-file-size=10000000\n", luks1);
}

/* `image` with a file beside it: one that is named by a number is so many 4 KiB behind the image's start (see
 * fuzz_parameters.cpp). */
constexpr size_t beside = 20;

Content with_beside(Content image, std::span<const std::byte> file) {
  image.resize(beside * 4096);
  append(image, file);
  return image;
}

void write_files_beside(std::span<const std::byte> luks1, const Content& encrypted, const Content& with_data_file) {
  const Content overlay = small_overlay("base", "raw").bytes();
  const auto seed = [&](const std::string& name, std::string_view lines, std::span<const std::byte> file) {
    write_parameters(name, lines, with_beside(overlay, file));
  };
  seed("backing", "qluks-backing=nbd://host/b\nqluks-backing=luks:a\n", {});
  seed("backing_raw", "qluks-backing=raw:20\n", test::compressible(10000));
  seed("backing_recorded", "qluks-backing=20\n", {});
  seed("backing_qcow2", "qluks-backing=qcow2:20\n", small_qcow2(2).bytes());
  seed("backing_luks", "qluks-backing=luks:20\nqluks-passphrase=secret\n", luks1);
  std::string same_again;
  for (int i = 0; i < 65; ++i) same_again += "qluks-backing=qcow2:0\n";
  seed("backing_itself", same_again, {});
  write_parameters("backing_unknown", "qluks-backing=20\n", small_overlay("base", "vmdk").bytes());

  constexpr std::string_view dir = "qluks-backing-dir=d\nqluks-engine=nettle\n";
  write_parameters("backing_dir", dir, small_overlay("a/b", "qcow2").bytes());
  write_parameters("backing_inside", dir, small_overlay("/nonexistent/d/b", "qcow2").bytes());
  write_parameters("backing_outside", dir, small_overlay("/b", "qcow2").bytes());
  Qcow2Image image = small_qcow2();
  image.header().incompatible_features = 1U << qcow2_data_file_bit;
  image.add_extension(qcow2_ext_data_file, text_of("data"));
  write_parameters("data_in_dir", dir, image.bytes());

  write_parameters("data_file", "qluks-data-file=missing\nqluks-layers=auto\n", with_data_file);
  write_parameters("no_data_file", "qluks-data-file=3\n", small_qcow2().bytes());
  constexpr std::string_view header = "qluks-header=20\nqluks-passphrase=secret\n";
  write_parameters("header_on_qcow2", header, with_beside(small_qcow2().bytes(), luks1));
  write_parameters("header_on_encrypted", header, with_beside(encrypted, luks1));
}

} // namespace

void write_all_parameters(const std::vector<StoredImage>& images) {
  const auto image = [&](std::string_view name) -> const Content& {
    return std::find_if(images.begin(), images.end(), [&](const StoredImage& i) { return i.name == name; })->files[0];
  };
  const auto luks1 = std::span(image("LUKS1")).first(sizeof(Luks1PhdrOnDisk));
  write_luks_parameters(luks1);
  write_files_beside(luks1, image("qcow2, AES"), image("qcow2, data file"));
  write_parameters("snapshot", "qluks-snapshot=before\nqluks-cache-size=65536\nqluks-layers=qcow2\n",
                   image("qcow2, snapshot"));
  write_parameters("secret", "qluks-passphrase=secret\n", small_qcow2().bytes());
  test::MbrDisk disk(200);
  disk.set(0, 1, 0x83, 8, 190);
  put(disk.bytes, 8 * sector_bytes, luks1);
  write_parameters("partition", "qluks-passphrase=secret\nqluks-layers=partition:2,luks\n", disk.bytes);
  write_parameters("partition_not_named", "qluks-passphrase=secret\n", disk.bytes);
  write_parameters("many_layers", "qluks-layers=luks,partition:1,qcow2,luks,luks,qcow2,partition:8192,luks\n", luks1);
}

} // namespace qluks::fuzz
