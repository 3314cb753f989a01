/* SPDX-License-Identifier: BSD-3-Clause */
/* The qluks-… parameters. */
#ifndef QLUKS_PLUGIN_CONFIG_HPP
#define QLUKS_PLUGIN_CONFIG_HPP

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/result.hpp"
#include "base/secure_buffer.hpp"
#include "formats/luks/keyring.hpp"
#include "plugin/key_file.hpp"
#include "plugin/layer_list.hpp"
#include "plugin/passphrase.hpp"
#include "plugin/private_names.hpp"

namespace qluks {

/* What a backing file is. */
enum class StoredAs : uint8_t { raw, qcow2, luks };

/* One `qluks-backing`. */
struct BackingFile {
  std::optional<StoredAs> stored_as; /* empty: what the image records */
  std::string source;                /* absolute path or NBD URI */
};

class Config {
 public:
  /* For `nbdkit --help`. */
  static const char* help();

  /* Is this key one for us (and not for the plugin)? */
  static bool owns(std::string_view key) { return key.starts_with("qluks-"); }

  /* Take one parameter.  Passphrases are read here, while nbdkit still has the terminal. */
  Status set(std::string_view key, const char* value);

  /* Does a parameter say where a qcow2's backing or data file is? */
  bool names_files() const noexcept { return !backing.empty() || !backing_dir.empty() || !data_file.empty(); }

  /* Check the parameters against each other and read the key files. */
  Status complete();

  /* Of all sources. */
  std::vector<PrivateName> private_names() const;

  std::optional<LayerList> layers;  /* empty: auto */
  std::string header;               /* source; empty: the header is where its format puts it */
  std::vector<BackingFile> backing; /* nearest first */
  std::string backing_dir;          /* absolute, no symbolic link in it; empty: names in images are not followed */
  std::string data_file;            /* source */
  std::string grow;                 /* the file that the plugin serves, if it may grow */
  std::string snapshot;             /* name or ID */
  uint64_t cache_bytes = 64 << 20;  /* for the tables of all images together */
  bool discard = false;             /* pass trim through on LUKS */
  Keyring keyring;

 private:
  struct Parameter;
  static const Parameter parameters[];

  Status set_passphrase(const char* value);
  Status set_key_file(const char* value);
  Status set_key_file_offset(const char* value);
  Status set_key_file_size(const char* value);
  Status set_key_command(const char* value);
  Status set_volume_key_file(const char* value);
  Status set_key_slot(const char* value);
  Status set_kdf_memory(const char* value);
  Status set_kdf_time(const char* value);
  Status set_cache_size(const char* value);
  Status set_grow(const char* value);
  Status set_header(const char* value);
  Status set_backing(const char* value);
  Status set_backing_dir(const char* value);
  Status set_data_file(const char* value);
  Status set_snapshot(const char* value);
  Status set_layers(const char* value);
  Status check_layers() const;
  Status fill_keyring();
  Status set_discard(const char* value);
  Status set_engine(const char* value);

  KdfLimits kdf_limits_;
  /* In the order in which they were given, which is the order in which they are tried. */
  struct KeyCommand {
    std::string command;
  };
  std::vector<std::variant<Passphrase, KeyFile, KeyCommand>> secrets_;
  std::string volume_key_file_;
};

} // namespace qluks

#endif
