/* SPDX-License-Identifier: BSD-3-Clause */
/* Seeds of fuzz_partition: GPT and MBR. */
#include "tests/fuzz/seeds.hpp"
#include "tests/support/partition_builder.hpp"

namespace qluks::fuzz {

namespace {

void write_disk(const std::string& name, const Content& disk, uint8_t number, uint8_t options = 1) {
  ScriptOnDisk script = script_with(options);
  script.place = number;
  script.sectors[0] = sectors_of(disk);
  Content seed;
  append_struct(seed, script);
  append_pieces(seed, disk, 0);
  write("fuzz_partition", name, seed);
  write("fuzz_info", "partition_" + name, seed);
}

void write_gpts() {
  for (const uint32_t sector : {512U, 4096U}) {
    const std::string name = "gpt_" + std::to_string(sector);
    test::GptDisk disk(150, sector, 8);
    disk.set(1, 40, 59);
    disk.set(5, 60, 99);
    write_disk(name, disk.bytes, 5);
    write_disk(name + "_cut", Content(disk.bytes.begin(), disk.bytes.begin() + 70 * sector), 5);
    disk.entry(false, 1).starting_lba = 41;
    write_disk(name + "_last_copy", disk.bytes, 1, 2 | 1);
    disk.entry(true, 1).starting_lba = 41;
    write_disk(name + "_damaged", disk.bytes, 1, 0);
    disk.header(false).signature[0] = 'X';
    disk.header(true).signature[0] = 'X';
    write_disk(name + "_gone", disk.bytes, 1);
  }
}

void write_mbrs() {
  test::MbrDisk disk(1000);
  disk.set(0, 0, 0x83, 10, 20);
  disk.set(0, 2, 0x05, 100, 800);
  disk.set(100, 0, 0x83, 10, 100);
  disk.set(100, 1, 0x05, 200, 200);
  disk.set(300, 0, 0x83, 10, 100);
  disk.set(300, 2, 0x83, 150, 20);
  write_disk("mbr", disk.bytes, 6);
  disk.set(300, 1, 0x05, 0, 100);
  write_disk("mbr_loop", disk.bytes, 6);
  disk.set(300, 1, 0x05, 5000, 100);
  write_disk("mbr_cut", disk.bytes, 8);
}

} // namespace

void write_partition_tables() {
  write_gpts();
  write_mbrs();
}

} // namespace qluks::fuzz
