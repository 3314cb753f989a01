/* SPDX-License-Identifier: BSD-3-Clause */
#include "crypto/aes/engine.hpp"

#include <algorithm>
#include <atomic>
#include <string>

#include "base/log.hpp"
#include "crypto/aes/kernel.hpp"
#include "crypto/aes/kernel_nettle.hpp"
#if defined(__x86_64__)
#include "crypto/aes/kernel_x86.hpp"
#elif defined(__aarch64__)
#include "crypto/aes/kernel_armv8.hpp"
#endif

namespace qluks {

namespace {

#if defined(__x86_64__)
bool has_vaes512(const CpuFeatures& cpu) noexcept { return cpu.aes && cpu.vaes && cpu.vpclmulqdq && cpu.avx512; }
bool has_vaes256(const CpuFeatures& cpu) noexcept { return cpu.aes && cpu.vaes && cpu.vpclmulqdq && cpu.avx2; }
#endif

constexpr Kernel all_kernels[] = {
#if defined(__x86_64__)
    {.name = "vaes512shift",
     .supported = has_vaes512,
     .rank = [](const CpuFeatures& cpu) noexcept { return cpu.slow_clmul ? 45
                                                          : cpu.slow_zmm ? 24
                                                                         : 35; },
     .expand_key = expand_key_aesni,
     .xts_encrypt = xts_encrypt_vaes512shift,
     .xts_decrypt = xts_decrypt_vaes512shift,
     .cbc_encrypt = cbc_encrypt_vaes512,
     .cbc_decrypt = cbc_decrypt_vaes512},
    {.name = "vaes512",
     .supported = has_vaes512,
     .rank = [](const CpuFeatures& cpu) noexcept { return cpu.slow_zmm ? 25 : 40; },
     .expand_key = expand_key_aesni,
     .xts_encrypt = xts_encrypt_vaes512,
     .xts_decrypt = xts_decrypt_vaes512,
     .cbc_encrypt = cbc_encrypt_vaes512,
     .cbc_decrypt = cbc_decrypt_vaes512},
    {.name = "vaes256shift",
     .supported = has_vaes256,
     .rank = [](const CpuFeatures& cpu) noexcept { return cpu.slow_clmul ? 33 : 28; },
     .expand_key = expand_key_aesni,
     .xts_encrypt = xts_encrypt_vaes256shift,
     .xts_decrypt = xts_decrypt_vaes256shift,
     .cbc_encrypt = cbc_encrypt_vaes256,
     .cbc_decrypt = cbc_decrypt_vaes256},
    {.name = "vaes256",
     .supported = has_vaes256,
     .rank = [](const CpuFeatures&) noexcept { return 30; },
     .expand_key = expand_key_aesni,
     .xts_encrypt = xts_encrypt_vaes256,
     .xts_decrypt = xts_decrypt_vaes256,
     .cbc_encrypt = cbc_encrypt_vaes256,
     .cbc_decrypt = cbc_decrypt_vaes256},
    {.name = "aesni",
     .supported = [](const CpuFeatures& cpu) noexcept { return cpu.aes; },
     .rank = [](const CpuFeatures&) noexcept { return 20; },
     .expand_key = expand_key_aesni,
     .xts_encrypt = xts_encrypt_aesni,
     .xts_decrypt = xts_decrypt_aesni,
     .cbc_encrypt = cbc_encrypt_aesni,
     .cbc_decrypt = cbc_decrypt_aesni},
#elif defined(__aarch64__)
    {.name = "armv8",
     .supported = [](const CpuFeatures& cpu) noexcept { return cpu.aes; },
     .rank = [](const CpuFeatures&) noexcept { return 20; },
     .expand_key = expand_key_armv8,
     .xts_encrypt = xts_encrypt_armv8,
     .xts_decrypt = xts_decrypt_armv8,
     .cbc_encrypt = cbc_encrypt_armv8,
     .cbc_decrypt = cbc_decrypt_armv8},
#endif
    {.name = "nettle",
     .supported = [](const CpuFeatures&) noexcept { return true; },
     .rank = [](const CpuFeatures&) noexcept { return 0; },
     .expand_key = expand_key_nettle,
     .xts_encrypt = xts_encrypt_nettle,
     .xts_decrypt = xts_decrypt_nettle,
     .cbc_encrypt = cbc_encrypt_nettle,
     .cbc_decrypt = cbc_decrypt_nettle},
};

std::vector<const Kernel*> find_usable_kernels() {
  std::vector<const Kernel*> usable;
  for (const Kernel* kernel : ranked_kernels(this_cpu())) {
    if (passes_self_test(*kernel)) {
      usable.push_back(kernel);
    } else {
      log_warning("engine " + std::string(kernel->name) + " fails its self-test: it is not used");
    }
  }
  if (!this_cpu().aes) {
    log_warning(
        "this CPU has no AES instructions: AES is slow, and its timing tells of the key to programs on the "
        "same machine");
  }
  return usable;
}

/* What passed its self-test on this machine, best first; found out at the first question. */
const std::vector<const Kernel*>& usable_kernels() {
  static const std::vector<const Kernel*> usable = find_usable_kernels();
  return usable;
}

std::atomic<const Kernel*> forced_kernel{nullptr};

} // namespace

std::span<const Kernel> kernels() noexcept { return all_kernels; }

std::vector<const Kernel*> ranked_kernels(const CpuFeatures& cpu) {
  std::vector<const Kernel*> ranked;
  for (const Kernel& kernel : kernels()) {
    if (kernel.supported(cpu)) ranked.push_back(&kernel);
  }
  std::sort(ranked.begin(), ranked.end(),
            [&](const Kernel* a, const Kernel* b) { return a->rank(cpu) > b->rank(cpu); });
  return ranked;
}

const Kernel* chosen_kernel() {
  const Kernel* forced = forced_kernel.load();
  if (forced != nullptr) return forced;
  return usable_kernels().empty() ? nullptr : usable_kernels().front();
}

std::vector<std::string_view> available_engines() {
  std::vector<std::string_view> names;
  for (const Kernel* kernel : usable_kernels()) names.push_back(kernel->name);
  return names;
}

Status choose_engine(std::string_view name) {
  if (name == "auto") {
    forced_kernel = nullptr;
    return ok();
  }
  std::string known = "auto";
  for (const Kernel* kernel : usable_kernels()) {
    if (kernel->name == name) {
      forced_kernel = kernel;
      return ok();
    }
    known += ", " + std::string(kernel->name);
  }
  return fail(Errc::unsupported, "engine \"" + std::string(name) + "\" is not one of this machine's: " + known);
}

std::string_view chosen_engine() {
  const Kernel* kernel = chosen_kernel();
  return kernel != nullptr ? kernel->name : "none";
}

} // namespace qluks
