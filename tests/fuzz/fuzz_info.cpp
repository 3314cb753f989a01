/* SPDX-License-Identifier: BSD-3-Clause */
/* What qluks-info says of a file of any content.  The input is that of fuzz_qcow2 with one file. */
#include "info/report.hpp"
#include "tests/fuzz/fuzz_case.hpp"
#include "tests/fuzz/target.hpp"

namespace qluks::fuzz {

const size_t script_bytes = sizeof(ScriptOnDisk);

namespace {

constexpr size_t text_bytes_max = 4 << 20;

/* Printable ASCII and line ends: it goes to a terminal. */
void check_text(const std::string& text) {
  check(text.size() < text_bytes_max, "a report is short");
  check(std::all_of(text.begin(), text.end(), [](char c) { return c == '\n' || (c >= 0x20 && c < 0x7f); }),
        "a report is text");
}

} // namespace

void run_target(std::span<const std::byte> input) {
  const auto script = take<ScriptOnDisk>(input);
  if (!script) return;
  SparseDevice image = gather_file(*script, input, 0);
  const auto found = info::describe_image(image);
  if (!succeeded(found)) return;
  check_text(info::as_text(found->layer));
  const std::string json = info::as_json(found->layer);
  check_text(json);
  check(nlohmann::json::parse(json, nullptr, false).is_object() || found->layer.is_null(),
        "a report is one JSON object");
  /* Typed into a shell. */
  constexpr std::string_view in_parameters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-=:, ";
  check(found->parameters.find_first_not_of(in_parameters) == std::string::npos,
        "parameters hold nothing of the image");
}

} // namespace qluks::fuzz
