/* SPDX-License-Identifier: BSD-3-Clause */
/* Argon2i and Argon2id (RFC 9106, version 0x13), on huge pages, by the vectors of the CPU.
 *
 *      slice        0       1       2       3
 *      lane 0   |.......|.......|.......|.......|      a segment is a lane's part of a slice: blocks of 1 KiB,
 *      lane 1   |.......|.......|.......|.......|      each made of the one before it and of an earlier one
 *
 * Lanes of one slice do not look at each other's blocks of that slice, so they are shared out to threads, which meet
 * behind each slice.  Argon2id chooses its references in the first half of the first pass by counting, and from then on
 * by what it has computed; Argon2i always by counting.
 *
 * The memory is not locked (it is larger than any usual RLIMIT_MEMLOCK); it is left out of core dumps, and wiped by
 * those who filled it.
 */
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <barrier>
#include <cstring>
#include <latch>
#include <string>
#include <thread>
#include <vector>

#include "base/secure_buffer.hpp"
#include "base/shutdown.hpp"
#include "base/wire.hpp"
#include "crypto/kdf/argon2_fill.hpp"
#include "crypto/kdf/blake2b.hpp"
#include "crypto/kdf/pbkdf.hpp"
#include "crypto/traces.hpp"

namespace qluks {

namespace {

constexpr uint32_t slices = 4;
constexpr uint32_t version = 0x13;
constexpr uint32_t lanes_max = (1U << 24) - 1;
constexpr size_t addresses_per_block = 128;
constexpr size_t block_bytes = sizeof(Argon2Block);
constexpr size_t seed_bytes = Blake2b::digest_bytes_max + 2 * sizeof(le32);

/* What the derivation works in: the blocks, and behind them what each thread needs for itself. */
class Arena {
 public:
  explicit Arena(uint64_t blocks) : bytes_(blocks * block_bytes) {
    void* mapped = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) return;
    /* Both are advice: without them the result is the same. */
    madvise(mapped, bytes_, MADV_HUGEPAGE);
    madvise(mapped, bytes_, MADV_DONTDUMP);
    blocks_ = static_cast<Argon2Block*>(mapped);
  }
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  ~Arena() {
    if (blocks_ != nullptr) munmap(blocks_, bytes_);
  }

  Argon2Block* blocks() const noexcept { return blocks_; }
  void wipe_all() const noexcept { wipe_blocks(0, bytes_ / block_bytes); }
  void wipe_blocks(uint64_t first, uint64_t count) const noexcept {
    wipe({reinterpret_cast<std::byte*>(blocks_ + first), static_cast<size_t>(count * block_bytes)});
  }

 private:
  size_t bytes_;
  Argon2Block* blocks_ = nullptr;
};

void append_le32(Blake2b& hash, uint32_t value) noexcept {
  const le32 field = value;
  hash.update(std::as_bytes(std::span(&field, 1)));
}

/* H' of the RFC, section 3.3: a digest of any length. */
void long_digest(std::span<const std::byte> input, std::span<std::byte> out) noexcept {
  constexpr size_t part = Blake2b::digest_bytes_max / 2;
  std::array<std::byte, Blake2b::digest_bytes_max> digest;
  Blake2b first(std::min(out.size(), digest.size()));
  append_le32(first, static_cast<uint32_t>(out.size()));
  first.update(input);
  if (out.size() <= digest.size()) return first.digest(out);
  first.digest(digest);
  for (;;) {
    std::copy_n(digest.begin(), part, out.begin());
    out = out.subspan(part);
    Blake2b next(std::min(out.size(), digest.size()));
    next.update(digest);
    if (out.size() <= digest.size()) return next.digest(out);
    next.digest(digest);
  }
}

/* Which threads take part is known only when they have been started: there may be less than wanted. */
class Team {
 public:
  explicit Team(uint32_t wanted) : wanted_(wanted), barrier_(wanted) {}

  /* work(0) on this thread, work(1) and so on on others; returns when all have ended. */
  template <class Work>
  void run(const Work& work) {
    std::vector<std::thread> others;
    try {
      others.reserve(wanted_ - 1);
      while (others.size() + 1 < wanted_) {
        others.emplace_back([this, &work, number = static_cast<uint32_t>(others.size() + 1)] {
          begun_.wait();
          work(number);
        });
      }
    } catch (...) {
      /* So few will have to do; this thread is always there. */
    }
    size_ = static_cast<uint32_t>(others.size()) + 1;
    for (uint32_t missing = size_; missing < wanted_; ++missing) barrier_.arrive_and_drop();
    begun_.count_down();
    work(0);
    for (std::thread& other : others) other.join();
  }

  uint32_t wanted() const noexcept { return wanted_; }
  uint32_t size() const noexcept { return size_; }
  void meet() { barrier_.arrive_and_wait(); }
  void leave() { barrier_.arrive_and_drop(); }

 private:
  uint32_t wanted_;
  uint32_t size_ = 0;
  std::latch begun_{1};
  std::barrier<> barrier_;
};

/* Threads only share out the lanes: more of them than CPUs would give nothing. */
uint32_t threads_for(uint32_t lanes) noexcept {
  return std::clamp(lanes, 1U, std::max(1U, std::thread::hardware_concurrency()));
}

/* Where a segment is. */
struct Segment {
  uint32_t pass, slice, lane;
};

class Derivation {
 public:
  Derivation(Argon2Type type, const Argon2Cost& cost, Argon2Fill g)
      : type_(type),
        cost_(cost),
        g_(g),
        team_(threads_for(cost.lanes)),
        segment_blocks_(cost.memory_kib / (slices * cost.lanes)),
        lane_blocks_(slices * segment_blocks_),
        arena_(uint64_t{lane_blocks_} * cost.lanes + uint64_t{team_.wanted()} * scratch_blocks) {}

  Status run(Bytes secret, Bytes salt, std::span<std::byte> out) {
    if (arena_.blocks() == nullptr) {
      return fail(Errc::no_memory, "argon2: there are no " + std::to_string(cost_.memory_kib) + " KiB of memory");
    }
    begin(secret, salt, static_cast<uint32_t>(out.size()));
    team_.run([&](uint32_t thread) { work(thread, out); });
    if (!stop_) return ok();
    arena_.wipe_all();
    return given_up();
  }

 private:
  /* Of a thread: what G needs for a block; and for counting the same, zeroes, the counter and what it gives. */
  static constexpr uint64_t scratch_blocks = 5;

  uint64_t first_block(uint32_t lane) const noexcept { return uint64_t{lane_blocks_} * lane; }
  Argon2Block* lane(uint32_t number) const noexcept { return arena_.blocks() + first_block(number); }
  Argon2Block* scratch(uint32_t thread) const noexcept {
    return arena_.blocks() + first_block(cost_.lanes) + thread * scratch_blocks;
  }
  uint32_t type_number() const noexcept { return type_ == Argon2Type::i ? 1 : 2; }

  void begin(Bytes secret, Bytes salt, uint32_t out_bytes) const noexcept;
  void work(uint32_t thread, std::span<std::byte> out);
  void fill(const Segment& segment, Argon2Block* scratch);
  uint64_t reference_block(const Segment& segment, uint32_t index, uint64_t pseudo_random) const noexcept;
  void finish(std::span<std::byte> out) const noexcept;

  Argon2Type type_;
  Argon2Cost cost_;
  Argon2Fill g_;
  Team team_;
  uint32_t segment_blocks_;
  uint32_t lane_blocks_;
  Arena arena_;
  std::atomic<bool> stop_ = false;
};

std::span<std::byte> bytes_of(Argon2Block& block) noexcept { return std::as_writable_bytes(std::span(block.words)); }

/* Words are little-endian in what is hashed.  Its own inverse. */
void to_little_endian(Argon2Block& block) noexcept {
  for (uint64_t& word : block.words) {
    const le64 field = word;
    std::memcpy(&word, &field, sizeof word);
  }
}

/* Section 3.2: H_0, and from it the first two blocks of each lane. */
void Derivation::begin(Bytes secret, Bytes salt, uint32_t out_bytes) const noexcept {
  const KeyTraces traces;
  std::array<std::byte, seed_bytes> seed;
  Blake2b hash(Blake2b::digest_bytes_max);
  for (const uint32_t value : {cost_.lanes, out_bytes, cost_.memory_kib, cost_.time, version, type_number()}) {
    append_le32(hash, value);
  }
  for (const Bytes input : {secret, salt}) {
    append_le32(hash, static_cast<uint32_t>(input.size()));
    hash.update(input);
  }
  append_le32(hash, 0); /* a secret key and associated data, which LUKS2 has not */
  append_le32(hash, 0);
  hash.digest(std::span(seed).first(Blake2b::digest_bytes_max));
  for (uint32_t l = 0; l < cost_.lanes; ++l) {
    for (uint32_t i = 0; i < 2; ++i) {
      const le32 numbers[] = {i, l};
      std::memcpy(&seed[Blake2b::digest_bytes_max], numbers, sizeof numbers);
      Argon2Block& block = lane(l)[i];
      long_digest(seed, bytes_of(block));
      to_little_endian(block);
    }
  }
  wipe(seed);
  wipe(std::as_writable_bytes(std::span(&hash, 1)));
}

/* All lanes of a slice, then all threads meet.  The one that finds that the process has to end does not wait for
 * others, who find it too. */
void Derivation::work(uint32_t thread, std::span<std::byte> out) {
  const KeyTraces traces;
  for (uint32_t pass = 0; pass < cost_.time; ++pass) {
    for (uint32_t slice = 0; slice < slices; ++slice) {
      for (uint32_t l = thread; l < cost_.lanes && !stop_; l += team_.size()) fill({pass, slice, l}, scratch(thread));
      if (stop_) return team_.leave();
      team_.meet();
    }
  }
  if (thread == 0) finish(out);
  team_.meet();
  for (uint32_t l = thread; l < cost_.lanes; l += team_.size()) arena_.wipe_blocks(first_block(l), lane_blocks_);
  arena_.wipe_blocks(first_block(cost_.lanes) + thread * scratch_blocks, scratch_blocks);
}

/* Which blocks a segment refers to: the words that choose them, section 3.4.1. */
class References {
 public:
  /* `scratch`: what G needs, zeroes, the counter and what is made of it. */
  References(Argon2Fill g, bool count, const Argon2Block& counter, Argon2Block* scratch) noexcept
      : g_(g), count_(count), scratch_(scratch) {
    scratch[1] = {};
    scratch[2] = counter;
  }

  /* The word for block `index`; to be asked in order.  `previous`: the first word of the block before, as it will be.
   */
  uint64_t word(uint32_t index, uint64_t previous) noexcept {
    if (!count_) return previous;
    if (index / addresses_per_block >= made_) {
      made_ = index / uint32_t{addresses_per_block} + 1;
      ++scratch_[2].words[6];
      g_(scratch_[1], scratch_[2], scratch_[3], false, scratch_[0]);
      g_(scratch_[1], scratch_[3], scratch_[3], false, scratch_[0]);
    }
    return scratch_[3].words[index % addresses_per_block];
  }

 private:
  Argon2Fill g_;
  bool count_;
  Argon2Block* scratch_;
  uint32_t made_ = 0; /* blocks of addresses */
};

void prefetch(const Argon2Block& block) noexcept {
  constexpr size_t line_words = 8;
  for (size_t i = 0; i < std::size(block.words); i += line_words) __builtin_prefetch(&block.words[i]);
}

/* Section 3.4.  Each reference is on its way from memory while the block before it is finished. */
void Derivation::fill(const Segment& segment, Argon2Block* scratch) {
  constexpr uint32_t blocks_between_questions = 1024;
  const bool counts = type_ == Argon2Type::i || (segment.pass == 0 && segment.slice < slices / 2);
  const uint64_t all_blocks = uint64_t{lane_blocks_} * cost_.lanes;
  References references(
      g_, counts, {{segment.pass, segment.lane, segment.slice, all_blocks, cost_.time, type_number(), 0}}, scratch + 1);
  const auto reference = [&](uint32_t index, uint64_t previous) -> const Argon2Block& {
    return arena_.blocks()[reference_block(segment, index, references.word(index, previous))];
  };
  Argon2Block* const own = lane(segment.lane);
  const uint32_t begin = segment.pass == 0 && segment.slice == 0 ? 2 : 0; /* these are there */
  const uint32_t start = segment.slice * segment_blocks_;
  const Argon2Block* previous = &own[start + begin == 0 ? lane_blocks_ - 1 : start + begin - 1];
  const Argon2Block* next = &reference(begin, previous->words[0]);
  for (uint32_t index = begin; index < segment_blocks_; ++index) {
    if (index % blocks_between_questions == 0 && shutting_down()) {
      stop_ = true;
      return;
    }
    Argon2Block& out = own[start + index];
    const Argon2Block& now = *next;
    g_.begin(*previous, now, out, segment.pass != 0, scratch[0]);
    if (index + 1 < segment_blocks_) {
      next = &reference(index + 1, out.words[0]);
      prefetch(*next);
    }
    g_.finish(*previous, now, out, segment.pass != 0, scratch[0]);
    previous = &out;
  }
}

/* Section 3.4.2: one of the blocks that are there already, recent ones with a higher probability. */
uint64_t Derivation::reference_block(const Segment& segment, uint32_t index, uint64_t pseudo_random) const noexcept {
  const bool is_first_slice = segment.pass == 0 && segment.slice == 0;
  const uint32_t lane = is_first_slice ? segment.lane : static_cast<uint32_t>((pseudo_random >> 32) % cost_.lanes);
  const uint32_t before = segment.pass == 0 ? segment.slice * segment_blocks_ : lane_blocks_ - segment_blocks_;
  const uint32_t in_segment = lane == segment.lane ? index : 0;
  const uint32_t without_previous = lane == segment.lane || index == 0 ? 1 : 0;
  const uint64_t area = before + in_segment - without_previous;
  const uint64_t x = static_cast<uint32_t>(pseudo_random);
  const uint64_t position = area - 1 - ((area * ((x * x) >> 32)) >> 32);
  const uint32_t start = segment.pass == 0 ? 0 : (segment.slice + 1) % slices * segment_blocks_;
  return first_block(lane) + (start + position) % lane_blocks_;
}

/* Section 3.2, steps 7 and 8 */
void Derivation::finish(std::span<std::byte> out) const noexcept {
  const KeyTraces traces;
  Argon2Block& sum = *scratch(0);
  sum = {};
  for (uint32_t l = 0; l < cost_.lanes; ++l) {
    const Argon2Block& last = lane(l)[lane_blocks_ - 1];
    for (size_t i = 0; i < std::size(sum.words); ++i) sum.words[i] ^= last.words[i];
  }
  to_little_endian(sum);
  long_digest(bytes_of(sum), out);
}

Status check(Bytes secret, Bytes salt, const Argon2Cost& cost, std::span<std::byte> out) {
  constexpr size_t length_max = UINT32_MAX;
  constexpr size_t out_bytes_min = 4;
  const auto refuse = [](const std::string& why) { return fail(Errc::invalid_format, "argon2: " + why); };
  if (std::max({secret.size(), salt.size(), out.size()}) > length_max)
    return refuse("an input is longer than 2^32-1 bytes");
  if (out.size() < out_bytes_min) return refuse("a key of " + std::to_string(out.size()) + " bytes, less than 4");
  if (cost.time == 0) return refuse("no pass");
  if (cost.lanes == 0 || cost.lanes > lanes_max) return refuse(std::to_string(cost.lanes) + " lanes, not 1 to 2^24-1");
  if (cost.memory_kib / cost.lanes < 2 * slices) {
    return refuse(std::to_string(cost.memory_kib) + " KiB, less than 8 for each lane");
  }
  return ok();
}

} // namespace

Status argon2(const CpuFeatures& cpu, Argon2Type type, Bytes secret, Bytes salt, const Argon2Cost& cost,
              std::span<std::byte> out) {
  if (Status s = check(secret, salt, cost, out); !s) return s;
  return Derivation(type, cost, argon2_fill_for(cpu)).run(secret, salt, out);
}

Status argon2(Argon2Type type, Bytes secret, Bytes salt, const Argon2Cost& cost, std::span<std::byte> out) {
  return argon2(this_cpu(), type, secret, salt, cost, out);
}

} // namespace qluks
