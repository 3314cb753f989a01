/* SPDX-License-Identifier: BSD-3-Clause */
/* qluks-info [--json] IMAGE|URI */
#include <getopt.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <string_view>

#include "config.h"
#include "info/report.hpp"
#include "plugin/nbd_device.hpp"
#include "plugin/sources.hpp"

using namespace qluks;

namespace {

constexpr int usage_status = 2;

int usage(FILE* out, int status) {
  std::fputs("usage: qluks-info [--json] IMAGE|URI\n", out);
  return status;
}

int failed(const std::string& image, const std::string& what) {
  std::fprintf(stderr, "qluks-info: %s: %s\n", image.c_str(), what.c_str());
  return 1;
}

/* For a shell. */
std::string quoted(const std::string& word) {
  constexpr std::string_view plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+./:,=%@";
  if (!word.empty() && word.find_first_not_of(plain) == std::string::npos) return word;
  std::string text = "'";
  for (const char c : word) text += c == '\'' ? "'\\''" : std::string(1, c);
  return text + "'";
}

/* A word with "=" in it would be a parameter, one with "-" in front an option. */
std::string plugin_words(const std::string& image) {
  if (is_nbd_uri(image)) return "nbd " + quoted(image);
  const bool needs_key = image.find('=') != std::string::npos || image.starts_with('-');
  return "file " + quoted((needs_key ? "file=" : "") + image);
}

std::string command_line(const std::string& image, const info::Found& found) {
  const std::string start = "nbdkit --filter=qluks ";
  if (found.header_only) return start + "file PAYLOAD " + quoted("qluks-header=" + image) + " " + found.parameters;
  if (found.layer["type"] == "partitions" && found.parameters.empty()) return {};
  return start + plugin_words(image) + (found.parameters.empty() ? "" : " ") + found.parameters;
}

int report(const std::string& image, bool json) {
  Sources sources;
  const auto device = sources.open(image);
  if (!device) return failed(image, device.error().what);
  auto found = info::describe_image(**device);
  if (!found) return failed(image, found.error().what);
  info::Report all = {{"image", image}, {"size", (*device)->size()}};
  const std::string serve = command_line(image, *found);
  all["layer"] = std::move(found->layer);
  /* In the text it comes last, to be copied: it holds nothing of the image but the name that the user gave. */
  if (json && !serve.empty()) all["serve"] = serve;
  std::fputs((json ? info::as_json(all) : info::as_text(all)).c_str(), stdout);
  if (!json && !serve.empty()) std::printf("serve: %s\n", serve.c_str());
  return std::fflush(stdout) == 0 ? 0 : failed(image, "the report cannot be written");
}

} // namespace

int main(int argc, char** argv) try {
  static const option known[] = {{"json", no_argument, nullptr, 'j'},
                                 {"help", no_argument, nullptr, 'h'},
                                 {"version", no_argument, nullptr, 'V'},
                                 {nullptr, 0, nullptr, 0}};
  bool json = false;
  int c;
  while ((c = getopt_long(argc, argv, "", known, nullptr)) != -1) {
    switch (c) {
      case 'j':
        json = true;
        break;
      case 'h':
        return usage(stdout, 0);
      case 'V':
        std::puts("qluks-info " PACKAGE_VERSION);
        return 0;
      default:
        return usage(stderr, usage_status);
    }
  }
  if (optind + 1 != argc) return usage(stderr, usage_status);
  return report(argv[optind], json);
} catch (const std::exception& e) {
  std::fprintf(stderr, "qluks-info: %s\n", e.what());
  return 1;
}
