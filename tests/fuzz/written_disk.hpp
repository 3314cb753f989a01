/* SPDX-License-Identifier: BSD-3-Clause */
/* A guest disk that is written, beside a model of what was acknowledged.
 *
 *      known     sectors that must read like this now
 *      stable    sectors that must read like this after a power cut: as they were at the last flush, unless they were
 *                changed since
 */
#ifndef QLUKS_TESTS_FUZZ_WRITTEN_DISK_HPP
#define QLUKS_TESTS_FUZZ_WRITTEN_DISK_HPP

#include <array>
#include <functional>
#include <map>
#include <memory>

#include "formats/format.hpp"
#include "tests/fuzz/fuzz_case.hpp"
#include "tests/fuzz/overlay_device.hpp"

namespace qluks::fuzz {

/* What guests write: words of eight bytes, each with this in its upper half.  It depends on the script, so that an
 * image cannot hold it by design. */
uint32_t marker_of(const ScriptOnDisk& script, const WritingOnDisk& writing) noexcept;

class WrittenDisk {
 public:
  using OpenFn = std::function<std::unique_ptr<Format>()>;

  /* `exact`: no two sectors of the guest disk share their bytes, as in every image that is not damaged. */
  WrittenDisk(OverlayDevice& below, OpenFn open, bool exact, uint32_t marker)
      : below_(below), open_(std::move(open)), exact_(exact), marker_(marker) {}

  /* Open it, and do what the script says, to the disk and to the storage; false: it cannot be opened. */
  bool run(const WritingOnDisk& writing);

  /* After storage has come back, with or without a power cut: is everything there that was stable? */
  void check_stable();

 private:
  using Sector = std::array<std::byte, 512>;
  using Sectors = std::map<uint64_t, Sector>;

  bool open();
  void close();
  void reopen();
  void operate(const RequestOnDisk& request);
  void write(BlockDevice& disk, uint64_t offset, uint64_t length, Fua fua);
  void zero(BlockDevice& disk, uint64_t offset, uint64_t length, ZeroMode mode);
  void trim(BlockDevice& disk, uint64_t offset, uint64_t length);
  void flush(BlockDevice& disk);
  bool know_edges(BlockDevice& disk, uint64_t offset, uint64_t length);
  void forget(uint64_t offset, uint64_t length);
  void enter(std::span<const std::byte> bytes, uint64_t offset);
  static bool read_sector(BlockDevice& disk, uint64_t number, Sector& sector);
  static void check_known(BlockDevice& disk, const Sectors& sectors, const char* what);

  OverlayDevice& below_;
  OpenFn open_;
  bool exact_;
  uint32_t marker_;
  bool writable_ = false;
  uint32_t operation_ = 0;
  Sectors known_, stable_;
  std::unique_ptr<Format> format_;
  std::array<std::unique_ptr<BlockDevice>, 2> connections_;
};

} // namespace qluks::fuzz

#endif
