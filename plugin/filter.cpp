/* SPDX-License-Identifier: BSD-3-Clause */
/* nbdkit's view of the filter: registration, and callbacks of one line each. */
#include <nbdkit-filter.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>

#include "base/log.hpp"
#include "base/secure_memory.hpp"
#include "config.h"
#include "crypto/aes/engine.hpp"
#include "crypto/cipher_spec.hpp"
#include "crypto/kdf/hash.hpp"
#include "formats/luks/layer.hpp"
#include "plugin/config.hpp"
#include "plugin/connection.hpp"
#include "plugin/guard.hpp"
#include "plugin/image.hpp"
#include "plugin/private_names.hpp"
#include "plugin/shutdown_check.hpp"
#include "plugin/sources.hpp"

namespace qluks {
namespace {

/* Everything that one run of the server knows, from .load to .unload. */
struct Server {
  Config config;
  Sources sources;
  std::unique_ptr<DetachedHeader> detached_header;
  std::shared_ptr<Qcow2Cache> cache;
  ImageRegistry images;
  /* nbdkit loads one file once, so that several of us in one chain meet here. */
  unsigned instances = 1;
  std::string partition = "N"; /* what the partition filter between them was told */
  std::optional<GrowingFile> growing_file;

  ImageOptions image_options() {
    return {.config = config, .detached_header = detached_header.get(), .cache = cache, .sources = sources};
  }
  Status open_detached_header();
  Status open_sources();
  Status check_chain() const;
  Status complete();
  Status get_ready();
};

/* A detached header can be checked, and its passphrase with it, before nbdkit starts to serve. */
Status Server::open_detached_header() {
  if (config.header.empty()) return ok();
  auto source = Sources().open(config.header); // once: what it says now is what counts
  if (!source) return propagate(source, "qluks-header");
  auto header = DetachedHeader::open(**source, config.keyring);
  if (!header) return propagate(header, "qluks-header " + config.header);
  detached_header = std::move(*header);
  return ok();
}

Status Server::open_sources() {
  for (const BackingFile& file : config.backing) {
    if (Status s = sources.prepare(file.source); !s) return propagate(s, "qluks-backing");
  }
  if (config.data_file.empty()) return ok();
  if (Status s = sources.prepare(config.data_file, Sources::Access::write); !s) return propagate(s, "qluks-data-file");
  return ok();
}

/* Both would be given every parameter, and wait for each other's images. */
Status Server::check_chain() const {
  if (instances == 1) return ok();
  return fail(Errc::invalid_format,
              "the qluks filter stands " + std::to_string(instances) +
                  " times in the chain, but stacks all layers by itself: give --filter=qluks once, without "
                  "--filter=partition, and say qluks-layers=qcow2,partition:" +
                  partition + ",luks (the layers from the stored bytes upward)",
              EINVAL);
}

Status Server::complete() {
  if (Status s = check_chain(); !s) return s;
  return config.complete();
}

Status Server::get_ready() {
  cache = std::make_shared<Qcow2Cache>(config.cache_bytes);
  if (!config.grow.empty()) growing_file.emplace(config.grow);
  if (Status s = open_sources(); !s) return s;
  return open_detached_header();
}

Server* server = nullptr;

void log_to_nbdkit(LogLevel level, const std::string& line) {
  if (level == LogLevel::debug) {
    nbdkit_debug("qluks: %s", line.c_str());
  } else {
    nbdkit_error("warning: %s", line.c_str());
  }
}

/* For callbacks that cannot fail: nbdkit does the same when it runs out of memory at start. */
template <class Body>
void run_or_exit(const char* callback, Body&& body) noexcept {
  if (guard_control(callback, std::forward<Body>(body)) != 0) exit(EXIT_FAILURE);
}

void load() {
  set_log_sink(log_to_nbdkit);
  run_or_exit("load", [] {
    if (server != nullptr) {
      ++server->instances;
    } else {
      server = new Server;
    }
    return ok();
  });
}

/* At its end nbdkit does not close what connections had open. */
void cleanup(nbdkit_backend* /*nxdata*/) { server->growing_file.reset(); }

void unload() {
  delete server;
  server = nullptr;
}

Status note_partition(const char* number) {
  server->partition = number;
  return ok();
}

int config(nbdkit_next_config* next, nbdkit_backend* nxdata, const char* key, const char* value) {
  if (!Config::owns(key)) {
    if (std::string_view(key) == "partition") run_or_exit("config", [&] { return note_partition(value); });
    return next(nxdata, key, value);
  }
  return guard_control("config", [&] { return server->config.set(key, value); });
}

int config_complete(nbdkit_next_config_complete* next, nbdkit_backend* nxdata) {
  if (guard_control("config_complete", [] { return server->complete(); }) != 0) return -1;
  return next(nxdata);
}

int get_ready(int /*thread_model*/) {
  return guard_control("get_ready", [] { return server->get_ready(); });
}

/* In the process that will serve. */
int after_fork(nbdkit_backend* /*nxdata*/) {
  return guard_control("after_fork", [] {
    keep_private(server->config.private_names());
    install_shutdown_check();
    keep_secure_memory_here();
    return ok();
  });
}

#ifdef HAVE_STRUCT_NBDKIT_FILTER_DUMP_PLUGIN
Status print_capabilities() {
  std::string engines;
  for (const auto name : available_engines()) engines += (engines.empty() ? "" : ",") + std::string(name);
  std::string hashes;
  for (const auto& hash : hash_algorithms()) hashes += (hashes.empty() ? "" : ",") + std::string(hash.name);
  std::printf("qluks_version=%s\n", PACKAGE_VERSION);
  std::printf("qluks_formats=qcow2,luks1,luks2,gpt,mbr\n");
  std::printf("qluks_compression=zlib,zstd\n");
  std::printf("qluks_ciphers=%s\n", served_ciphers().c_str());
  std::printf("qluks_hashes=%s\n", hashes.c_str());
  std::printf("qluks_kdfs=pbkdf2,argon2i,argon2id\n");
  std::printf("qluks_engines=%s\n", engines.c_str());
  std::printf("qluks_engine=%s\n", std::string(chosen_engine()).c_str());
  return ok();
}

void dump_plugin() { run_or_exit("dump_plugin", print_capabilities); }
#endif

Connection& connection(void* handle) { return *static_cast<Connection*>(handle); }

void* open_connection(nbdkit_next_open* next, nbdkit_context* context, int readonly, const char* exportname,
                      int is_tls) {
  int err = 0;
  return guard("open", static_cast<void*>(nullptr), &err, [&]() -> Result<void*> {
    std::unique_ptr<GrowingFile::Use> file;
    if (server->growing_file) {
      auto use = server->growing_file->enter(readonly != 0);
      if (!use) return propagate(use);
      file = std::move(*use);
    }
    const bool read_only = readonly != 0 || (file && !file->may_write());
    if (next(context, read_only ? 1 : 0, exportname) == -1) return fail(Errc::io, "");
    return new Connection({.name = exportname, .read_only = read_only, .tls = is_tls != 0}, std::move(file));
  });
}

void close_connection(void* handle) { delete static_cast<Connection*>(handle); }

int prepare(nbdkit_next* next, void* handle, int /*readonly*/) {
  return guard_control("prepare",
                       [&] { return connection(handle).prepare(next, server->images, server->image_options()); });
}

int64_t get_size(nbdkit_next* /*next*/, void* handle) { return static_cast<int64_t>(connection(handle).size()); }

const char* export_description(nbdkit_next* /*next*/, void* handle) { return connection(handle).description().c_str(); }

int block_size(nbdkit_next* /*next*/, void* handle, uint32_t* minimum, uint32_t* preferred, uint32_t* maximum) {
  const Limits limits = connection(handle).limits();
  *minimum = limits.minimum;
  *preferred = limits.preferred;
  *maximum = limits.maximum;
  return 0;
}

int can(nbdkit_next* /*next*/, void* /*handle*/) { return 1; }

const WriteAbilities& abilities(void* handle) { return connection(handle).write_abilities(); }

int can_write(nbdkit_next* /*next*/, void* handle) { return abilities(handle).write; }
int can_flush(nbdkit_next* /*next*/, void* handle) { return abilities(handle).flush; }
int can_trim(nbdkit_next* /*next*/, void* handle) { return abilities(handle).trim; }
/* Offered wherever zeroing is, and answered at once, be it with "not supported": nbdkit 1.32 aborts when a client asks
 * for what was not offered. */
int can_fast_zero(nbdkit_next* /*next*/, void* handle) { return abilities(handle).write; }
int can_multi_conn(nbdkit_next* /*next*/, void* handle) {
  return !abilities(handle).write || abilities(handle).multi_conn;
}

/* Zeroing is ours in any case: a layer knows how to, or NextDevice does. */
int can_zero(nbdkit_next* /*next*/, void* handle) {
  return abilities(handle).write ? NBDKIT_ZERO_NATIVE : NBDKIT_ZERO_NONE;
}

int can_fua(nbdkit_next* /*next*/, void* handle) { return abilities(handle).fua ? NBDKIT_FUA_NATIVE : NBDKIT_FUA_NONE; }

Fua fua_of(uint32_t flags) { return (flags & NBDKIT_FLAG_FUA) != 0 ? Fua::yes : Fua::no; }

ZeroMode zero_mode_of(uint32_t flags) {
  const bool may_trim = (flags & NBDKIT_FLAG_MAY_TRIM) != 0;
  if ((flags & NBDKIT_FLAG_FAST_ZERO) != 0) return may_trim ? ZeroMode::fast_may_trim : ZeroMode::fast_keep;
  return may_trim ? ZeroMode::may_trim : ZeroMode::keep;
}

int can_cache(nbdkit_next* /*next*/, void* handle) {
  return connection(handle).can_cache() ? NBDKIT_CACHE_NATIVE : NBDKIT_CACHE_NONE;
}

int pread(nbdkit_next* /*next*/, void* handle, void* buf, uint32_t count, uint64_t offset, uint32_t /*flags*/,
          int* err) {
  return guard_data("pread", err, [&] {
    return connection(handle).read({static_cast<std::byte*>(buf), count}, offset);
  });
}

int extents(nbdkit_next* /*next*/, void* handle, uint32_t count, uint64_t offset, uint32_t flags,
            nbdkit_extents* extents, int* err) {
  return guard_data("extents", err, [&] {
    return connection(handle).extents(offset, count, (flags & NBDKIT_FLAG_REQ_ONE) != 0, extents);
  });
}

int cache(nbdkit_next* /*next*/, void* handle, uint32_t count, uint64_t offset, uint32_t /*flags*/, int* err) {
  return guard_data("cache", err, [&] { return connection(handle).cache(offset, count); });
}

int pwrite(nbdkit_next* /*next*/, void* handle, const void* buf, uint32_t count, uint64_t offset, uint32_t flags,
           int* err) {
  return guard_data("pwrite", err, [&] {
    return connection(handle).write({static_cast<const std::byte*>(buf), count}, offset, fua_of(flags));
  });
}

/* nbdkit takes "not supported" only as the answer to a fast zero, and aborts otherwise; a plugin below may say it. */
int zero(nbdkit_next* /*next*/, void* handle, uint32_t count, uint64_t offset, uint32_t flags, int* err) {
  const int result = guard_data(
      "zero", err, [&] { return connection(handle).zero(offset, count, zero_mode_of(flags), fua_of(flags)); });
  const bool fast = (flags & NBDKIT_FLAG_FAST_ZERO) != 0;
  if (result != 0 && !fast && (*err == ENOTSUP || *err == EOPNOTSUPP)) *err = EIO;
  return result;
}

int trim(nbdkit_next* /*next*/, void* handle, uint32_t count, uint64_t offset, uint32_t flags, int* err) {
  return guard_data("trim", err, [&] { return connection(handle).trim(offset, count, fua_of(flags)); });
}

int flush(nbdkit_next* /*next*/, void* handle, uint32_t /*flags*/, int* err) {
  return guard_data("flush", err, [&] { return connection(handle).flush(); });
}

int finalize(nbdkit_next* /*next*/, void* handle) {
  return guard_control("finalize", [&] { return connection(handle).finalize(); });
}

nbdkit_filter make_filter() {
  nbdkit_filter f = {};
  f.name = "qluks";
  f.longname = "nbdkit qluks filter";
  f.description = "Serve qcow2 and LUKS disk images decrypted.";
  f.load = load;
  f.unload = unload;
  f.config = config;
  f.config_complete = config_complete;
  f.config_help = Config::help();
  f.get_ready = get_ready;
  f.after_fork = after_fork;
#ifdef HAVE_STRUCT_NBDKIT_FILTER_DUMP_PLUGIN
  f.dump_plugin = dump_plugin;
#endif
  f.open = open_connection;
  f.close = close_connection;
  f.prepare = prepare;
  f.get_size = get_size;
  f.export_description = export_description;
  f.block_size = block_size;
  f.finalize = finalize;
  f.cleanup = cleanup;
  f.can_write = can_write;
  f.can_flush = can_flush;
  f.can_trim = can_trim;
  f.can_zero = can_zero;
  f.can_fast_zero = can_fast_zero;
  f.can_fua = can_fua;
  f.can_multi_conn = can_multi_conn;
  f.can_extents = can;
  f.can_cache = can_cache;
  f.pread = pread;
  f.pwrite = pwrite;
  f.zero = zero;
  f.trim = trim;
  f.flush = flush;
  f.extents = extents;
  f.cache = cache;
  return f;
}

nbdkit_filter filter = make_filter();

} // namespace
} // namespace qluks

using qluks::filter;
NBDKIT_REGISTER_FILTER(filter)
