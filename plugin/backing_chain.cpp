/* SPDX-License-Identifier: BSD-3-Clause */
#include "plugin/backing_chain.hpp"

#include <cerrno>

#include "formats/luks/layer.hpp"
#include "formats/text.hpp"

namespace qluks {

namespace {

constexpr size_t chain_files_max = 64;

/* L1 tables stay in memory, and one may have 32 MiB. */
constexpr uint64_t chain_l1_bytes_max = 128 << 20;

tl::unexpected<Error> chain_error(std::string what) { return fail(Errc::unsupported, std::move(what), EINVAL); }

std::string number(size_t depth) { return "backing file " + std::to_string(depth + 1); }

/* A guest disk together with all that it stands on. */
struct GuestDisk {
  SharedDevice file;
  std::unique_ptr<Format> format;
  std::unique_ptr<BlockDevice> layer;
};

SharedDevice stack(SharedDevice file, std::unique_ptr<Format> format) {
  const auto disk = std::make_shared<GuestDisk>(GuestDisk{std::move(file), std::move(format), nullptr});
  disk->layer = disk->format->stack_on(*disk->file);
  return {disk, disk->layer.get()};
}

/* The format that the overlay records, which is all that a name without a prefix has to say. */
Result<StoredAs> recorded_format(const Qcow2Header& overlay, size_t depth) {
  const std::string& format = overlay.backing_format;
  if (format == "raw" || format == "file") return StoredAs::raw;
  if (format == "qcow2") return StoredAs::qcow2;
  if (format == "luks") return StoredAs::luks;
  const std::string needed = ": say what it is with qluks-backing=raw:…, qcow2:… or luks:…";
  if (format.empty()) return chain_error(number(depth) + ": the image does not record its format" + needed);
  return chain_error(number(depth) + ": the image records the format " + in_quotes(format) + needed);
}

/* A name inside of the directory that names in the image are relative to.  Textual rules first, so that the message
 * says which; the file system is held to the directory as well when the name is opened. */
Result<std::string> name_in_directory(const std::string& root, const std::string& name, const std::string& dir) {
  const auto refused = [&](const char* why) {
    return chain_error("the image names " + in_quotes(name) + ", which " + why +
                       ": qluks-backing-dir does not follow it");
  };
  if (name.substr(0, name.find('/')).find(':') != std::string::npos) return refused("is no plain file name");
  if (name.find('\0') != std::string::npos) return refused("holds a NUL byte");
  std::string path = name;
  if (name.starts_with('/')) {
    if (!name.starts_with(root + "/")) return refused("is outside of that directory");
    path = name.substr(root.size() + 1);
  } else if (!dir.empty()) {
    path = dir + "/" + name;
  }
  if (("/" + path + "/").find("/../") != std::string::npos) return refused("holds \"..\"");
  return path;
}

} // namespace

Status BackingChain::open(const Qcow2Header& image, Qcow2Options& options) {
  cache_ = options.cache;
  read_only_ = options.read_only || !options.snapshot.empty();
  return open_references(image, "", 0, options);
}

Status BackingChain::open_references(const Qcow2Header& image, const std::string& dir, size_t depth,
                                     Qcow2Options& options) {
  if (image.has(qcow2_data_file_bit)) {
    auto data_file = find_data_file(image, dir, depth);
    if (!data_file) return propagate(data_file);
    options.data_file = std::move(*data_file);
  } else if (depth == 0 && !config_.data_file.empty()) {
    return chain_error("qluks-data-file is given, but the image has no external data file");
  }
  if (image.backing_name.empty()) {
    if (depth >= config_.backing.size()) return ok();
    return chain_error("qluks-backing is given " + std::to_string(config_.backing.size()) +
                       " times, but the chain has " + std::to_string(depth) + " backing files");
  }
  auto backing = open_backing(image, dir, depth);
  if (!backing) return propagate(backing);
  options.backing = std::move(*backing);
  return ok();
}

Result<SharedDevice> BackingChain::open_backing(const Qcow2Header& overlay, const std::string& dir, size_t depth) {
  if (depth >= chain_files_max) {
    return chain_error("the chain of backing files is longer than " + std::to_string(chain_files_max));
  }
  auto file = find_backing(overlay, dir, depth);
  if (!file) return propagate(file);
  if (file->device == nullptr) return SharedDevice();
  auto stored_as = file->stored_as ? Result<StoredAs>(*file->stored_as) : recorded_format(overlay, depth);
  if (!stored_as) return propagate(stored_as);
  if (Status s = note_visit(*file); !s) return propagate(s);
  const std::string where = number(depth) + " " + in_quotes(file->name);
  auto disk = open_disk(std::move(*file), *stored_as, depth);
  if (!disk) return propagate(disk, where);
  return disk;
}

Result<SharedDevice> BackingChain::open_disk(File file, StoredAs stored_as, size_t depth) {
  if (stored_as != StoredAs::qcow2 && depth + 1 < config_.backing.size()) {
    return chain_error("it is not a qcow2, so it has no backing file, but qluks-backing names one");
  }
  switch (stored_as) {
    case StoredAs::raw:
      return std::move(file.device);
    case StoredAs::luks: {
      auto volume = open_luks(*file.device, config_.keyring);
      if (!volume) return propagate(volume);
      return stack(std::move(file.device), std::move(*volume));
    }
    case StoredAs::qcow2:
      break;
  }
  auto header = read_qcow2_header(*file.device);
  if (!header) return propagate(header);
  if (Status s = note_l1_table(*header); !s) return propagate(s);
  /* Nothing is ever written to a backing file. */
  Qcow2Options options{.cache = cache_, .read_only = true};
  if (Status s = open_references(*header, file.dir, depth + 1, options); !s) return propagate(s);
  auto image = open_qcow2(*file.device, std::move(*header), config_.keyring, options);
  if (!image) return propagate(image);
  return stack(std::move(file.device), std::move(*image));
}

/* A file without a device is one that no parameter allows; open_qcow2 then refuses the image, with its own words. */
Result<BackingChain::File> BackingChain::find_backing(const Qcow2Header& overlay, const std::string& dir,
                                                      size_t depth) {
  if (!config_.backing_dir.empty()) return find_in_directory(overlay.backing_name, dir);
  if (depth >= config_.backing.size()) return File{};
  const BackingFile& given = config_.backing[depth];
  auto device = sources_.open(given.source);
  if (!device) return propagate(device, number(depth));
  return File{std::move(*device), given.source, "", given.stored_as};
}

Result<BackingChain::File> BackingChain::find_in_directory(const std::string& name, const std::string& dir) {
  auto path = name_in_directory(config_.backing_dir, name, dir);
  if (!path) return propagate(path);
  auto device = FileDevice::open_beneath(config_.backing_dir, *path);
  if (!device) return propagate(device);
  const size_t slash = path->rfind('/');
  return File{SharedDevice(std::move(*device)), *path, slash == std::string::npos ? "" : path->substr(0, slash),
              std::nullopt};
}

/* What is only named by an image is never written. */
Result<SharedDevice> BackingChain::find_data_file(const Qcow2Header& image, const std::string& dir, size_t depth) {
  if (depth == 0 && !config_.data_file.empty()) {
    return read_only_ ? sources_.open(config_.data_file) : sources_.open_for_one_writer(config_.data_file);
  }
  if (config_.backing_dir.empty() || image.data_file_name.empty()) return SharedDevice();
  auto file = find_in_directory(image.data_file_name, dir);
  if (!file) return propagate(file);
  return std::move(file->device);
}

Status BackingChain::note_l1_table(const Qcow2Header& header) {
  l1_bytes_ += uint64_t{*qcow2_l1_entries_needed(header, header.size)} * sizeof(be64);
  if (l1_bytes_ <= chain_l1_bytes_max) return ok();
  return chain_error("the L1 tables of the backing files have " + std::to_string(l1_bytes_) +
                     " bytes up to here, the limit is " + std::to_string(chain_l1_bytes_max));
}

Status BackingChain::note_visit(const File& file) {
  const auto* local = dynamic_cast<const FileDevice*>(file.device.get());
  if (local == nullptr || visited_.insert(local->identity()).second) return ok();
  return chain_error("the chain of backing files comes back to " + in_quotes(file.name));
}

} // namespace qluks
