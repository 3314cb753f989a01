/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/text.hpp"

#include <gtest/gtest.h>

namespace qluks {
namespace {

TEST(Text, QuotesOnOneLineOfPrintableAscii) {
  EXPECT_EQ(in_quotes("aes-xts-plain64"), "\"aes-xts-plain64\"");
  EXPECT_EQ(in_quotes("a\nb\"\\\x1b\xff"), "\"a\\x0ab\\x22\\x5c\\x1b\\xff\"");
  EXPECT_EQ(in_quotes(std::string_view("a\0b", 3)), "\"a\\x00b\"");
  EXPECT_EQ(in_quotes(std::string(64, 'x')), "\"" + std::string(64, 'x') + "\"");
  EXPECT_EQ(in_quotes(std::string(65, 'x')), "\"" + std::string(64, 'x') + "...\"");
}

TEST(Text, HexHasNoLeadingZeroes) {
  EXPECT_EQ(hex(0), "0x0");
  EXPECT_EQ(hex(0x50000), "0x50000");
  EXPECT_EQ(hex(UINT64_MAX), "0xffffffffffffffff");
}

} // namespace
} // namespace qluks
