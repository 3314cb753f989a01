/* SPDX-License-Identifier: BSD-3-Clause */
/* Seeds of fuzz_qcow2_write: images that can be written, and what is done to them. */
#include "formats/qcow2/ondisk.hpp"
#include "tests/fuzz/seeds.hpp"
#include "tests/support/streams.hpp"

namespace qluks::fuzz {

namespace {

void write_for_writing(const std::string& name, ScriptOnDisk script, const WritingOnDisk& writing,
                       const std::vector<Content>& files) {
  constexpr uint32_t room = 512;
  script.sectors[0] = sectors_of(files[0]) + room;
  Content seed;
  append_struct(seed, script);
  append_struct(seed, writing);
  append_files(seed, files);
  constexpr size_t seed_bytes_max = 68 << 10; /* what run.sh lets libFuzzer take */
  if (seed.size() > seed_bytes_max) return;
  write("fuzz_qcow2_write", name, seed);
}

/* Each cluster of it is used once. */
Content writable(Content image) {
  Qcow2Image::count_clusters(image);
  Qcow2Image::set_copied(image);
  return image;
}

void write_writable(const std::string& name, Qcow2Image image, const WritingOnDisk& writing = writing_with()) {
  write_for_writing(name, script_with(0), writing, {writable(image.bytes())});
}

Qcow2Image small_qcow2_with(uint32_t refcount_order) {
  Qcow2Image image = small_qcow2();
  image.header().refcount_order = refcount_order;
  return image;
}

void write_extended_l2() {
  Qcow2Image image({.size = 256 << 10, .cluster_bits = 14, .extended_l2 = true});
  image.set_l2(0, image.add_cluster(0x33), 0x0000ff00000000ff);
  image.set_l2(3, 0, uint64_t{0xffffffff} << 32);
  write_writable("extended_l2", image);
}

/* In an image of which all clusters have been counted, in 16 bits each. */
void count_twice(Content& image, uint64_t cluster) {
  const uint64_t block = image.size() - (uint64_t{1} << load_on_disk<Qcow2HeaderOnDisk>(image).cluster_bits);
  const be16 two = 2;
  put(image, block + sizeof two * cluster, std::as_bytes(std::span(&two, 1)));
}

/* Two streams in one host cluster. */
void write_compressed_for_writing() {
  Qcow2Image image = small_qcow2();
  const uint64_t at = image.add_cluster(0);
  const Content stream = test::deflated(test::compressible(4096));
  const uint64_t sectors = (stream.size() + sector_bytes - 1) / sector_bytes;
  for (const uint64_t n : {0U, 1U}) {
    put(image.bytes(), at + n * 2048, stream);
    image.set_l2(6 + n, Qcow2Image::compressed_flag | (sectors - 1) << (62 - 4) | (at + n * 2048));
  }
  Content bytes = writable(image.bytes());
  count_twice(bytes, at / image.cluster_size());
  write_for_writing("compressed", script_with(0), writing_with(), {bytes});
}

/* Everything is shared with the one snapshot: the L2 table and three clusters of data. */
void write_shared() {
  Qcow2Image image = small_qcow2();
  const uint64_t l1 = image.add_cluster(0);
  image.put_u64(l1, load_on_disk<be64>(std::span(image.bytes()).subspan(image.l1_offset())));
  add_snapshot(image, l1, 40 << 10);
  Content bytes = image.bytes();
  Qcow2Image::count_clusters(bytes);
  for (uint64_t shared = 3; shared < 7; ++shared) count_twice(bytes, shared);
  write_for_writing("shared", script_with(0), writing_with(), {bytes});
}

} // namespace

void write_all_for_writing(const std::vector<StoredImage>& images) {
  write_writable("version_2", small_qcow2(2));
  for (const uint32_t order : {0U, 1U, 3U, 4U, 6U}) {
    write_writable("refcount_order_" + std::to_string(order), small_qcow2_with(order));
  }
  write_writable("storage_fails", small_qcow2(), writing_with(0, 9));
  write_writable("storage_fails_for_ever", small_qcow2(), writing_with(storage_fails_for_ever, 9));
  write_writable("power_cut", small_qcow2(), writing_with(storage_loses_power));
  write_writable("power_cut_fua", small_qcow2(), writing_with(storage_loses_power | storage_has_fua));
  write_for_writing("not_counted", script_with(0), writing_with(), {small_qcow2().bytes()});
  write_extended_l2();
  write_compressed_for_writing();
  write_shared();
  write_for_writing("backing", script_with(0), writing_with(),
                    {writable(small_overlay("base", "raw").bytes()), test::compressible(20000)});
  for (StoredImage image : images) {
    if (image.files[0][0] != std::byte{'Q'} || image.files.size() > 1) continue;
    if (image.name == "qcow2 with LUKS" || image.name == "LUKS in qcow2") drop_key_material(image);
    write_for_writing(image.test_name(), script_for(image), writing_with(), {writable(image.files[0])});
  }
}

} // namespace qluks::fuzz
