/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/fuzz/written_disk.hpp"

#include "tests/fuzz/checks.hpp"

namespace qluks::fuzz {

namespace {

/* Bits of RequestOnDisk::kind: which operation, on which connection, and large_request. */
enum class Operation : uint8_t { write, write_again, write_fua, zero, zero_keep, trim, flush, reopen };
constexpr uint8_t operation_mask = 7;
constexpr uint8_t second_connection = 0x40;

struct LengthLimits {
  uint32_t write, zero;
};
constexpr LengthLimits usual = {(32 << 10) + 1, 1 << 20};
/* Zeroes of a LUKS volume are written, and storage keeps what is pending. */
constexpr LengthLimits large = {(1 << 20) + 1, 4 << 20};

/* Of a long range of zeroes so many bytes are compared, at both ends. */
constexpr uint64_t zeroes_known = 16 << 10;

} // namespace

uint32_t marker_of(const ScriptOnDisk& script, const WritingOnDisk& writing) noexcept {
  uint32_t hash = 2166136261U; /* FNV-1a */
  const auto mix = [&hash](std::span<const std::byte> bytes) {
    for (const std::byte b : bytes) hash = (hash ^ std::to_integer<uint32_t>(b)) * 16777619U;
  };
  mix(std::as_bytes(std::span(&script, 1)));
  mix(std::as_bytes(std::span(&writing, 1)));
  return hash | 0x01010101U; /* no byte of it is zero */
}

bool WrittenDisk::open() {
  format_ = open_();
  if (!format_) return false;
  check_line(format_->describe());
  if (const std::string why = format_->why_read_only(); !why.empty()) check_line(why);
  for (auto& c : connections_) c = format_->stack_on(below_);
  return true;
}

void WrittenDisk::close() {
  connections_ = {};
  format_.reset();
}

bool WrittenDisk::run(const WritingOnDisk& writing) {
  if (!open()) return false;
  writable_ = connections_[0]->write_abilities().write && format_->why_read_only().empty();
  for (const RequestOnDisk& request : writing.operations) {
    if (!format_ || connections_[0]->size() == 0) break;
    operate(request);
  }
  if (format_) flush(*connections_[0]);
  if (format_) check_known(*connections_[1], known_, "what was acknowledged reads as it was written");
  close();
  check(writable_ || below_.changes() == 0, "what is served read-only is not changed");
  below_.come_back(writing);
  return true;
}

void WrittenDisk::operate(const RequestOnDisk& request) {
  BlockDevice& disk = *connections_[(request.kind & second_connection) != 0 ? 1 : 0];
  const LengthLimits& limits = (request.kind & large_request) != 0 ? large : usual;
  const uint64_t offset = (uint64_t{request.offset} << (request.shift % 40)) % disk.size();
  const auto length = [&](uint64_t max) { return 1 + request.length % std::min<uint64_t>(disk.size() - offset, max); };
  ++operation_;
  switch (static_cast<Operation>(request.kind & operation_mask)) {
    case Operation::write:
    case Operation::write_again:
      return write(disk, offset, length(limits.write), Fua::no);
    case Operation::write_fua:
      return write(disk, offset, length(limits.write), disk.write_abilities().fua ? Fua::yes : Fua::no);
    case Operation::zero:
      return zero(disk, offset, length(limits.zero), ZeroMode::may_trim);
    case Operation::zero_keep:
      return zero(disk, offset, length(limits.zero), ZeroMode::keep);
    case Operation::trim:
      return trim(disk, offset, length(limits.zero));
    case Operation::flush:
      return flush(disk);
    case Operation::reopen:
      return reopen();
  }
}

void WrittenDisk::write(BlockDevice& disk, uint64_t offset, uint64_t length, Fua fua) {
  std::vector<std::byte> bytes(static_cast<size_t>(length));
  for (uint64_t at = align_down(offset, uint64_t{8}); at < offset + length; at += 8) {
    const uint64_t word = uint64_t{marker_} << 32 | operation_;
    for (uint64_t i = std::max(at, offset); i < std::min(at + 8, offset + length); ++i) {
      bytes[static_cast<size_t>(i - offset)] = static_cast<std::byte>(word >> (8 * (i - at)));
    }
  }
  const auto sent = bytes;
  const bool edges = know_edges(disk, offset, length);
  const bool done = succeeded(disk.write(bytes, offset, fua));
  check(same(bytes, sent), "the bytes of the client are not changed");
  if (!done || !edges) return forget(offset, length);
  enter(bytes, offset);
  if (fua != Fua::yes || !exact_) return;
  /* The sectors at the edges are stable only if the rest of them was. */
  for (uint64_t s = (offset + sector_bytes - 1) / sector_bytes; s < (offset + length) / sector_bytes; ++s) {
    stable_[s] = known_.at(s);
  }
}

void WrittenDisk::zero(BlockDevice& disk, uint64_t offset, uint64_t length, ZeroMode mode) {
  const bool edges = know_edges(disk, offset, length);
  const bool done = succeeded(disk.zero(offset, length, mode, Fua::no));
  if (!done || !edges) return forget(offset, length);
  const std::vector<std::byte> zeroes(static_cast<size_t>(std::min(length, zeroes_known)));
  if (length > 2 * zeroes_known) forget(offset + zeroes_known, length - 2 * zeroes_known);
  enter(zeroes, offset);
  enter(zeroes, offset + length - zeroes.size());
}

void WrittenDisk::trim(BlockDevice& disk, uint64_t offset, uint64_t length) {
  static_cast<void>(succeeded(disk.trim(offset, length, Fua::no)));
  forget(offset, length);
}

void WrittenDisk::flush(BlockDevice& disk) {
  if (succeeded(disk.flush())) stable_ = known_;
}

void WrittenDisk::reopen() {
  flush(*connections_[0]);
  close();
  /* What was not stable may be there or not. */
  known_ = stable_;
  static_cast<void>(open());
}

/* The sectors that are written in part must be known before; false: they cannot be read. */
bool WrittenDisk::know_edges(BlockDevice& disk, uint64_t offset, uint64_t length) {
  for (const uint64_t at : {offset, offset + length - 1}) {
    const uint64_t s = at / sector_bytes;
    if (known_.count(s) != 0) continue;
    Sector sector{};
    if (!read_sector(disk, s, sector)) return false;
    known_[s] = sector;
  }
  return true;
}

void WrittenDisk::forget(uint64_t offset, uint64_t length) {
  const uint64_t first = offset / sector_bytes;
  const uint64_t last = (offset + length - 1) / sector_bytes;
  for (Sectors* sectors : {&known_, &stable_}) {
    sectors->erase(sectors->lower_bound(first), sectors->upper_bound(last));
  }
}

/* Acknowledged: known from now on, and stable no more.  Where two sectors may be one, nothing is known. */
void WrittenDisk::enter(std::span<const std::byte> bytes, uint64_t offset) {
  if (!exact_) {
    known_.clear();
    return;
  }
  for (size_t done = 0; done < bytes.size();) {
    const uint64_t s = (offset + done) / sector_bytes;
    const auto in_sector = static_cast<size_t>((offset + done) % sector_bytes);
    const size_t part = std::min<size_t>(sector_bytes - in_sector, bytes.size() - done);
    stable_.erase(s);
    std::memcpy(&known_[s][in_sector], &bytes[done], part);
    done += part;
  }
}

/* The last one may be cut short: the rest of it stays as it is. */
bool WrittenDisk::read_sector(BlockDevice& disk, uint64_t number, Sector& sector) {
  const uint64_t offset = number * sector_bytes;
  const auto size = static_cast<size_t>(std::min<uint64_t>(sector_bytes, disk.size() - offset));
  return succeeded(disk.read(std::span(sector).first(size), offset));
}

void WrittenDisk::check_known(BlockDevice& disk, const Sectors& sectors, const char* what) {
  for (const auto& [number, expected] : sectors) {
    Sector sector{};
    check(read_sector(disk, number, sector), "what was written can be read");
    check(same(sector, expected), what);
  }
}

void WrittenDisk::check_stable() {
  if (!writable_ || !exact_) return;
  check(open(), "an image that was written can be opened again");
  check_known(*connections_[0], stable_, "what was flushed is there");
  close();
}

} // namespace qluks::fuzz
