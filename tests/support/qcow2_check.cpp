/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/support/qcow2_check.hpp"

#include <algorithm>
#include <cstdint>

namespace qluks::test {

namespace {

constexpr uint64_t offset_bits = 0x00fffffffffffe00;
constexpr uint64_t copied = uint64_t{1} << 63;
constexpr uint64_t is_compressed = uint64_t{1} << 62;

std::string text(uint64_t n) { return std::to_string(n); }

} // namespace

uint64_t Qcow2Check::number(uint64_t at, unsigned bytes) {
  if (at > image_.size() || bytes > image_.size() - at) {
    wrong("a field at " + text(at) + " is behind the end");
    return 0;
  }
  uint64_t value = 0;
  for (unsigned i = 0; i < bytes; ++i) value = value << 8 | std::to_integer<uint64_t>(image_[at + i]);
  return value;
}

void Qcow2Check::refer(uint64_t at, uint64_t length, const std::string& what) {
  if (length == 0) return;
  if (length > image_.size() || (at >> bits_ << bits_) > image_.size())
    return wrong(what + " at " + text(at) + " is behind the end");
  for (uint64_t c = at >> bits_; c <= (at + length - 1) >> bits_; ++c) ++references_[c];
}

uint64_t Qcow2Check::refcount(uint64_t cluster) {
  const uint64_t per_block = (uint64_t{8} << bits_) >> order_;
  const uint64_t table = number(48, 8);
  const uint64_t entries = (number(56, 4) << bits_) / 8;
  if (cluster / per_block >= entries) return 0;
  const uint64_t block = number(table + cluster / per_block * 8, 8) & ~uint64_t{511};
  if (block == 0) return 0;
  const uint64_t bit = (cluster % per_block) << order_;
  if (order_ >= 3) return number(block + bit / 8, 1U << (order_ - 3));
  return number(block + bit / 8, 1) >> (bit % 8) & ((1U << (1U << order_)) - 1);
}

std::string Qcow2Check::run() {
  if (number(0, 4) != 0x514649fb) return "no magic";
  bits_ = static_cast<unsigned>(number(20, 4));
  if (bits_ < 9 || bits_ > 21) return "cluster_bits";
  const bool v3 = number(4, 4) == 3;
  if (v3) order_ = static_cast<unsigned>(number(96, 4));
  if (order_ > 6) return "refcount_order";
  extended_ = v3 && (number(72, 8) >> 4 & 1) != 0;
  data_file_ = v3 && (number(72, 8) >> 2 & 1) != 0;
  count_header();
  count_refcounts();
  count_snapshots();
  count_l1(number(40, 8), number(36, 4), true, "L1 table");
  for (const auto& [cluster, count] : references_) {
    const uint64_t stored = refcount(cluster);
    if (stored < count) {
      wrong("cluster " + text(cluster) + " has refcount " + text(stored) + " and " + text(count) + " references");
    }
  }
  return error_;
}

void Qcow2Check::count_header() {
  refer(0, uint64_t{1} << bits_, "header");
  if (number(32, 4) == 2) count_extensions();
}

/* The LUKS header. */
void Qcow2Check::count_extensions() {
  uint64_t at = number(4, 4) == 3 ? number(100, 4) : 72;
  while (error_.empty() && at + 8 <= uint64_t{1} << bits_) {
    const uint64_t magic = number(at, 4);
    const uint64_t length = number(at + 4, 4);
    if (magic == 0) return;
    if (magic == 0x0537be77) refer(number(at + 8, 8), number(at + 16, 8), "LUKS header");
    at += 8 + (length + 7) / 8 * 8;
  }
}

void Qcow2Check::count_refcounts() {
  const uint64_t table = number(48, 8);
  const uint64_t bytes = number(56, 4) << bits_;
  refer(table, bytes, "refcount table");
  for (uint64_t i = 0; i < bytes / 8 && error_.empty(); ++i) {
    const uint64_t block = number(table + i * 8, 8);
    if (block == 0) continue;
    if ((block & ((uint64_t{1} << bits_) - 1)) != 0) wrong("refcount block at " + text(block));
    refer(block, uint64_t{1} << bits_, "refcount block");
  }
}

void Qcow2Check::count_snapshots() {
  const uint64_t start = number(64, 8);
  uint64_t at = start;
  for (uint64_t i = number(60, 4); i > 0 && error_.empty(); --i) {
    const uint64_t l1 = number(at, 8);
    const uint64_t entries = number(at + 8, 4);
    count_l1(l1, entries, false, "L1 table of a snapshot");
    at += 40 + number(at + 36, 4) + number(at + 12, 2) + number(at + 14, 2);
    at = (at + 7) / 8 * 8;
  }
  refer(start, at - start, "snapshot table");
}

void Qcow2Check::count_l1(uint64_t at, uint64_t entries, bool active, const std::string& what) {
  refer(at, entries * 8, what);
  for (uint64_t i = 0; i < entries && error_.empty(); ++i) {
    const uint64_t entry = number(at + i * 8, 8);
    const uint64_t table = entry & offset_bits;
    if (table == 0) continue;
    if ((table & ((uint64_t{1} << bits_) - 1)) != 0) wrong("L2 table at " + text(table));
    refer(table, uint64_t{1} << bits_, "L2 table");
    if (active) check_copied(entry, table >> bits_, "L2 table");
    count_l2(table, (i << bits_) / (extended_ ? 16 : 8), active);
  }
}

void Qcow2Check::check_in_data_file(uint64_t entry, uint64_t bitmap, uint64_t guest_cluster) {
  const uint64_t host = entry & offset_bits;
  if ((entry & is_compressed) != 0) wrong("a compressed cluster in a data file");
  if (host == 0 && (entry & copied) == 0 && (bitmap & 0xffffffff) == 0) return;
  if ((entry & copied) == 0) wrong("cluster of the data file at " + text(host) + ": COPIED is not set");
  if (host != guest_cluster << bits_) wrong("guest cluster " + text(guest_cluster) + " is at " + text(host));
}

/* `first`: the guest cluster of its first entry. */
void Qcow2Check::count_l2(uint64_t at, uint64_t first, bool active) {
  const uint64_t step = extended_ ? 16 : 8;
  for (uint64_t i = 0; i < uint64_t{1} << bits_ && error_.empty(); i += step) {
    const uint64_t entry = number(at + i, 8);
    if (data_file_) {
      check_in_data_file(entry, extended_ ? number(at + i + 8, 8) : 0, first + i / step);
      continue;
    }
    if ((entry & is_compressed) != 0) {
      const unsigned x = 62 - (bits_ - 8);
      const uint64_t host = entry & ((uint64_t{1} << x) - 1);
      const uint64_t sectors = (entry >> x & ((uint64_t{1} << (bits_ - 8)) - 1)) + 1;
      if ((entry & copied) != 0) wrong("a compressed cluster that is said to be copied");
      refer(host, sectors * 512 - host % 512, "compressed cluster");
      continue;
    }
    if ((entry & 1) != 0 && number(4, 4) == 2) wrong("a zero cluster in version 2");
    const uint64_t host = entry & offset_bits;
    const uint64_t bitmap = extended_ ? number(at + i + 8, 8) : 0;
    if ((bitmap & bitmap >> 32 & 0xffffffff) != 0) wrong("a subcluster with data and zeroes");
    if (host == 0 && (bitmap & 0xffffffff) != 0) wrong("a subcluster with data and no cluster");
    if (host == 0) continue;
    if ((host & ((uint64_t{1} << bits_) - 1)) != 0) wrong("cluster at " + text(host));
    refer(host, uint64_t{1} << bits_, "cluster");
    if (active) check_copied(entry, host >> bits_, "cluster");
  }
}

void Qcow2Check::check_copied(uint64_t entry, uint64_t cluster, const std::string& what) {
  const uint64_t count = refcount(cluster);
  if (((entry & copied) != 0) == (count == 1)) return;
  wrong(what + " " + text(cluster) + ": COPIED is wrong for refcount " + text(count));
}

} // namespace qluks::test
