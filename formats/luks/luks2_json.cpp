/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/luks/luks2_json.hpp"

#include <algorithm>
#include <charconv>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "formats/text.hpp"

namespace qluks {

namespace {

/* Takes the parser's events and builds a Json.  `open_` is the way from the root to the container that is being
 * filled; a pointer on it stays good because its parent does not grow meanwhile.  Every event answers whether to go
 * on. */
class Builder final : public nlohmann::json_sax<nlohmann::json> {
 public:
  Json root;
  std::string error;

  bool null() override { return add({nullptr}) != nullptr; }
  bool boolean(bool v) override { return add({v}) != nullptr; }
  bool number_integer(number_integer_t v) override { return add({int64_t{v}}) != nullptr; }
  bool number_unsigned(number_unsigned_t v) override {
    if (v > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return add({JsonOtherNumber{std::to_string(v)}}) != nullptr;
    }
    return add({static_cast<int64_t>(v)}) != nullptr;
  }
  bool number_float(number_float_t, const string_t& text) override { return add({JsonOtherNumber{text}}) != nullptr; }
  bool string(string_t& v) override { return add({std::move(v)}) != nullptr; }
  bool binary(binary_t&) override { return false; } /* JSON text has none */

  bool start_object(size_t) override { return enter(add({JsonObject{}})); }
  bool key(string_t& name) override {
    name_ = std::move(name);
    return true;
  }
  bool end_object() override {
    const auto& members = std::get<JsonObject>(open_.back()->value);
    open_.pop_back();
    return names_are_unique(members);
  }
  bool start_array(size_t) override { return enter(add({JsonArray{}})); }
  bool end_array() override {
    open_.pop_back();
    return true;
  }

  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception&) override {
    error = "syntax error at byte " + std::to_string(position);
    return false;
  }

 private:
  /* Where the value now is; nullptr when there are too many. */
  Json* add(Json value) {
    if (++values_ > json_values_max) {
      error = "more than " + std::to_string(json_values_max) + " values";
      return nullptr;
    }
    if (open_.empty()) {
      root = std::move(value);
      return &root;
    }
    if (auto* array = std::get_if<JsonArray>(&open_.back()->value)) return &array->emplace_back(std::move(value));
    auto& object = std::get<JsonObject>(open_.back()->value);
    object.push_back({std::move(name_), std::move(value)});
    return &object.back().json;
  }

  bool enter(Json* container) {
    if (container == nullptr) return false;
    if (open_.size() == json_depth_max) {
      error = "nested deeper than " + std::to_string(json_depth_max);
      return false;
    }
    open_.push_back(container);
    return true;
  }

  bool names_are_unique(const JsonObject& members) {
    std::vector<std::string_view> names;
    names.reserve(members.size());
    for (const JsonMember& member : members) names.emplace_back(member.name);
    std::sort(names.begin(), names.end());
    const auto twice = std::adjacent_find(names.begin(), names.end());
    if (twice == names.end()) return true;
    error = "member " + in_quotes(*twice) + " appears twice";
    return false;
  }

  std::vector<Json*> open_;
  std::string name_;
  size_t values_ = 0;
};

/* In quotes, and with a backslash in front of what JSON wants one; bytes of UTF-8 stay as they are. */
void append_string(std::string& text, std::string_view value) {
  constexpr std::string_view digits = "0123456789abcdef";
  text += '"';
  for (const char c : value) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20) {
      text += "\\u00";
      text += {digits[byte >> 4], digits[byte & 15]};
      continue;
    }
    if (c == '"' || c == '\\') text += '\\';
    text += c;
  }
  text += '"';
}

/* Nesting has been limited while reading. */
void append(std::string& text, const Json& json) {
  const char* separator = "";
  if (const auto* object = std::get_if<JsonObject>(&json.value)) {
    text += '{';
    for (const auto& [name, value] : *object) {
      text += std::exchange(separator, ",");
      append_string(text, name);
      text += ':';
      append(text, value);
    }
    text += '}';
  } else if (const auto* array = std::get_if<JsonArray>(&json.value)) {
    text += '[';
    for (const Json& value : *array) {
      text += std::exchange(separator, ",");
      append(text, value);
    }
    text += ']';
  } else if (const auto* string = std::get_if<std::string>(&json.value)) {
    append_string(text, *string);
  } else if (const auto* integer = std::get_if<int64_t>(&json.value)) {
    text += std::to_string(*integer);
  } else if (const auto* number = std::get_if<JsonOtherNumber>(&json.value)) {
    text += number->text;
  } else if (const auto* boolean = std::get_if<bool>(&json.value)) {
    text += *boolean ? "true" : "false";
  } else {
    text += "null";
  }
}

const JsonObject no_members;

} // namespace

Result<Json> parse_json(std::string_view text) {
  /* The parser takes a NUL for the end of its input and would not look at what follows. */
  if (text.find('\0') != std::string_view::npos) return fail(Errc::invalid_format, "JSON: a NUL in the text");
  Builder builder;
  if (nlohmann::json::sax_parse(text.begin(), text.end(), &builder)) return std::move(builder.root);
  return fail(Errc::invalid_format, "JSON: " + builder.error);
}

std::string json_text(const Json& json) {
  std::string text;
  append(text, json);
  return text;
}

bool parse_decimal(std::string_view text, uint64_t& value) noexcept {
  const char* end = text.data() + text.size();
  const auto result = std::from_chars(text.data(), end, value); /* an unsigned type takes no sign */
  return result.ec == std::errc() && result.ptr == end;
}

JsonFields::JsonFields(const Json& json, std::string path, Status& status)
    : members_(std::get_if<JsonObject>(&json.value)), path_(std::move(path)), status_(status) {
  if (members_ != nullptr) return;
  members_ = &no_members;
  if (status_) status_ = fail(Errc::invalid_format, (path_.empty() ? "JSON" : path_) + " is not an object");
}

std::string JsonFields::path_to(std::string_view name) const {
  return path_.empty() ? std::string(name) : path_ + "." + std::string(name);
}

void JsonFields::refuse(std::string_view name, const std::string& what) const {
  if (status_) status_ = fail(Errc::invalid_format, path_to(name) + ": " + what);
}

const Json* JsonFields::find(std::string_view name) const {
  const auto member =
      std::find_if(members_->begin(), members_->end(), [&](const JsonMember& m) { return m.name == name; });
  return member == members_->end() ? nullptr : &member->json;
}

template <class T>
const T* JsonFields::get(std::string_view name, std::string_view kind) const {
  const Json* json = find(name);
  if (json == nullptr) {
    refuse(name, "missing");
    return nullptr;
  }
  const T* value = std::get_if<T>(&json->value);
  if (value == nullptr) refuse(name, "not " + std::string(kind));
  return value;
}

std::string JsonFields::string(std::string_view name) const {
  const auto* value = get<std::string>(name, "a string");
  if (value == nullptr) return {};
  if (value->empty()) refuse(name, "empty");
  return *value;
}

uint64_t JsonFields::decimal(std::string_view name) const {
  const auto* text = get<std::string>(name, "a string of decimal digits");
  uint64_t value = 0;
  if (text == nullptr || parse_decimal(*text, value)) return value;
  refuse(name, in_quotes(*text) + " is not a decimal number of at most 64 bits");
  return 0;
}

uint32_t JsonFields::integer(std::string_view name) const {
  const auto* value = get<int64_t>(name, "an integer");
  if (value == nullptr) return 0;
  if (*value >= 0 && *value <= std::numeric_limits<uint32_t>::max()) return static_cast<uint32_t>(*value);
  refuse(name, std::to_string(*value) + " is not between 0 and 4294967295");
  return 0;
}

std::vector<std::string> JsonFields::strings(std::string_view name) const {
  std::vector<std::string> out;
  const auto* items = get<JsonArray>(name, "an array");
  if (items == nullptr) return out;
  for (const Json& item : *items) {
    const auto* text = std::get_if<std::string>(&item.value);
    if (text == nullptr) {
      refuse(name, "an element is not a string");
      return {};
    }
    out.push_back(*text);
  }
  return out;
}

JsonFields JsonFields::object(std::string_view name) const {
  static const Json empty{JsonObject{}};
  const bool present = get<JsonObject>(name, "an object") != nullptr;
  return JsonFields(present ? *find(name) : empty, path_to(name), status_);
}

std::string JsonFields::text(std::string_view name) const {
  const Json* json = find(name);
  if (json == nullptr) refuse(name, "missing");
  return json != nullptr ? json_text(*json) : std::string();
}

std::vector<std::pair<uint32_t, JsonFields>> JsonFields::numbered(std::string_view name, uint32_t limit) const {
  std::vector<std::pair<uint32_t, JsonFields>> out;
  const auto* members = get<JsonObject>(name, "an object");
  if (members == nullptr) return out;
  for (const auto& [key, json] : *members) {
    uint64_t number = 0;
    if (!parse_decimal(key, number) || number >= limit || std::to_string(number) != key) {
      refuse(name, "name " + in_quotes(key) + " is not a number below " + std::to_string(limit));
      return {};
    }
    out.emplace_back(static_cast<uint32_t>(number), JsonFields(json, path_to(name) + "." + key, status_));
  }
  return out;
}

} // namespace qluks
