/* SPDX-License-Identifier: BSD-3-Clause */
/* Seeds of fuzz_qcow2: images of every feature. */
#include "formats/qcow2/ondisk.hpp"
#include "tests/fuzz/seeds.hpp"
#include "tests/support/luks_builder.hpp"
#include "tests/support/streams.hpp"

namespace qluks::fuzz {

namespace {

/* What is cut off reads as zeroes, like what was never written; a smaller input is one that is changed where it counts.
 */
void cut(Content& qcow2) {
  constexpr size_t clusters = 10;
  const auto cluster_bits = load_on_disk<Qcow2HeaderOnDisk>(qcow2).cluster_bits;
  qcow2.resize(std::min(qcow2.size(), clusters << cluster_bits));
}

void write_qcow2(const std::string& name, ScriptOnDisk script, const std::vector<Content>& files) {
  script.sectors[0] = sectors_of(files[0]);
  Content seed;
  append_struct(seed, script);
  append_files(seed, files);
  write("fuzz_qcow2", name, seed);
  write("fuzz_info", "qcow2_" + name, seed);
}

void write_stored_qcow2(StoredImage image) {
  ScriptOnDisk script = script_for(image);
  const bool has_data_file = image.name == "qcow2, data file";
  if (image.name == "qcow2, backing chain") script.options = 4 | 8;
  if (has_data_file) script.options = 2;
  if (image.name == "LUKS in qcow2") script.options = 16;
  if (image.name == "qcow2, snapshot") test::set_text(script.snapshot, "before");
  if (image.name == "qcow2 with LUKS" || image.name == "LUKS in qcow2") drop_key_material(image);
  if (image.luks_headers.empty()) cut(image.files[0]);
  if (image.files.size() > 1) image.files[1].resize(std::min<size_t>(image.files[1].size(), 16 << 10));
  write_qcow2(image.test_name(), script, image.files);
}

void write_backing_files() {
  const Content overlay = small_overlay("base").bytes();
  write_qcow2("backing_raw", script_with(4), {overlay, test::compressible(20000)});
  write_qcow2("backing_qcow2", script_with(4 | 8), {overlay, small_qcow2(2).bytes()});
}

void write_extensions() {
  Qcow2Image image = small_qcow2();
  image.header().incompatible_features = uint64_t{3} << 60;
  std::array<Qcow2FeatureNameOnDisk, 2> features{};
  features[0].bit = 60;
  test::set_text(features[0].name, "from the future");
  image.add_extension(qcow2_ext_feature_names, std::as_bytes(std::span(features)).first(60)); /* no second record */
  write_qcow2("unknown_feature", script_with(0), {image.bytes()});

  image = small_qcow2();
  image.header().autoclear_features = 1U << qcow2_bitmaps_bit;
  const Qcow2BitmapsOnDisk bitmaps{.nb_bitmaps = 1, .reserved = 0, .directory_size = 64, .directory_offset = 4096};
  image.add_extension(qcow2_ext_bitmaps, std::as_bytes(std::span(&bitmaps, 1)));
  write_qcow2("bitmaps", script_with(0), {image.bytes()});

  image = small_qcow2();
  image.header().autoclear_features = 1U << qcow2_bitmaps_bit;
  image.add_extension(qcow2_ext_bitmaps, Content(sizeof(Qcow2BitmapsOnDisk)));
  write_qcow2("no_bitmaps", script_with(0), {image.bytes()});

  image = small_qcow2();
  image.add_extension(qcow2_ext_backing_format, text_of("a long format name"));
  write_qcow2("long_backing_format", script_with(0), {image.bytes()});
}

/* A disk of that size, of which the L1 table covers 2 MiB. */
void write_snapshot(const std::string& name, uint64_t disk_size) {
  Qcow2Image image = small_qcow2();
  add_snapshot(image, image.l1_offset(), disk_size);
  ScriptOnDisk script = script_with(0);
  script.snapshot[0] = '7';
  script.requests[3].offset = 2 << 20;
  write_qcow2(name, script, {image.bytes()});
}

} // namespace

void write_all_qcow2(const std::vector<StoredImage>& images) {
  for (const StoredImage& image : images) {
    if (image.files[0][0] == std::byte{'Q'}) write_stored_qcow2(image);
  }
  write_backing_files();
  write_extensions();
  write_snapshot("snapshot_too_large", uint64_t{1} << 63);
  write_snapshot("snapshot_beyond_table", 4 << 20);
}

} // namespace qluks::fuzz
