/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/luks/kdf.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "base/clock.hpp"
#include "base/log.hpp"

namespace qluks {

namespace {

/* Long enough to be measured, short enough that nobody waits for it. */
constexpr double calibration_seconds = 0.001;
constexpr Argon2Cost argon2_calibration = {1, 8 << 10, 1};

/* Memory beyond the caches is slower, and every page of it has to be had from the kernel: a
 * derivation that fills gigabytes is measured with memory like that, for a tenth of its own time at the most. */
constexpr uint32_t argon2_calibration_large_kib = 32 << 10;
constexpr uint64_t argon2_large_filled_kib = 1 << 20;

constexpr bool fills_gigabytes(const Argon2Cost& cost) noexcept {
  return cost.memory_kib >= argon2_calibration_large_kib &&
         uint64_t{cost.memory_kib} * cost.time >= argon2_large_filled_kib;
}

/* As little memory as four lanes can have: hardly anything but threads is measured.  There is one for each lane in each
 * quarter of each pass. */
constexpr Argon2Cost thread_calibration = {16, 32, 4};

constexpr double threads_of(const Argon2Cost& cost) noexcept { return 4.0 * cost.time * cost.lanes; }

/* More lanes than this do not make a derivation faster on any machine that we estimate for. */
constexpr uint32_t argon2_calibrated_lanes_max = 4;

/* Stand in for a secret and a salt while measuring; the time does not depend on them. */
constexpr std::array<std::byte, 32> any_bytes{};

template <class F>
Result<double> seconds_taken(F&& work) {
  const double start = monotonic_seconds();
  if (Status s = work(); !s) return propagate(s);
  return monotonic_seconds() - start;
}

/* The shortest of three runs: whatever else the machine does makes a run longer, never shorter, and an estimate from
 * a run of milliseconds that lost the CPU for as long would refuse a volume for nothing. */
template <class F>
Result<double> measure(F&& work) {
  double shortest = std::numeric_limits<double>::infinity();
  for (int i = 0; i < 3; ++i) {
    const auto taken = seconds_taken(work);
    if (!taken) return taken;
    shortest = std::min(shortest, *taken);
  }
  return shortest;
}

Result<double> measure_argon2(Argon2Type type, const Argon2Cost& cost) {
  std::array<std::byte, 32> key;
  return measure([&] { return argon2(type, any_bytes, any_bytes, cost, key); });
}

std::string rounded(double seconds) { return std::to_string(static_cast<uint64_t>(std::ceil(seconds))); }

uint64_t memory_of(const LuksKeyslot& slot) noexcept {
  const auto* params = std::get_if<Argon2Params>(&slot.kdf);
  return params == nullptr ? 0 : uint64_t{params->cost.memory_kib} * 1024;
}

Status check_memory(const LuksKeyslot& slot, const KdfLimits& limits) {
  if (memory_of(slot) <= limits.memory_bytes) return ok();
  return fail(Errc::unsupported, "key slot " + std::to_string(slot.number) + ": its key derivation takes " +
                                     std::to_string(memory_of(slot) / 1024) + " KiB of memory, the limit is " +
                                     std::to_string(limits.memory_bytes / 1024) +
                                     " KiB: raise qluks-kdf-memory, or name another slot with qluks-key-slot");
}

} // namespace

std::string describe_kdf(const LuksKeyslot& slot) {
  if (const auto* params = std::get_if<Pbkdf2Params>(&slot.kdf)) {
    return "pbkdf2-" + std::string(params->hash->name) + ", " + std::to_string(params->iterations) + " iterations";
  }
  const auto& [type, cost] = std::get<Argon2Params>(slot.kdf);
  return std::string(type == Argon2Type::i ? "argon2i" : "argon2id") + ", time " + std::to_string(cost.time) +
         ", memory " + std::to_string(cost.memory_kib) + " KiB, " + std::to_string(cost.lanes) + " cpus";
}

Result<double> KdfMeter::pbkdf2_seconds(const HashAlgorithm& hash, uint32_t iterations, size_t key_bytes) {
  double& second = pbkdf2_second_[{&hash, key_bytes}];
  std::vector<std::byte> key(key_bytes);
  for (uint32_t n = 250; second == 0; n *= 2) {
    const auto work = [&] { return pbkdf2(hash, any_bytes, any_bytes, n, key); };
    const auto first = seconds_taken(work);
    if (!first) return first;
    if (*first < calibration_seconds) continue;
    const auto shortest = measure(work);
    if (!shortest) return shortest;
    second = *shortest / n;
  }
  return second * iterations;
}

/* What filling the memory takes, and what is lost on threads if there are many for little memory. */
Result<double> KdfMeter::argon2_seconds(const Argon2Params& params) {
  Argon2Cost cost = argon2_calibration;
  cost.lanes = std::clamp(params.cost.lanes, 1U, argon2_calibrated_lanes_max);
  if (fills_gigabytes(params.cost)) cost.memory_kib = argon2_calibration_large_kib;
  double& second = argon2_second_[{params.type, cost.lanes, cost.memory_kib}];
  if (second == 0) {
    auto taken = measure_argon2(params.type, cost);
    if (!taken) return taken;
    second = *taken / cost.memory_kib;
  }
  const double filling = second * params.cost.memory_kib * params.cost.time;
  if (params.cost.lanes < 2) return filling;
  if (thread_second_ == 0) {
    auto taken = measure_argon2(params.type, thread_calibration);
    if (!taken) return taken;
    thread_second_ = *taken / threads_of(thread_calibration);
  }
  return filling + thread_second_ * threads_of(params.cost);
}

Result<double> KdfMeter::kdf_seconds(const LuksKeyslot& slot) {
  if (const auto* params = std::get_if<Argon2Params>(&slot.kdf)) return argon2_seconds(*params);
  const auto& params = std::get<Pbkdf2Params>(slot.kdf);
  return pbkdf2_seconds(*params.hash, params.iterations, slot.area_key_bytes);
}

Result<double> KdfMeter::seconds_of(const LuksKeyslot& slot, const LuksDigest& digest) {
  auto derive = kdf_seconds(slot);
  if (!derive) return derive;
  auto verify = pbkdf2_seconds(*digest.hash, digest.iterations, digest.digest.size());
  if (!verify) return verify;
  return *derive + *verify;
}

Result<KdfCost> KdfMeter::check_digests(const LuksHeader& header, const KdfLimits& limits) {
  double total = 0;
  for (const LuksDigest& digest : header.digests) {
    auto seconds = pbkdf2_seconds(*digest.hash, digest.iterations, digest.digest.size());
    if (!seconds) return propagate(seconds);
    total += *seconds;
  }
  if (total <= limits.seconds) return KdfCost{.memory_bytes = 0, .seconds = total};
  return fail(Errc::unsupported, "checking the volume key may take " + rounded(total) + " s, the limit is " +
                                     std::to_string(limits.seconds) + " s: raise qluks-kdf-time");
}

Result<std::vector<KdfCost>> KdfMeter::check(const LuksHeader& header, const std::vector<const LuksKeyslot*>& slots,
                                             size_t secrets, const KdfLimits& limits) {
  std::vector<KdfCost> costs;
  double total = 0;
  const LuksKeyslot* dearest = nullptr;
  double dearest_seconds = -1;
  for (const LuksKeyslot* slot : slots) {
    if (Status s = check_memory(*slot, limits); !s) return propagate(s);
    auto seconds = seconds_of(*slot, header.digests[slot->digest]);
    if (!seconds) return propagate(seconds);
    costs.push_back({.memory_bytes = memory_of(*slot), .seconds = *seconds});
    total += *seconds * static_cast<double>(secrets);
    if (*seconds <= dearest_seconds) continue;
    dearest = slot;
    dearest_seconds = *seconds;
  }
  log_debug("trying " + std::to_string(secrets) + " secrets on " + std::to_string(slots.size()) +
            " key slots takes at most about " + rounded(total) + " s");
  if (total <= limits.seconds) return costs;
  return fail(Errc::unsupported,
              "unlocking may take " + rounded(total) + " s (" + std::to_string(secrets) + " secrets on " +
                  std::to_string(slots.size()) + " key slots, " + rounded(dearest_seconds) + " s for key slot " +
                  std::to_string(dearest->number) + ": " + describe_kdf(*dearest) + "), the limit is " +
                  std::to_string(limits.seconds) + " s: raise qluks-kdf-time, or name the slot with qluks-key-slot");
}

} // namespace qluks
