/* SPDX-License-Identifier: BSD-3-Clause */
#include "plugin/private_names.hpp"

#include <algorithm>
#include <string_view>

namespace qluks {

namespace {

/* Written while there is one thread, read by all. */
std::vector<PrivateName> private_names;

/* From behind `mark` to the first of `ends`; empty if there is no mark. */
std::string part_behind(std::string_view uri, std::string_view mark, std::string_view ends) {
  const size_t at = uri.find(mark);
  if (at == std::string_view::npos) return "";
  const std::string_view rest = uri.substr(at + mark.size());
  return std::string(rest.substr(0, rest.find_first_of(ends)));
}

std::string host_of(const std::string& authority) {
  const std::string host = authority.substr(authority.find('@') + 1);
  return host.substr(0, host.rfind(':'));
}

} // namespace

void add_private_source(std::vector<PrivateName>& names, const std::string& source, const char* parameter) {
  const std::string authority = part_behind(source, "://", "/?");
  for (const std::string& text : {source, part_behind(source, "socket=", "&"), authority, host_of(authority)}) {
    if (text.size() > 1) names.push_back({text, parameter});
  }
}

void keep_private(std::vector<PrivateName> names) {
  /* The longest first, so that no part of one is replaced in front of the whole. */
  std::stable_sort(names.begin(), names.end(),
                   [](const auto& a, const auto& b) { return a.text.size() > b.text.size(); });
  private_names = std::move(names);
}

std::string without_private_names(std::string text) {
  for (const auto& [name, parameter] : private_names) {
    for (size_t at = text.find(name); at != std::string::npos; at = text.find(name, at + parameter.size())) {
      text.replace(at, name.size(), parameter);
    }
  }
  return text;
}

} // namespace qluks
