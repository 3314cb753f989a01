/* SPDX-License-Identifier: BSD-3-Clause */
#include "plugin/config.hpp"

#include <nbdkit-filter.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <memory>
#include <numeric>

#include "crypto/aes/engine.hpp"
#include "plugin/key_command.hpp"
#include "plugin/nbd_device.hpp"
#include "plugin/passphrase.hpp"

namespace qluks {

namespace {

/* LUKS2 numbers its key slots 0 to 31, LUKS1 0 to 7. */
constexpr uint32_t key_slot_max = 31;

struct Free {
  void operator()(char* s) const noexcept { std::free(s); }
};

tl::unexpected<Error> usage_error(std::string what) { return fail(Errc::invalid_format, std::move(what), EINVAL); }

/* nbdkit's parsers have reported the reason already. */
tl::unexpected<Error> already_reported() { return fail(Errc::invalid_format, "", EINVAL); }

/* Levenshtein's distance, to guess which parameter was meant. */
size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i + 1;
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t substituted = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({row[j] + 1, row[j + 1] + 1, substituted});
    }
  }
  return row.back();
}

Result<uint64_t> parse_size(const char* value) {
  const int64_t size = nbdkit_parse_size(value);
  if (size < 0) return already_reported();
  return static_cast<uint64_t>(size);
}

Result<std::string> absolute_path(const char* value) {
  const std::unique_ptr<char, Free> path(nbdkit_absolute_path(value));
  if (!path) return already_reported();
  return std::string(path.get());
}

/* A path, made absolute since nbdkit changes its directory, or an NBD URI. */
Result<std::string> parse_source(const char* value) {
  if (is_nbd_uri(value)) return std::string(value);
  return absolute_path(value);
}

Status set_once(const char* name, std::string& target, Result<std::string> value) {
  if (!value) return propagate(value);
  if (!target.empty()) return usage_error(std::string(name) + " is given twice");
  target = std::move(*value);
  return ok();
}

} // namespace

struct Config::Parameter {
  std::string_view name;
  Status (Config::*set)(const char* value);
};

const Config::Parameter Config::parameters[] = {
    {"qluks-backing", &Config::set_backing},
    {"qluks-backing-dir", &Config::set_backing_dir},
    {"qluks-cache-size", &Config::set_cache_size},
    {"qluks-data-file", &Config::set_data_file},
    {"qluks-discard", &Config::set_discard},
    {"qluks-engine", &Config::set_engine},
    {"qluks-grow", &Config::set_grow},
    {"qluks-header", &Config::set_header},
    {"qluks-kdf-memory", &Config::set_kdf_memory},
    {"qluks-kdf-time", &Config::set_kdf_time},
    {"qluks-key-command", &Config::set_key_command},
    {"qluks-key-file", &Config::set_key_file},
    {"qluks-key-file-offset", &Config::set_key_file_offset},
    {"qluks-key-file-size", &Config::set_key_file_size},
    {"qluks-key-slot", &Config::set_key_slot},
    {"qluks-layers", &Config::set_layers},
    {"qluks-passphrase", &Config::set_passphrase},
    {"qluks-snapshot", &Config::set_snapshot},
    {"qluks-volume-key-file", &Config::set_volume_key_file},
};

const char* Config::help() {
  return "qluks-passphrase=<SECRET>     Passphrase (+FILE, -FD, - to ask for it); may be repeated.\n"
         "qluks-key-file=<FILENAME>     Key file, byte for byte; may be repeated.\n"
         "qluks-key-file-offset=<SIZE>  Bytes to skip in the key file named just before.\n"
         "qluks-key-file-size=<SIZE>    Bytes to use of the key file named just before.\n"
         "qluks-key-command=<COMMAND>   Program that prints a secret; run once for each encrypted layer.\n"
         "qluks-volume-key-file=<FILENAME>\n"
         "                              The volume key itself, instead of a secret.\n"
         "qluks-key-slot=<N>            Try only this key slot.\n"
         "qluks-header=<SOURCE>         Detached LUKS header: a file or an NBD URI.\n"
         "qluks-backing=[raw:|qcow2:|luks:]<SOURCE>\n"
         "                              Backing file of the qcow2; may be repeated, nearest first.\n"
         "qluks-backing-dir=<DIRECTORY> Follow names in images inside of this directory.\n"
         "qluks-data-file=<SOURCE>      External data file of the qcow2.\n"
         "qluks-grow=<FILENAME>         The file that is served: longer while its qcow2 is written, and locked.\n"
         "qluks-snapshot=<NAME>|<ID>    Serve this internal snapshot of the qcow2.\n"
         "qluks-layers=auto|raw|<LAYER>,<LAYER>,...\n"
         "                              Layers from the stored bytes upward, each qcow2, luks or\n"
         "                              partition:<N> (default: auto).\n"
         "qluks-kdf-memory=<SIZE>       Most memory that unlocking may take (default: 2G).\n"
         "qluks-kdf-time=<SECONDS>      Most time that unlocking may take (default: 60).\n"
         "qluks-cache-size=<SIZE>       Memory for the tables of qcow2 images (default: 64M).\n"
         "qluks-discard=true|false      Pass trim through on LUKS (default: false).\n"
         "qluks-engine=auto|<NAME>      Cipher kernel, for tests and benchmarks.";
}

Status Config::set(std::string_view key, const char* value) {
  for (const Parameter& p : parameters) {
    if (p.name == key) return (this->*p.set)(value);
  }
  const auto nearest =
      std::min_element(std::begin(parameters), std::end(parameters), [key](const Parameter& a, const Parameter& b) {
        return edit_distance(key, a.name) < edit_distance(key, b.name);
      });
  return usage_error("unknown parameter " + std::string(key) + ": the nearest is " + std::string(nearest->name));
}

Status Config::set_passphrase(const char* value) {
  auto passphrase = read_passphrase(value);
  if (!passphrase) return propagate(passphrase);
  secrets_.emplace_back(std::move(*passphrase));
  return ok();
}

Status Config::set_key_file(const char* value) {
  if (std::string_view(value) == "-") {
    if (nbdkit_stdio_safe() == 0) {
      return usage_error("qluks-key-file=-: standard input is in use by nbdkit -s: name a file");
    }
    secrets_.emplace_back(KeyFile{.path = value, .parameter = "qluks-key-file"});
    return ok();
  }
  auto path = absolute_path(value);
  if (!path) return propagate(path);
  secrets_.emplace_back(KeyFile{.path = std::move(*path), .parameter = "qluks-key-file"});
  return ok();
}

Status Config::set_key_file_offset(const char* value) {
  auto size = parse_size(value);
  if (!size) return propagate(size);
  KeyFile* file = secrets_.empty() ? nullptr : std::get_if<KeyFile>(&secrets_.back());
  if (file == nullptr) return usage_error("qluks-key-file-offset must follow the qluks-key-file that it is for");
  file->offset = *size;
  return ok();
}

Status Config::set_key_file_size(const char* value) {
  auto size = parse_size(value);
  if (!size) return propagate(size);
  KeyFile* file = secrets_.empty() ? nullptr : std::get_if<KeyFile>(&secrets_.back());
  if (file == nullptr) return usage_error("qluks-key-file-size must follow the qluks-key-file that it is for");
  file->size = *size;
  return ok();
}

Status Config::set_key_command(const char* value) {
  secrets_.emplace_back(KeyCommand{value});
  return ok();
}

Status Config::set_volume_key_file(const char* value) {
  return set_once("qluks-volume-key-file", volume_key_file_, absolute_path(value));
}

Status Config::set_key_slot(const char* value) {
  uint32_t slot = 0;
  if (nbdkit_parse_uint32_t("qluks-key-slot", value, &slot) != 0) return already_reported();
  if (slot > key_slot_max) {
    return usage_error("qluks-key-slot=" + std::to_string(slot) + ": key slots are 0 to " +
                       std::to_string(key_slot_max));
  }
  keyring.use_only_slot(slot);
  return ok();
}

Status Config::set_kdf_memory(const char* value) {
  auto size = parse_size(value);
  if (!size) return propagate(size);
  kdf_limits_.memory_bytes = *size;
  return ok();
}

Status Config::set_kdf_time(const char* value) {
  if (nbdkit_parse_uint32_t("qluks-kdf-time", value, &kdf_limits_.seconds) != 0) return already_reported();
  return ok();
}

Status Config::set_cache_size(const char* value) {
  auto size = parse_size(value);
  if (!size) return propagate(size);
  cache_bytes = *size;
  return ok();
}

Status Config::set_grow(const char* value) { return set_once("qluks-grow", grow, absolute_path(value)); }

Status Config::set_header(const char* value) { return set_once("qluks-header", header, parse_source(value)); }

Status Config::set_data_file(const char* value) { return set_once("qluks-data-file", data_file, parse_source(value)); }

Status Config::set_snapshot(const char* value) {
  if (*value == '\0') return usage_error("qluks-snapshot is empty: name a snapshot, or leave it out");
  return set_once("qluks-snapshot", snapshot, std::string(value));
}

Status Config::set_backing(const char* value) {
  static constexpr std::pair<std::string_view, StoredAs> prefixes[] = {
      {"raw:", StoredAs::raw}, {"qcow2:", StoredAs::qcow2}, {"luks:", StoredAs::luks}};
  BackingFile file;
  for (const auto& [prefix, stored_as] : prefixes) {
    if (!std::string_view(value).starts_with(prefix)) continue;
    file.stored_as = stored_as;
    value += prefix.size();
    break;
  }
  auto source = parse_source(value);
  if (!source) return propagate(source);
  file.source = std::move(*source);
  backing.push_back(std::move(file));
  return ok();
}

/* Resolved once: names that are held against it are held against where it really is. */
Status Config::set_backing_dir(const char* value) {
  const std::unique_ptr<char, Free> path(nbdkit_realpath(value));
  if (!path) return already_reported();
  return set_once("qluks-backing-dir", backing_dir, std::string(path.get()));
}

std::vector<PrivateName> Config::private_names() const {
  std::vector<PrivateName> names;
  for (const BackingFile& file : backing) add_private_source(names, file.source, "qluks-backing");
  add_private_source(names, header, "qluks-header");
  add_private_source(names, backing_dir, "qluks-backing-dir");
  add_private_source(names, data_file, "qluks-data-file");
  add_private_source(names, grow, "qluks-grow");
  return names;
}

Status Config::set_layers(const char* value) {
  auto list = parse_layers(value);
  if (!list) return propagate(list);
  layers = std::move(*list);
  return ok();
}

Status Config::set_discard(const char* value) {
  const int parsed = nbdkit_parse_bool(value);
  if (parsed < 0) return already_reported();
  discard = parsed != 0;
  return ok();
}

Status Config::set_engine(const char* value) {
  Status s = choose_engine(value);
  if (!s) return propagate(s, "qluks-engine");
  return s;
}

/* A parameter for a layer that qluks-layers leaves out is a mistake.  With several qcow2 layers the lowest one is
 * meant, whose names and snapshots are not chosen by a guest; of several LUKS layers any could be. */
Status Config::check_layers() const {
  const auto luks_layers = layers ? count_layers(*layers, LayerKind::luks) : 1;
  if (!header.empty() && luks_layers == 0) {
    return usage_error("qluks-header is given, but qluks-layers has no luks layer that it could be for");
  }
  if (!header.empty() && luks_layers > 1) {
    return usage_error("qluks-header is given, but qluks-layers has " + std::to_string(luks_layers) +
                       " luks layers, and only one can have its header elsewhere");
  }
  if ((names_files() || !snapshot.empty()) && layers && count_layers(*layers, LayerKind::qcow2) == 0) {
    return usage_error("a backing file, data file or snapshot is given, but qluks-layers has no qcow2 layer");
  }
  if (!backing.empty() && !backing_dir.empty()) {
    return usage_error("qluks-backing and qluks-backing-dir exclude each other: list the files, or follow their names");
  }
  return ok();
}

/* Files are read now, while a mistake still ends nbdkit; programs run when there is a header to run them for. */
Status Config::fill_keyring() {
  for (auto& secret : secrets_) {
    if (auto* passphrase = std::get_if<Passphrase>(&secret)) {
      keyring.add_secret(std::move(passphrase->secret), passphrase->newline_dropped);
    } else if (auto* program = std::get_if<KeyCommand>(&secret)) {
      keyring.add_secret_source([command = std::move(program->command), seconds = kdf_limits_.seconds](
                                    const LuksHeader& volume) { return run_key_command(command, volume, seconds); });
    } else {
      auto bytes = read_key_file(std::get<KeyFile>(secret));
      if (!bytes) return propagate(bytes);
      keyring.add_secret(std::move(*bytes));
    }
  }
  secrets_.clear();
  if (volume_key_file_.empty()) return ok();
  auto key = read_key_file({.path = volume_key_file_, .parameter = "qluks-volume-key-file"});
  if (!key) return propagate(key);
  keyring.use_volume_key(std::move(*key));
  return ok();
}

Status Config::complete() {
  if (Status s = check_layers(); !s) return s;
  keyring.set_kdf_limits(kdf_limits_);
  return fill_keyring();
}

} // namespace qluks
