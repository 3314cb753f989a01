/* SPDX-License-Identifier: BSD-3-Clause */
/* What one connection does to the guest disk: write, zero, trim.
 *
 *      request ─▶ clusters that are ours alone ─▶ written in place, without a lock
 *              ─▶ all others ─▶ under a lock on these clusters: new room is claimed (or room that was kept is taken),
 * the request goes there together with what was around it, then the L2 entries change
 *
 * An external data file has room for each cluster already: nothing is claimed, and zeroes are given to it as well where
 * it has to be readable as it is, or may give back room.
 *
 * What is encrypted is encrypted from the client's buffer into one of ours.
 */
#ifndef QLUKS_FORMATS_QCOW2_CHANGE_HPP
#define QLUKS_FORMATS_QCOW2_CHANGE_HPP

#include <functional>

#include "formats/qcow2/image.hpp"
#include "formats/qcow2/writer.hpp"

namespace qluks {

class GuestWriter {
 public:
  /* Reads the guest disk as it is, whole sectors. */
  using ReadFn = std::function<Status(std::span<std::byte> dst, GuestOffset at)>;

  GuestWriter(const Qcow2Image& image, Qcow2Writer& writer, BlockDevice& container, ReadFn read)
      : image_(image), writer_(writer), container_(container), g_(writer.geometry()), read_(std::move(read)) {}

  WriteAbilities abilities() const noexcept;
  Status write(std::span<const std::byte> src, uint64_t offset, Fua fua);
  Status zero(uint64_t offset, uint64_t length, ZeroMode mode, Fua fua);
  Status trim(uint64_t offset, uint64_t length, Fua fua);
  Status flush();

 private:
  /* What a request writes, and where in the guest disk. */
  struct Source {
    std::span<const std::byte> bytes;
    GuestOffset at;
    uint64_t end() const noexcept { return at.bytes + bytes.size(); }
  };
  /* Guest bytes [from, from + length), whole units, go to `to`. */
  struct Target {
    GuestOffset from;
    uint64_t length = 0;
    HostOffset to;
  };
  /* Clusters of one slice, neighbours in the guest disk, that change together. */
  struct Batch {
    HostOffset slice;
    uint64_t index = 0; /* of the first entry */
    GuestOffset at;     /* of the first cluster */
    std::vector<L2Entry> old;
    bool keeps_room = false; /* their clusters are there and ours */
  };
  enum class Zeroing : uint8_t { keep, free, discard };

  Status write_pieces(const Source& source, bool& is_durable);
  Result<size_t> write_in_place(const Source& source, bool& is_durable);
  Result<Target> run_in_place(const Source& source);
  Result<size_t> write_elsewhere(const Source& source);
  Result<size_t> write_batch(const Source& source, Batch batch, Qcow2Cache::Pin pin);
  Batch next_batch(const Source& source, HostOffset slice, const L2Place& place, const std::byte* bytes) const;
  uint64_t touched_units(const Source& source, GuestOffset cluster) const noexcept;
  static void add_target(std::vector<Target>& targets, const Target& target);
  void add_units(std::vector<Target>& targets, uint64_t units, GuestOffset cluster, HostOffset host) const;
  bool reads_as_zero(L2Entry entry, GuestOffset cluster) const noexcept;
  Status write_targets(const Source& source, const std::vector<Target>& targets);
  Status write_target(const Source& source, const Target& whole, Fua fua);
  Status write_buffered(const Source& source, const Target& target, Fua fua);
  Status compose(const Source& source, GuestOffset from, std::span<std::byte> out) const;

  Status set_zero(uint64_t offset, uint64_t length, Zeroing how, bool fast);
  Status zero_edge(uint64_t begin, uint64_t end, bool fast);
  Status write_zeroes(uint64_t begin, uint64_t end);
  Result<uint64_t> zero_slice(uint64_t begin, uint64_t end, Zeroing how);
  L2Entry zeroed(L2Entry old, Zeroing how, bool unbacked) const noexcept;
  bool is_unbacked(uint64_t at) const noexcept;

  Status end_change(Fua fua, bool is_durable);

  BlockDevice& data() const noexcept { return image_.data_file ? *image_.data_file : container_; }
  Target inside_of_data_file(Target target) const noexcept;
  Status zero_data_file(uint64_t begin, uint64_t end, Zeroing how);

  const Qcow2Image& image_;
  Qcow2Writer& writer_;
  BlockDevice& container_;
  const Qcow2Geometry& g_;
  ReadFn read_;
};

} // namespace qluks

#endif
