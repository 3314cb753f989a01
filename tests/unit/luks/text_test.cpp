/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/luks/text.hpp"

#include <gtest/gtest.h>

#include <span>

namespace qluks {
namespace {

std::string decoded(std::string_view text) {
  const auto bytes = decode_base64(text);
  if (!bytes) return "refused";
  return {reinterpret_cast<const char*>(bytes->data()), bytes->size()};
}

TEST(LuksText, FixedFieldsEndAtTheirNul) {
  constexpr std::array<char, 4> full = {'a', 'b', 'c', 'd'};
  constexpr std::array<char, 4> ended = {'a', 'b', '\0', 'd'};
  EXPECT_EQ(terminated(full), std::nullopt);
  EXPECT_EQ(terminated(ended), "ab");
  EXPECT_EQ(shown(full), "abc");
  EXPECT_EQ(shown(ended), "ab");
}

/* RFC 4648, section 10. */
TEST(LuksText, DecodesBase64) {
  EXPECT_EQ(decoded(""), "");
  EXPECT_EQ(decoded("Zg=="), "f");
  EXPECT_EQ(decoded("Zm8="), "fo");
  EXPECT_EQ(decoded("Zm9v"), "foo");
  EXPECT_EQ(decoded("Zm9vYg=="), "foob");
  EXPECT_EQ(decoded("Zm9vYmE="), "fooba");
  EXPECT_EQ(decoded("Zm9vYmFy"), "foobar");
}

TEST(LuksText, RefusesWhatIsNotPaddedBase64) {
  for (const char* text : {"Z", "Zg", "Zg=", "Z===", "====", "Zg==Zg==", "Zm9v\n", "Zm 9", "Zm-_", "=Zg="}) {
    EXPECT_EQ(decoded(text), "refused") << text;
  }
}

} // namespace
} // namespace qluks
