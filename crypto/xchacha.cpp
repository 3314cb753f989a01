/* SPDX-License-Identifier: BSD-3-Clause */
/* nettle has ChaCha with 20 rounds, which is faster than what is here, but neither HChaCha nor another number of
 * rounds. */
#include "crypto/xchacha.hpp"

#include <nettle/chacha.h>

#include <algorithm>
#include <bit>

#include "base/secure_buffer.hpp"
#include "crypto/little_endian.hpp"

namespace qluks {

namespace {

using State = std::array<uint32_t, 16>;

constexpr size_t block_bytes = sizeof(State);
constexpr size_t counter_low = 12;
constexpr size_t counter_high = 13;

/* `row` is the last one: 16 bytes. */
State make_state(const std::byte* key, const std::byte* row) noexcept {
  State state = {0x61707865, 0x3320646e, 0x79622d32, 0x6b206574}; /* "expand 32-byte k" */
  for (size_t i = 0; i < 8; ++i) state[4 + i] = load_little_endian<uint32_t>(key + 4 * i);
  for (size_t i = 0; i < 4; ++i) state[12 + i] = load_little_endian<uint32_t>(row + 4 * i);
  return state;
}

void quarter_round(uint32_t& a, uint32_t& b, uint32_t& c, uint32_t& d) noexcept {
  d = std::rotl(d ^ (a += b), 16);
  b = std::rotl(b ^ (c += d), 12);
  d = std::rotl(d ^ (a += b), 8);
  b = std::rotl(b ^ (c += d), 7);
}

void permute(State& s, unsigned rounds) noexcept {
  for (unsigned round = 0; round < rounds; round += 2) {
    for (size_t i = 0; i < 4; ++i) quarter_round(s[i], s[4 + i], s[8 + i], s[12 + i]);
    for (size_t i = 0; i < 4; ++i) {
      quarter_round(s[i], s[4 + (i + 1) % 4], s[8 + (i + 2) % 4], s[12 + (i + 3) % 4]);
    }
  }
}

/* HChaCha: the first and the last row after the rounds are a key. */
void derive_key(unsigned rounds, const std::byte* key, const std::byte* row, std::byte* derived) noexcept {
  Wiped<State> state{make_state(key, row)};
  permute(state.value, rounds);
  for (size_t i = 0; i < 4; ++i) {
    store_little_endian(state.value[i], derived + 4 * i);
    store_little_endian(state.value[12 + i], derived + 16 + 4 * i);
  }
}

void chacha(unsigned rounds, const std::byte* key, const std::byte* row, std::span<const std::byte> in,
            std::byte* out) noexcept {
  Wiped<State> input{make_state(key, row)};
  Wiped<State> stream;
  for (size_t at = 0; at < in.size(); at += block_bytes) {
    stream.value = input.value;
    permute(stream.value, rounds);
    for (size_t i = 0; i < stream.value.size(); ++i) {
      stream.value[i] = little_endian(stream.value[i] + input.value[i]);
    }
    const auto block = in.subspan(at, std::min(block_bytes, in.size() - at));
    const auto bytes = std::as_bytes(std::span(stream.value));
    std::transform(block.begin(), block.end(), bytes.begin(), out + at, [](auto a, auto b) { return a ^ b; });
    if (++input.value[counter_low] == 0) ++input.value[counter_high];
  }
}

void chacha_by_nettle(const std::byte* key, const std::byte* row, std::span<const std::byte> in,
                      std::byte* out) noexcept {
  Wiped<chacha_ctx> state;
  chacha_set_key(&state.value, reinterpret_cast<const uint8_t*>(key));
  chacha_set_nonce(&state.value, reinterpret_cast<const uint8_t*>(row) + CHACHA_COUNTER_SIZE);
  chacha_crypt(&state.value, in.size(), reinterpret_cast<uint8_t*>(out), reinterpret_cast<const uint8_t*>(in.data()));
}

} // namespace

void XChaCha::crypt(const std::byte* key, const Nonce& nonce, std::span<const std::byte> in,
                    std::byte* out) const noexcept {
  Wiped<std::array<std::byte, key_bytes>> derived;
  derive_key(rounds, key, nonce.data(), derived.value.data());
  std::array<std::byte, 16> row{}; /* a counter of zero, and the rest of the nonce */
  std::copy(nonce.begin() + 16, nonce.end(), row.begin() + 8);
  if (rounds == 20) return chacha_by_nettle(derived.value.data(), row.data(), in, out);
  chacha(rounds, derived.value.data(), row.data(), in, out);
}

} // namespace qluks
