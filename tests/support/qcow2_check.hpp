/* SPDX-License-Identifier: BSD-3-Clause */
/* A second opinion on a qcow2, by nothing but its bytes: every reference is counted and held against the refcounts, as
 * qemu-img check does.  Clusters that nobody refers to are no error. */
#ifndef QLUKS_TESTS_SUPPORT_QCOW2_CHECK_HPP
#define QLUKS_TESTS_SUPPORT_QCOW2_CHECK_HPP

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>

namespace qluks::test {

class Qcow2Check {
 public:
  explicit Qcow2Check(std::span<const std::byte> image) : image_(image) {}

  /* What is wrong; empty: nothing. */
  std::string run();

 private:
  uint64_t number(uint64_t at, unsigned bytes);
  void refer(uint64_t at, uint64_t length, const std::string& what);
  void count_header();
  void count_refcounts();
  void count_extensions();
  void count_snapshots();
  void count_l1(uint64_t at, uint64_t entries, bool active, const std::string& what);
  void count_l2(uint64_t at, uint64_t first, bool active);
  void check_in_data_file(uint64_t entry, uint64_t bitmap, uint64_t guest_cluster);
  void check_copied(uint64_t entry, uint64_t cluster, const std::string& what);
  uint64_t refcount(uint64_t cluster);
  void wrong(const std::string& what) {
    if (error_.empty()) error_ = what;
  }

  std::span<const std::byte> image_;
  std::map<uint64_t, uint64_t> references_;
  std::string error_;
  unsigned bits_ = 0;
  unsigned order_ = 4;
  bool extended_ = false;
  bool data_file_ = false; /* which has the clusters of the guest disk, each at its place */
};

} // namespace qluks::test

#endif
