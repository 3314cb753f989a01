/* SPDX-License-Identifier: BSD-3-Clause */
/* The inputs that fuzzing starts from, FOLDER/TARGET/NAME: what their makers share, and the makers. */
#ifndef QLUKS_TESTS_FUZZ_SEEDS_HPP
#define QLUKS_TESTS_FUZZ_SEEDS_HPP

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tests/fuzz/fuzz_case.hpp"
#include "tests/support/qcow2_image.hpp"
#include "tests/support/stored_image.hpp"

namespace qluks::fuzz {

using test::Content;
using test::Qcow2Image;
using test::StoredImage;

/* Where `write` writes. */
void set_folder(const char* name);

void write(const std::string& target, const std::string& name, const Content& content);

void append(Content& target, std::span<const std::byte> bytes);

template <class OnDisk>
void append_struct(Content& target, const OnDisk& disk) {
  append(target, std::as_bytes(std::span(&disk, 1)));
}

/* Over what is at that offset, which may be the end. */
void put(Content& target, uint64_t at, std::span<const std::byte> bytes);

Content text_of(std::string_view text);

/* Reads across the start, in the middle and at the end, and an extent over all of it. */
ScriptOnDisk script_for(const StoredImage& image, uint8_t keyring = 1);

/* Reads and extents of the first 40 KiB. */
ScriptOnDisk script_with(uint8_t options);

/* Inside of a cluster, across three, whole ones; zeroes, trim, flush, and once more after opening it again. */
WritingOnDisk writing_with(uint8_t storage = 0, uint8_t fail_at = 0);

uint32_t sectors_of(const Content& file);

/* The sectors of a file that are not zero. */
void append_pieces(Content& target, const Content& file, uint32_t flag);

void append_files(Content& seed, const std::vector<Content>& files);

/* Key material may be anything here: without it an input stays small. */
void drop_key_material(StoredImage& image);

/* Three clusters of data, a zero cluster and a hole. */
Qcow2Image small_qcow2(uint32_t version = 3);

/* The same with a backing file of that name, whose format may be recorded. */
Qcow2Image small_overlay(std::string_view name, std::string_view format = "");

/* A snapshot with ID 7. */
void add_snapshot(Qcow2Image& image, uint64_t l1_offset, uint64_t disk_size);

void write_all_qcow2(const std::vector<StoredImage>& images);
void write_all_for_writing(const std::vector<StoredImage>& images);
void write_luks1();
void write_all_luks2();
void write_all_parameters(const std::vector<StoredImage>& images);
void write_partition_tables();

} // namespace qluks::fuzz

#endif
