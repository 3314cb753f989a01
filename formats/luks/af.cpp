/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/luks/af.hpp"

#include <algorithm>

#include "base/secure_buffer.hpp"
#include "base/wire.hpp"

namespace qluks {

namespace {

void xor_into(std::span<std::byte> target, std::span<const std::byte> source) noexcept {
  std::transform(target.begin(), target.end(), source.begin(), target.begin(),
                 [](std::byte a, std::byte b) { return a ^ b; });
}

/* H of the picture, in place. */
void diffuse(Hash& hash, size_t digest_bytes, std::span<std::byte> block) noexcept {
  for (uint32_t number = 0; !block.empty(); ++number) {
    const auto part = block.first(std::min(digest_bytes, block.size()));
    const be32 prefix = number;
    hash.update(std::as_bytes(std::span(&prefix, 1)));
    hash.update(part);
    hash.digest(part);
    block = block.subspan(part.size());
  }
}

/* What the stripes in front of the last one come to. */
void diffuse_stripes(const HashAlgorithm& algorithm, std::span<const std::byte> stripes, std::span<std::byte> state) {
  Hash hash(algorithm);
  std::fill(state.begin(), state.end(), std::byte{0});
  for (; !stripes.empty(); stripes = stripes.subspan(state.size())) {
    xor_into(state, stripes.first(state.size()));
    diffuse(hash, algorithm.digest_bytes(), state);
  }
}

} // namespace

void af_merge(const HashAlgorithm& hash, std::span<const std::byte> material, std::span<std::byte> key) {
  diffuse_stripes(hash, material.first(material.size() - key.size()), key);
  xor_into(key, material.last(key.size()));
}

void af_split(const HashAlgorithm& hash, std::span<const std::byte> key, std::span<std::byte> material) {
  const auto last = material.last(key.size());
  diffuse_stripes(hash, material.first(material.size() - key.size()), last);
  xor_into(last, key);
}

} // namespace qluks
