/* SPDX-License-Identifier: BSD-3-Clause */
/* How fast the sector engine is, as a share of what the CPU can do and against other libraries: see README.md.
 *
 * Google Benchmark runs one benchmark a case; an iteration of it is a round of a Race, in which the register limits,
 * our kernels and the libraries each have a turn. */
#include <argon2.h>
#include <benchmark/benchmark.h>
#include <sys/mman.h>

#include <array>
#include <cstdio>
#include <fstream>
#include <memory>
#include <new>
#include <string>

#include "bench/limits.hpp"
#include "bench/rivals.hpp"
#include "bench/table.hpp"
#include "crypto/aes/kernel.hpp"
#include "crypto/kdf/pbkdf.hpp"

namespace qluks::bench {

namespace {

constexpr size_t KiB = 1024;
constexpr size_t MiB = 1024 * KiB;

struct CipherCase {
  std::string_view spec;
  size_t key_bytes;
  Direction direction;
  size_t sector_size;
  size_t buffer;
};

std::string size_name(size_t bytes) {
  if (bytes >= MiB) return std::to_string(bytes / MiB) + " MiB";
  if (bytes >= KiB) return std::to_string(bytes / KiB) + " KiB";
  return std::to_string(bytes) + " B";
}

std::string title(const CipherCase& c) {
  const size_t bits = 8 * (c.spec.find("xts") != std::string_view::npos ? c.key_bytes / 2 : c.key_bytes);
  return std::string(c.spec) + " " + std::to_string(bits) + (c.direction == Direction::encrypt ? " enc" : " dec") +
         " " + std::to_string(c.sector_size) + ", " + size_name(c.buffer);
}

/* On huge pages: the table is about AES and memory, not about TLB misses. */
std::span<std::byte> work_buffer() {
  static const std::span<std::byte> buffer = [] {
    constexpr size_t size = 64 * MiB;
    void* memory = mmap(nullptr, size + 2 * MiB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    const auto start = (reinterpret_cast<uintptr_t>(memory) + 2 * MiB - 1) / (2 * MiB) * (2 * MiB);
    madvise(reinterpret_cast<void*>(start), size, MADV_HUGEPAGE);
    return std::span(reinterpret_cast<std::byte*>(start), size);
  }();
  return buffer;
}

std::array<std::byte, 64> bench_key() {
  std::array<std::byte, 64> key;
  for (size_t i = 0; i < key.size(); ++i) key[i] = static_cast<std::byte>(i * 29 + 1);
  return key;
}

void add_limits(std::vector<Contestant>& contestants, unsigned aes_rounds) {
  constexpr size_t rounds = 1000;
  for (const Limit& limit : limits()) {
    if (!limit.supported(this_cpu())) continue;
    const double bytes = static_cast<double>(rounds * instructions_per_round * limit.vector_bytes) / aes_rounds;
    contestants.push_back({Kind::limit, std::string(limit.name) + " limit", bytes, [&limit] { limit.run(rounds); }});
  }
}

/* The limit of the registers that a kernel uses; none for nettle's, which uses whatever nettle was built with. */
int limit_of(const std::vector<Contestant>& contestants, std::string_view kernel) {
  const std::string_view name = kernel.starts_with("vaes512")   ? "zmm limit"
                                : kernel.starts_with("vaes256") ? "ymm limit"
                                                                : "xmm limit";
  for (size_t i = 0; i < contestants.size(); ++i) {
    if (contestants[i].name == name) return static_cast<int>(i);
  }
  return -1;
}

Race make_race(const CipherCase& c) {
  const std::array<std::byte, 64> key = bench_key();
  const std::span<const std::byte> key_span = std::span(key).first(c.key_bytes);
  const auto spec = parse_cipher_spec(c.spec);
  const std::span<std::byte> data = work_buffer().first(c.buffer);
  const double work = static_cast<double>(c.buffer);

  std::vector<Contestant> contestants;
  add_limits(contestants, aes_rounds(spec->mode == CipherMode::xts ? c.key_bytes / 2 : c.key_bytes));
  for (const Kernel* kernel : ranked_kernels(this_cpu())) {
    const auto cipher = *make_sector_cipher(*kernel, *spec, key_span, c.sector_size);
    const auto go = [cipher, data, encrypt = c.direction == Direction::encrypt] {
      encrypt ? cipher->encrypt({0}, data, data) : cipher->decrypt({0}, data, data);
    };
    contestants.push_back({Kind::ours, std::string(kernel->name), work, go, limit_of(contestants, kernel->name)});
  }
  for (const Rival& rival : rivals()) {
    const auto cipher = std::make_shared<RivalCipher>(rival, *spec, key_span, c.direction);
    const auto go = [cipher, data, size = c.sector_size] { cipher->run(data, size); };
    contestants.push_back({Kind::rival, std::string(rival.name) + " lib", work, go});
  }
  return {title(c), std::move(contestants)};
}

struct Pbkdf2Case {
  std::string_view name;
  Pbkdf2Hash hash;
  size_t key_bytes;
};

Race make_pbkdf2_race(const Pbkdf2Case& c) {
  const Pbkdf2Input input{c.hash, "a passphrase of usual length", "0123456789abcdef0123456789abcdef", 10000};
  const auto out = std::make_shared<std::vector<std::byte>>(c.key_bytes);
  const double work = input.iterations;
  std::vector<Contestant> contestants;
  const auto ours = [out, input, hash = find_hash(c.name)] {
    const auto bytes = [](std::string_view text) { return std::as_bytes(std::span(text)); };
    static_cast<void>(pbkdf2(*hash, bytes(input.secret), bytes(input.salt), input.iterations, *out));
  };
  contestants.push_back({Kind::ours, "qluks", work, ours});
  for (const Rival& rival : rivals()) {
    contestants.push_back(
        {Kind::rival, std::string(rival.name) + " lib", work, [&rival, input, out] { rival.pbkdf2(input, *out); }});
  }
  return {"pbkdf2-" + std::string(c.name) + ", " + std::to_string(c.key_bytes) + "-byte key", std::move(contestants)};
}

/* A small one, and the default of cryptsetup. */
constexpr Argon2Cost argon2_costs[] = {
    {.time = 1, .memory_kib = 256 * 1024, .lanes = 2},
    {.time = 1, .memory_kib = 1024 * 1024, .lanes = 4},
};

Race make_argon2_race(const Argon2Cost& cost) {
  static const std::array<std::byte, 32> salt{};
  static std::array<std::byte, 64> out;
  std::vector<Contestant> contestants;
  contestants.push_back({Kind::ours, "qluks", cost.memory_kib * 1024.0,
                         [cost] { static_cast<void>(argon2(Argon2Type::id, salt, salt, cost, out)); }});
  contestants.push_back({Kind::rival, "libargon2", cost.memory_kib * 1024.0, [cost] {
                           argon2id_hash_raw(cost.time, cost.memory_kib, cost.lanes, salt.data(), salt.size(),
                                             salt.data(), salt.size(), out.data(), out.size());
                         }});
  const std::string name =
      "argon2id, " + std::to_string(cost.memory_kib / 1024) + " MiB, " + std::to_string(cost.lanes) + " lanes";
  return {name, std::move(contestants), CLOCK_MONOTONIC}; /* it has threads of its own */
}

std::vector<CipherCase> cipher_cases() {
  std::vector<CipherCase> cases;
  for (const size_t sector_size : {size_t{512}, 4 * KiB}) {
    for (const size_t buffer : {size_t{512}, 4 * KiB, 64 * KiB, MiB, 64 * MiB}) {
      if (buffer < sector_size) continue;
      for (const Direction d : {Direction::decrypt, Direction::encrypt}) {
        cases.push_back({"aes-xts-plain64", 64, d, sector_size, buffer});
      }
    }
  }
  cases.push_back({"aes-xts-plain64", 32, Direction::decrypt, 512, 64 * KiB});
  for (const std::string_view spec : {"aes-cbc-plain64", "aes-cbc-essiv:sha256"}) {
    for (const Direction d : {Direction::decrypt, Direction::encrypt}) {
      for (const size_t buffer : {4 * KiB, 64 * KiB, MiB}) cases.push_back({spec, 32, d, 512, buffer});
    }
  }
  return cases;
}

/* Cases that --benchmark_filter lets run, in their order. */
struct Results {
  std::vector<Race> ciphers, pbkdf2, argon2;
} results;

struct Timing {
  int rounds;
  double turn_seconds;
  double warm_up_seconds = 0;
};

constexpr Timing small_buffer{51, 0.0003};
/* After 20 ms without traffic the memory system of a CPU clocks down, and it takes 50 ms of traffic to come back. */
constexpr Timing large_buffer{9, 0.01, 0.06};
/* A virtual machine may give memory that is free back to its host, and has to get it again: whoever came after a pause
 * would pay for that. */
constexpr Timing large_memory{5, 0.1, 1};

void run(benchmark::State& state, std::vector<Race>& races, const std::function<Race()>& make, const Timing& timing) {
  Race race = make();
  race.repeat_turns(timing.turn_seconds);
  race.set_warm_up(timing.warm_up_seconds);
  for (auto round : state) {
    static_cast<void>(round);
    race.run_round();
  }
  for (size_t i = 0; i < race.contestants().size(); ++i) {
    state.counters[race.contestants()[i].name] = race.median_speed(i);
  }
  races.push_back(std::move(race));
}

void register_case(const std::string& name, std::vector<Race>& races, std::function<Race()> make,
                   const Timing& timing) {
  benchmark::RegisterBenchmark(name.c_str(), [&races, make = std::move(make),
                                              timing](benchmark::State& state) { run(state, races, make, timing); })
      ->Iterations(timing.rounds)
      ->UseRealTime()
      ->Unit(benchmark::kMillisecond);
}

void register_all() {
  for (const CipherCase& c : cipher_cases()) {
    const Timing timing = c.buffer > MiB ? large_buffer : small_buffer;
    register_case(
        title(c), results.ciphers, [c] { return make_race(c); }, timing);
  }
  constexpr Pbkdf2Case pbkdf2_cases[] = {
      {"sha1", Pbkdf2Hash::sha1, 32},     {"sha1", Pbkdf2Hash::sha1, 64},     {"sha256", Pbkdf2Hash::sha256, 32},
      {"sha256", Pbkdf2Hash::sha256, 64}, {"sha512", Pbkdf2Hash::sha512, 64},
  };
  for (const Pbkdf2Case& c : pbkdf2_cases) {
    const auto make = [c] { return make_pbkdf2_race(c); };
    register_case(make().title(), results.pbkdf2, make, {25, 0.002});
  }
  for (const Argon2Cost& cost : argon2_costs) {
    const auto make = [cost] { return make_argon2_race(cost); };
    register_case(make().title(), results.argon2, make, large_memory);
  }
}

/* Maker, family and model: what is free beside AES differs between them. */
void print_cpu() {
  std::ifstream cpuinfo("/proc/cpuinfo");
  std::string line;
  std::printf("\nCPU:");
  while (std::getline(cpuinfo, line) && !line.empty()) { /* an empty line ends the first CPU */
    for (const std::string_view field : {"vendor_id", "cpu family", "model"}) {
      const size_t colon = line.find(':');
      const size_t end = line.find_last_not_of("\t ", colon - 1);
      if (colon == std::string::npos || line.substr(0, end + 1) != field) continue;
      std::printf(" %s%s", field == "vendor_id" ? "" : (std::string(field) + " ").c_str(), line.c_str() + colon + 2);
    }
  }
}

void print_results() {
  print_cpu();
  std::printf("\nengines:");
  for (const Kernel* kernel : ranked_kernels(this_cpu())) std::printf(" %s", kernel->name.data());
  std::printf("; libraries:");
  for (const Rival& rival : rivals()) std::printf(" %s %s", rival.name.data(), rival.version.c_str());
  std::printf("; compiler: %s\n", __VERSION__);
  print_table(results.ciphers, 1e9, "GB/s");
  print_table(results.pbkdf2, 1e6, "million iterations/s");
  print_table(results.argon2, 1e9, "GB/s");
}

} // namespace

} // namespace qluks::bench

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  qluks::bench::register_all();
  benchmark::RunSpecifiedBenchmarks();
  qluks::bench::print_results();
  return 0;
}
