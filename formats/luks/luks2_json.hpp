/* SPDX-License-Identifier: BSD-3-Clause */
/* JSON from an untrusted header: a bounded reader, and typed access to what it read.
 *
 * The text is at most 4 MiB.  Nesting and the count of values are limited while reading, so memory is bounded and
 * nothing here recurses on input; a member that appears twice is refused, since readers disagree on which one counts.
 */
#ifndef QLUKS_FORMATS_LUKS_LUKS2_JSON_HPP
#define QLUKS_FORMATS_LUKS_LUKS2_JSON_HPP

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/result.hpp"

namespace qluks {

inline constexpr size_t json_depth_max = 32; /* as json-c, which cryptsetup reads with */
inline constexpr size_t json_values_max = 65536;

struct Json;
struct JsonMember;
using JsonArray = std::vector<Json>;
using JsonObject = std::vector<JsonMember>; /* in the order of the text */

/* A number that is no integer, or none that fits 64 bits, as it is written. */
struct JsonOtherNumber {
  std::string text;
};

struct Json {
  std::variant<std::nullptr_t, bool, int64_t, JsonOtherNumber, std::string, JsonArray, JsonObject> value;
};

struct JsonMember {
  std::string name;
  Json json;
};

/* The whole of `text` is one JSON value. */
Result<Json> parse_json(std::string_view text);

/* The value as JSON without white space. */
std::string json_text(const Json& json);

/* Reads the members of one object.  The first thing that is wrong is kept in the shared status, with the path to it
 * ("keyslots.3.area.offset"); after that every read gives an empty value, so that a decoder can read all its fields
 * and ask once.  Borrows the Json and the status. */
class JsonFields {
 public:
  JsonFields(const Json& json, std::string path, Status& status);

  bool failed() const noexcept { return !status_; }
  bool has(std::string_view name) const { return find(name) != nullptr; }

  std::string string(std::string_view name) const;               /* not empty */
  uint64_t decimal(std::string_view name) const;                 /* a string of decimal digits */
  uint32_t integer(std::string_view name) const;                 /* 0 … 2^32 - 1 */
  std::vector<std::string> strings(std::string_view name) const; /* an array of strings */
  JsonFields object(std::string_view name) const;
  std::string text(std::string_view name) const; /* anything, as JSON */
  /* The members of an object whose names are numbers below `limit`, in the order of the text. */
  std::vector<std::pair<uint32_t, JsonFields>> numbered(std::string_view name, uint32_t limit) const;

  /* Keep "path.name: what" as what is wrong. */
  void refuse(std::string_view name, const std::string& what) const;

 private:
  const Json* find(std::string_view name) const;
  template <class T>
  const T* get(std::string_view name, std::string_view kind) const;
  std::string path_to(std::string_view name) const;

  const JsonObject* members_;
  std::string path_;
  Status& status_;
};

/* Exactly a uint64_t in decimal: digits only, no sign, no overflow. */
bool parse_decimal(std::string_view text, uint64_t& value) noexcept;

} // namespace qluks

#endif
