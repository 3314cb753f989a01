/* SPDX-License-Identifier: BSD-3-Clause */
/* What it costs to try key slots, known before any of them is tried.
 *
 * The costs of a derivation come from the header, so anyone who makes an image can ask for hours or for terabytes.
 * A short run of each function on this machine gives its speed; the rest is a product.
 */
#ifndef QLUKS_FORMATS_LUKS_KDF_HPP
#define QLUKS_FORMATS_LUKS_KDF_HPP

#include <cstdint>
#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "formats/luks/header.hpp"
#include "formats/luks/kdf_gate.hpp"

namespace qluks {

/* The most that one unlocking may take. */
struct KdfLimits {
  uint64_t memory_bytes = uint64_t{2} << 30;
  uint32_t seconds = 60;
};

/* Such as "pbkdf2-sha256, 1000 iterations". */
std::string describe_kdf(const LuksKeyslot& slot);

/* Remembers the speeds that it has measured.  Not for several threads at once. */
class KdfMeter {
 public:
  /* What one try costs, for each of `slots`.  Refuses if trying all of them with `secrets` secrets would be above a
   * limit, and names what is. */
  Result<std::vector<KdfCost>> check(const LuksHeader& header, const std::vector<const LuksKeyslot*>& slots,
                                     size_t secrets, const KdfLimits& limits);

  /* The same for comparing a volume key with all digests together. */
  Result<KdfCost> check_digests(const LuksHeader& header, const KdfLimits& limits);

  /* What one secret costs on one slot: deriving its key, and comparing with the digest. */
  Result<double> seconds_of(const LuksKeyslot& slot, const LuksDigest& digest);

 private:
  Result<double> kdf_seconds(const LuksKeyslot& slot);
  Result<double> pbkdf2_seconds(const HashAlgorithm& hash, uint32_t iterations, size_t key_bytes);
  Result<double> argon2_seconds(const Argon2Params& params);

  std::map<std::pair<const HashAlgorithm*, size_t>, double> pbkdf2_second_; /* of one iteration, by key size */
  /* Of a KiB in one pass, by lanes and memory. */
  std::map<std::tuple<Argon2Type, uint32_t, uint32_t>, double> argon2_second_;
  double thread_second_ = 0; /* of starting and joining one */
};

} // namespace qluks

#endif
