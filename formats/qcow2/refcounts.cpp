/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/qcow2/refcounts.hpp"

#include <algorithm>
#include <cerrno>
#include <string>

namespace qluks {

namespace {

/* Blocks that are as they are stored are kept up to here. */
constexpr uint64_t kept_bytes_max = 16 << 20;

constexpr uint64_t refcount_table_bytes_max = 8 << 20;

template <class Field>
uint64_t load_field(const std::byte* block, uint64_t index) noexcept {
  return load_on_disk<Field>({block + index * sizeof(Field), sizeof(Field)});
}

template <class Field, class Value>
void store_field(std::byte* block, uint64_t index, Value value) noexcept {
  const Field field = value;
  std::memcpy(block + index * sizeof(Field), &field, sizeof field);
}

/* Counts of less than a byte: the first one is in the low bits. */
struct Packed {
  Packed(uint64_t index, unsigned order) noexcept
      : byte(index >> (3 - order)),
        shift(static_cast<unsigned>(index & ((8U >> order) - 1)) << order),
        mask((1U << (1U << order)) - 1) {}
  uint64_t byte;
  unsigned shift;
  unsigned mask;
};

uint64_t load_count(const std::byte* block, uint64_t index, unsigned order) noexcept {
  switch (order) {
    case 3:
      return std::to_integer<uint64_t>(block[index]);
    case 4:
      return load_field<be16>(block, index);
    case 5:
      return load_field<be32>(block, index);
    case 6:
      return load_field<be64>(block, index);
    default: {
      const Packed p(index, order);
      return (std::to_integer<unsigned>(block[p.byte]) >> p.shift) & p.mask;
    }
  }
}

void store_count(std::byte* block, uint64_t index, unsigned order, uint64_t value) noexcept {
  switch (order) {
    case 3:
      block[index] = static_cast<std::byte>(value);
      return;
    case 4:
      return store_field<be16>(block, index, static_cast<uint16_t>(value));
    case 5:
      return store_field<be32>(block, index, static_cast<uint32_t>(value));
    case 6:
      return store_field<be64>(block, index, value);
    default: {
      const Packed p(index, order);
      const unsigned others = std::to_integer<unsigned>(block[p.byte]) & ~(p.mask << p.shift);
      block[p.byte] = static_cast<std::byte>(others | static_cast<unsigned>(value) << p.shift);
    }
  }
}

} // namespace

Qcow2Refcounts::Qcow2Refcounts(const Qcow2Header& header, const std::vector<be64>& table)
    : cluster_bits_(header.cluster_bits),
      order_(header.refcount_order),
      per_block_bits_(header.cluster_bits + 3 - header.refcount_order),
      table_at_{header.refcount_table_offset.bytes >> header.cluster_bits, header.refcount_table_clusters} {
  table_.reserve(table.size());
  for (const be64& entry : table) table_.push_back(entry & ~uint64_t{sector_bytes - 1});
}

void Qcow2Refcounts::insert(uint64_t block, PageBuffer bytes) {
  std::vector<bool> changed((uint64_t{1} << cluster_bits_) / sector_bytes, false);
  blocks_.try_emplace(block, Block{std::move(bytes), std::move(changed)});
}

void Qcow2Refcounts::shrink() noexcept {
  for (auto it = blocks_.begin(); it != blocks_.end() && blocks_.size() << cluster_bits_ > kept_bytes_max;) {
    it = it->second.is_changed ? std::next(it) : blocks_.erase(it);
  }
}

uint64_t Qcow2Refcounts::get(uint64_t cluster) const noexcept {
  const auto block = blocks_.find(block_of(cluster));
  if (block == blocks_.end()) return 0;
  return load_count(block->second.bytes.get(), cluster & (clusters_per_block() - 1), order_);
}

void Qcow2Refcounts::set(uint64_t cluster, uint64_t value) noexcept {
  Block& block = blocks_.find(block_of(cluster))->second;
  const uint64_t index = cluster & (clusters_per_block() - 1);
  store_count(block.bytes.get(), index, order_, value);
  touch(block, index);
  if (value == 0) first_free_ = std::min(first_free_, cluster);
}

void Qcow2Refcounts::touch(Block& block, uint64_t index) noexcept {
  changed_ = true;
  block.is_changed = true;
  block.changed_sectors[((index << order_) / 8) / sector_bytes] = true;
}

Qcow2Refcounts::Search Qcow2Refcounts::find_free(uint64_t wanted, uint64_t limit) noexcept {
  using Next = Search::Next;
  while (first_free_ < limit) {
    const uint64_t block = block_of(first_free_);
    if (block >= table_.size()) return {Next::grow_table, block};
    if (table_[block] == 0) return {Next::make_block, block};
    const auto found = blocks_.find(block);
    if (found == blocks_.end()) return {Next::load, block};
    const std::byte* counts = found->second.bytes.get();
    const uint64_t start = block << per_block_bits_;
    const uint64_t end = std::min(start + clusters_per_block(), limit);
    while (first_free_ < end && load_count(counts, first_free_ - start, order_) != 0) ++first_free_;
    if (first_free_ == end) continue;
    HostClusters clusters{first_free_, 1};
    while (clusters.count < wanted && clusters.first + clusters.count < end &&
           load_count(counts, clusters.first + clusters.count - start, order_) == 0) {
      ++clusters.count;
    }
    return {Next::take, block, clusters};
  }
  return {Next::no_room};
}

HostClusters Qcow2Refcounts::new_block_clusters(uint64_t block) const noexcept { return {block << per_block_bits_, 1}; }

void Qcow2Refcounts::add_block(uint64_t block, HostOffset at) {
  const size_t length = size_t{1} << cluster_bits_;
  PageBuffer bytes = make_page_buffer(length);
  std::fill_n(bytes.get(), length, std::byte{0});
  changed_links_.reserve(changed_links_.size() + 1);
  blocks_.try_emplace(block, Block{std::move(bytes), std::vector<bool>(length / sector_bytes, true), true});
  table_[block] = at.bytes;
  changed_links_.push_back(block);
  changed_ = true;
}

void Qcow2Refcounts::make_block(uint64_t block) {
  const HostClusters own = new_block_clusters(block);
  add_block(block, {own.first << cluster_bits_});
  set(own.first, 1);
}

/* Blocks first, then the table; both are counted by these blocks. */
Result<HostClusters> Qcow2Refcounts::longer_table_clusters(const Qcow2Header& header) const {
  const uint64_t old_entries = table_.size();
  const uint64_t clusters_max = refcount_table_bytes_max >> header.cluster_bits;
  uint64_t clusters = std::max<uint64_t>(table_at_.count + table_at_.count / 2, table_at_.count + 1);
  clusters = std::min(clusters, clusters_max);
  uint64_t blocks = 1;
  while ((blocks << per_block_bits_) < blocks + clusters) ++blocks;
  if (clusters <= table_at_.count || table_entries(clusters) < old_entries + blocks) {
    return fail(Errc::unsupported,
                "the refcount table has " + std::to_string(table_at_.count << cluster_bits_) +
                    " bytes and cannot grow: the limit is " + std::to_string(refcount_table_bytes_max),
                ENOSPC);
  }
  return HostClusters{old_entries << per_block_bits_, blocks + clusters};
}

void Qcow2Refcounts::grow_table(HostClusters taken) {
  const uint64_t old_entries = table_.size();
  uint64_t blocks = 1;
  while (taken.count > blocks << per_block_bits_) ++blocks;
  const uint64_t clusters = taken.count - blocks;
  table_.resize(table_entries(clusters), 0);
  for (uint64_t i = 0; i < blocks; ++i) add_block(old_entries + i, {(taken.first + i) << cluster_bits_});
  for (uint64_t i = 0; i < taken.count; ++i) set(taken.first + i, 1);
  table_at_ = {taken.first + blocks, clusters};
  moved_ = true;
}

void Qcow2Refcounts::collect(std::vector<TableWrite>& blocks, std::vector<TableWrite>& table) const {
  for (const auto& [number, block] : blocks_) {
    if (!block.is_changed) continue;
    const auto& sectors = block.changed_sectors;
    for (size_t i = 0; i < sectors.size();) {
      size_t end = i;
      while (end < sectors.size() && sectors[end]) ++end;
      if (end > i) {
        const std::byte* from = block.bytes.get() + i * sector_bytes;
        blocks.push_back({{table_[number] + i * sector_bytes}, {from, from + (end - i) * sector_bytes}});
      }
      i = end + 1;
    }
  }
  const auto entries = [&](uint64_t first, uint64_t count) {
    TableWrite write{{(table_at_.first << cluster_bits_) + first * sizeof(be64)}, {}};
    write.bytes.resize(count * sizeof(be64));
    for (uint64_t i = 0; i < count; ++i) store_field<be64>(write.bytes.data(), i, table_[first + i]);
    return write;
  };
  if (moved_) {
    blocks.push_back(entries(0, table_.size()));
    return;
  }
  for (const uint64_t link : changed_links_) table.push_back(entries(link, 1));
}

void Qcow2Refcounts::collected() noexcept {
  for (auto& [number, block] : blocks_) {
    if (!block.is_changed) continue;
    std::fill(block.changed_sectors.begin(), block.changed_sectors.end(), false);
    block.is_changed = false;
  }
  changed_links_.clear();
  moved_ = false;
  changed_ = false;
}

} // namespace qluks
