/* SPDX-License-Identifier: BSD-3-Clause */
#include "crypto/sector_cipher.hpp"

#include <array>
#include <new>
#include <string>

#include "base/secure_buffer.hpp"
#include "crypto/adiantum.hpp"
#include "crypto/aes/kernel.hpp"
#include "crypto/mode_cipher.hpp"
#include "crypto/traces.hpp"

namespace qluks {

namespace {

using Bytes = std::span<const std::byte>;

constexpr bool is_sector_size(size_t bytes) noexcept {
  return bytes == 512 || bytes == 1024 || bytes == 2048 || bytes == 4096;
}

class KernelCipher final : public SectorCipher {
 public:
  KernelCipher(const Kernel& kernel, const CipherSpec& spec, Bytes key, size_t sector_size)
      : kernel_(kernel),
        xts_(spec.mode == CipherMode::xts),
        encrypt_(xts_ ? kernel.xts_encrypt : kernel.cbc_encrypt),
        decrypt_(xts_ ? kernel.xts_decrypt : kernel.cbc_decrypt),
        sector_size_(sector_size),
        memory_(sizeof(SectorKeys)),
        keys_(*new (memory_.data()) SectorKeys) {
    expand_keys(spec, key);
  }

  size_t sector_size() const noexcept override { return sector_size_; }
  std::string_view engine() const noexcept override { return kernel_.name; }

  void decrypt(SectorNumber first, Bytes in, std::span<std::byte> out) const noexcept override {
    const SectorRun run = run_of(first, in, out);
    xts_ ? turn<FewSectorsTraces, XtsTraces>(decrypt_, run) : turn<FewSectorsTraces, RequestTraces>(decrypt_, run);
  }
  void encrypt(SectorNumber first, Bytes in, std::span<std::byte> out) const noexcept override {
    const SectorRun run = run_of(first, in, out);
    xts_ ? turn<FewSectorsTraces, XtsTraces>(encrypt_, run) : turn<RequestTraces, CbcEncryptTraces>(encrypt_, run);
  }

 private:
  SectorRun run_of(SectorNumber first, Bytes in, std::span<std::byte> out) const noexcept {
    return {first.value, sector_size_, in.size() / sector_size_, in.data(), out.data()};
  }

  template <class FewTraces, class ManyTraces>
  void turn(SectorFn* kernel, const SectorRun& run) const noexcept {
    if (run.is_few()) {
      const FewTraces wiped;
      kernel(keys_, run);
    } else {
      const ManyTraces wiped;
      kernel(keys_, run);
    }
  }

  void expand_keys(const CipherSpec& spec, Bytes key) {
    const size_t data_key_bytes = xts_ ? key.size() / 2 : key.size();
    kernel_.expand_key(key.first(data_key_bytes), keys_.data);
    keys_.iv_layout = iv_layout(spec.iv);
    keys_.iv_keys = 0;
    if (spec.iv == IvKind::essiv) add_iv_key(hash_of(*spec.essiv_hash, key).span()); /* of the whole volume key */
    if (xts_) add_iv_key(key.subspan(data_key_bytes));
  }

  void add_iv_key(Bytes key) noexcept { kernel_.expand_key(key, keys_.iv[keys_.iv_keys++]); }

  const Kernel& kernel_;
  bool xts_;
  SectorFn* encrypt_;
  SectorFn* decrypt_;
  size_t sector_size_;
  SecureBuffer memory_;
  SectorKeys& keys_; /* in memory_ */
};

bool kernels_take(const CipherSpec& spec) noexcept {
  return spec.cipher == BlockCipher::aes && (spec.mode == CipherMode::xts || spec.mode == CipherMode::cbc) &&
         has_iv_layout(spec.iv);
}

Status check(const CipherSpec& spec, Bytes key, size_t sector_size) {
  if (!spec.accepts_key_bytes(key.size())) {
    return fail(Errc::unsupported, "cipher " + spec.name() + ": no key of " + std::to_string(key.size()) + " bytes");
  }
  if (!is_sector_size(sector_size)) {
    return fail(Errc::unsupported, "cipher " + spec.name() + ": sector size " + std::to_string(sector_size) +
                                       " is none of 512, 1024, 2048 and 4096");
  }
  if (spec.iv == IvKind::essiv && !is_key_bytes_of(spec.cipher, spec.essiv_hash->digest_bytes())) {
    return fail(Errc::unsupported, "cipher " + spec.name() + ": the " +
                                       std::to_string(spec.essiv_hash->digest_bytes()) +
                                       "-byte digest of the essiv hash is no key of the cipher");
  }
  return ok();
}

} // namespace

Result<std::shared_ptr<const SectorCipher>> make_sector_cipher(const Kernel& kernel, const CipherSpec& spec, Bytes key,
                                                               size_t sector_size) {
  const KeyTraces wiped;
  if (Status s = check(spec, key, sector_size); !s) return propagate(s);
  if (spec.mode == CipherMode::adiantum) return make_adiantum_cipher(spec, key, sector_size);
  if (!kernels_take(spec)) return make_mode_cipher(spec, key, sector_size);
  return std::make_shared<const KernelCipher>(kernel, spec, key, sector_size);
}

Result<std::shared_ptr<const SectorCipher>> make_sector_cipher(const CipherSpec& spec, Bytes key, size_t sector_size) {
  const Kernel* kernel = chosen_kernel();
  if (kernel == nullptr) return fail(Errc::unsupported, "no AES engine passes its self-test on this machine");
  return make_sector_cipher(*kernel, spec, key, sector_size);
}

} // namespace qluks
