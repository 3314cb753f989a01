/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/luks/luks2_json.hpp"

#include <gtest/gtest.h>

#include <functional>

namespace qluks {
namespace {

std::string nested(size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); }

/* An array of that many values, itself included. */
std::string values(size_t count) {
  std::string text = "[0";
  for (size_t i = 2; i < count; ++i) text += ",0";
  return text + "]";
}

std::string error_of(std::string_view text) {
  const auto json = parse_json(text);
  return json ? "" : json.error().what;
}

TEST(Json, KeepsMembersInTheOrderOfTheText) {
  const auto json = parse_json(R"( {"b": 1, "a": [true, null, "x"], "c": {"d": -5}} )");
  ASSERT_TRUE(json);
  const auto& members = std::get<JsonObject>(json->value);
  ASSERT_EQ(members.size(), 3U);
  EXPECT_EQ(members[0].name, "b");
  EXPECT_EQ(members[1].name, "a");
  EXPECT_EQ(std::get<int64_t>(members[0].json.value), 1);
  const auto& array = std::get<JsonArray>(members[1].json.value);
  EXPECT_TRUE(std::get<bool>(array[0].value));
  EXPECT_TRUE(std::holds_alternative<std::nullptr_t>(array[1].value));
  EXPECT_EQ(std::get<std::string>(array[2].value), "x");
  const auto& inner = std::get<JsonObject>(members[2].json.value);
  EXPECT_EQ(std::get<int64_t>(inner[0].json.value), -5);
}

TEST(Json, NumbersThatAreNoSmallIntegersAreNotIntegers) {
  for (const char* text : {"1.0", "1e3", "9223372036854775808", "18446744073709551616", "-9223372036854775809"}) {
    const auto json = parse_json(text);
    ASSERT_TRUE(json) << text;
    EXPECT_TRUE(std::holds_alternative<JsonOtherNumber>(json->value)) << text;
  }
}

TEST(Json, IsWrittenAsItWasRead) {
  for (const char* text : {"{}", "[]", "null", "true", "-5", "1e3", "-0.50", "18446744073709551616",
                           R"({"b":{"a":[1,[],{}]}})", R"(["","\u0001\u001f\"\\/äß"])"}) {
    const auto json = parse_json(text);
    ASSERT_TRUE(json) << text;
    EXPECT_EQ(json_text(*json), text);
  }
  EXPECT_EQ(json_text(*parse_json(" { \"\\u0061\" : [ 1 , \"\\n\" ] } ")), R"({"a":[1,"\u000a"]})");
}

TEST(Json, RefusesWhatIsNotJson) {
  for (const char* text :
       {"",    " ",     "{",     "}",   "{\"a\"}",  "{\"a\":}",          "{\"a\":1,}", "[1,]",   "[1 2]",
        "{}x", "{} {}", "nul",   "'a'", "\"a",      "\"\\x\"",           "\"\xff\"",   "\"\n\"", "01",
        "+1",  ".5",    "1e999", "NaN", "// c\n{}", "{\"a\":1 \"b\":2}", "{1:2}"}) {
    EXPECT_NE(error_of(text).find("syntax error at byte"), std::string::npos) << text;
  }
  EXPECT_FALSE(error_of(std::string_view("{}\0", 3)).empty());
}

TEST(Json, NestingIsLimited) {
  EXPECT_EQ(error_of(nested(json_depth_max)), "");
  EXPECT_EQ(error_of(nested(json_depth_max + 1)), "JSON: nested deeper than 32");
  EXPECT_EQ(error_of(std::string(4 << 20, '[')), "JSON: nested deeper than 32");
  std::string objects;
  for (int i = 0; i < 1000000; ++i) objects += R"({"a":)";
  EXPECT_EQ(error_of(objects), "JSON: nested deeper than 32");
}

TEST(Json, CountOfValuesIsLimited) {
  EXPECT_EQ(error_of(values(json_values_max)), "");
  EXPECT_EQ(error_of(values(json_values_max + 1)), "JSON: more than 65536 values");
}

TEST(Json, MembersThatAppearTwiceAreRefused) {
  EXPECT_EQ(error_of(R"({"a":1,"b":2,"a":1})"), R"(JSON: member "a" appears twice)");
  EXPECT_EQ(error_of(R"({"x":{"a":1,"\u0061":2}})"), R"(JSON: member "a" appears twice)");
  EXPECT_EQ(error_of(R"({"x":{"a":1},"y":{"a":1}})"), "");
}

TEST(Json, DecimalIsExactlyAnUnsigned64) {
  uint64_t value = 0;
  EXPECT_TRUE(parse_decimal("18446744073709551615", value));
  EXPECT_EQ(value, UINT64_MAX);
  EXPECT_TRUE(parse_decimal("0", value));
  EXPECT_EQ(value, 0U);
  for (const char* text : {"", "-1", "+1", " 1", "1 ", "0x10", "1.0", "1e3", "18446744073709551616", "dynamic"}) {
    EXPECT_FALSE(parse_decimal(text, value)) << text;
  }
}

class Fields : public ::testing::Test {
 protected:
  Json json_ = *parse_json(R"({"s":"x","empty":"","n":7,"neg":-1,"big":4294967296,"d":"42","real":1.5,
                               "list":["a","b"],"mixed":["a",1],"o":{"d":"no"},"many":{"0":{},"7":{}},
                               "odd":{"01":{}},"far":{"32":{}},"scalar":{"0":3}})");
  Status status_ = ok();
  JsonFields root_{json_, "", status_};
};

TEST_F(Fields, ReadWhatIsThere) {
  EXPECT_EQ(root_.string("s"), "x");
  EXPECT_EQ(root_.integer("n"), 7U);
  EXPECT_EQ(root_.decimal("d"), 42U);
  EXPECT_EQ(root_.strings("list"), (std::vector<std::string>{"a", "b"}));
  const auto many = root_.numbered("many", 32);
  ASSERT_EQ(many.size(), 2U);
  EXPECT_EQ(many[1].first, 7U);
  EXPECT_TRUE(root_.has("s"));
  EXPECT_FALSE(root_.has("t"));
  EXPECT_TRUE(status_);
}

TEST_F(Fields, NameTheFirstThatIsWrong) {
  root_.object("o").decimal("d");
  root_.string("absent");
  ASSERT_FALSE(status_);
  EXPECT_EQ(status_.error().what, R"(o.d: "no" is not a decimal number of at most 64 bits)");
}

TEST_F(Fields, EachKindIsChecked) {
  const std::vector<std::pair<std::function<void()>, std::string>> wrong = {
      {[&] { root_.string("absent"); }, "absent: missing"},
      {[&] { root_.string("n"); }, "n: not a string"},
      {[&] { root_.string("empty"); }, "empty: empty"},
      {[&] { root_.integer("s"); }, "s: not an integer"},
      {[&] { root_.integer("real"); }, "real: not an integer"},
      {[&] { root_.integer("neg"); }, "neg: -1 is not between 0 and 4294967295"},
      {[&] { root_.integer("big"); }, "big: 4294967296 is not between 0 and 4294967295"},
      {[&] { root_.decimal("n"); }, "n: not a string of decimal digits"},
      {[&] { root_.strings("s"); }, "s: not an array"},
      {[&] { root_.strings("mixed"); }, "mixed: an element is not a string"},
      {[&] { root_.object("list"); }, "list: not an object"},
      {[&] { root_.numbered("list", 32); }, "list: not an object"},
      {[&] { root_.numbered("odd", 32); }, R"(odd: name "01" is not a number below 32)"},
      {[&] { root_.numbered("far", 32); }, R"(far: name "32" is not a number below 32)"},
      {[&] { root_.numbered("scalar", 32); }, "scalar.0 is not an object"},
  };
  for (const auto& [read, message] : wrong) {
    status_ = ok();
    read();
    ASSERT_FALSE(status_) << message;
    EXPECT_EQ(status_.error().what, message);
  }
}

} // namespace
} // namespace qluks
