/* SPDX-License-Identifier: BSD-3-Clause */
/* write_guest [OPTION…] IMAGE MODEL: changes the guest disk of a qcow2 at random, and the raw file MODEL in the same
 * way.
 * write_guest [OPTION…] --hostile IMAGE: changes the guest disk of a qcow2 that may contradict itself.  No request need
 * succeed, but a part of a cluster that was written is read back.
 *
 *      --seed N            of the random numbers
 *      --operations N      of each thread; 200 if it is not said
 *      --threads N         each in a part of the disk of its own, which is not made of whole clusters
 *      --passphrase TEXT   for an encrypted image
 *      --backing FILE      the backing file, raw
 *      --data-file FILE    the external data file
 *      --sizes N           no write is longer than that
 *
 * The layers without nbdkit.  Now and then what was written is read back; at the end all of it is.  QEMU then checks
 * the image, and compares its guest disk with MODEL, which holds what the guest disk holds at first. */
#include <fcntl.h>
#include <getopt.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "base/file_device.hpp"
#include "base/log.hpp"
#include "base/system_message.hpp"
#include "formats/luks/keyring.hpp"
#include "formats/qcow2/layer.hpp"

using namespace qluks;

namespace {

/* A local file as the plugin below would be: of a fixed size. */
class PlainFile final : public BlockDevice {
 public:
  explicit PlainFile(const std::string& path) : fd_(open(path.c_str(), O_RDWR | O_CLOEXEC)) {
    struct stat st {};
    if (fd_ < 0 || fstat(fd_, &st) != 0) {
      std::perror(path.c_str());
      std::exit(2);
    }
    size_ = static_cast<uint64_t>(st.st_size);
  }
  ~PlainFile() override { close(fd_); }

  uint64_t size() const noexcept override { return size_; }
  Limits limits() const noexcept override { return {}; }
  WriteAbilities write_abilities() const noexcept override {
    return {.write = true, .flush = true, .fua = true, .trim = true};
  }
  Status read(std::span<std::byte> dst, uint64_t offset) override {
    const ssize_t n = pread(fd_, dst.data(), dst.size(), static_cast<off_t>(offset));
    return n == static_cast<ssize_t>(dst.size()) ? ok() : fail(Errc::io, "pread: " + system_message(errno));
  }
  Result<Extent> extent(uint64_t offset, uint64_t max) override {
    const off_t data = lseek(fd_, static_cast<off_t>(offset), SEEK_DATA);
    const uint64_t next = data < 0 ? size_ : static_cast<uint64_t>(data);
    if (next <= offset) return Extent{.length = std::min<uint64_t>(max, 4096)};
    return Extent{.length = std::min(max, next - offset), .hole = true, .zero = true};
  }
  Status write(std::span<const std::byte> src, uint64_t offset, Fua /*fua*/) override {
    if (offset + src.size() > size_) return fail(Errc::out_of_bounds, "write behind the end of the file");
    const ssize_t n = pwrite(fd_, src.data(), src.size(), static_cast<off_t>(offset));
    return n == static_cast<ssize_t>(src.size()) ? ok() : fail(Errc::io, "pwrite: " + system_message(errno));
  }
  /* What was there is gone at once. */
  Status trim(uint64_t offset, uint64_t length, Fua fua) override {
    const std::vector<std::byte> noise(static_cast<size_t>(length), std::byte{0x99});
    return write(noise, offset, fua);
  }

 private:
  int fd_;
  uint64_t size_ = 0;
};

struct Arguments {
  unsigned seed = 1;
  unsigned operations = 200;
  unsigned threads = 1;
  uint64_t longest = 300000;
  bool hostile = false;
  std::string passphrase, backing, data_file, image, model;
};

bool parse(int argc, char** argv, Arguments& a) {
  static const option known[] = {{"seed", required_argument, nullptr, 's'},
                                 {"operations", required_argument, nullptr, 'o'},
                                 {"threads", required_argument, nullptr, 't'},
                                 {"passphrase", required_argument, nullptr, 'p'},
                                 {"backing", required_argument, nullptr, 'b'},
                                 {"sizes", required_argument, nullptr, 'z'},
                                 {"hostile", no_argument, nullptr, 'h'},
                                 {"data-file", required_argument, nullptr, 'd'},
                                 {nullptr, 0, nullptr, 0}};
  for (int c; (c = getopt_long(argc, argv, "", known, nullptr)) != -1;) {
    if (c == 's') a.seed = static_cast<unsigned>(std::stoul(optarg));
    if (c == 'o') a.operations = static_cast<unsigned>(std::stoul(optarg));
    if (c == 't') a.threads = static_cast<unsigned>(std::stoul(optarg));
    if (c == 'p') a.passphrase = optarg;
    if (c == 'b') a.backing = optarg;
    if (c == 'd') a.data_file = optarg;
    if (c == 'z') a.longest = std::stoull(optarg);
    if (c == 'h') a.hostile = true;
    if (c == '?') return false;
  }
  if (optind + (a.hostile ? 1 : 2) != argc) return false;
  a.image = argv[optind];
  if (!a.hostile) a.model = argv[optind + 1];
  return true;
}

/* One thread's part of the disk, and what it holds. */
class Part {
 public:
  Part(BlockDevice& disk, std::span<std::byte> model, uint64_t first, uint64_t end, const Arguments& arguments,
       unsigned seed)
      : disk_(disk), model_(model), first_(first), end_(end), longest_(arguments.longest), random_(seed) {}

  Status run(unsigned operations) {
    for (unsigned i = 0; i < operations; ++i) {
      if (Status s = step(); !s) return s;
    }
    return compare(first_, end_ - first_);
  }

 private:
  uint64_t number(uint64_t end) { return std::uniform_int_distribution<uint64_t>(0, end - 1)(random_); }

  Status step() {
    uint64_t offset = first_ + number(end_ - first_);
    if (number(2) == 0) offset = std::max(first_, offset & ~uint64_t{4095});
    const uint64_t scale = number(3) == 0 ? longest_ : number(2) == 0 ? 5000 : 70000;
    uint64_t length = std::min(1 + number(std::min(scale, longest_)), end_ - offset);
    const Fua fua = number(20) == 0 ? Fua::yes : Fua::no;
    switch (number(16)) {
      case 0:
        return disk_.flush();
      case 1:
      case 2:
        return zero(offset, length, fua);
      case 3:
        return trim(offset, length, fua);
      case 4:
      case 5:
        return compare(offset, length);
      case 6:
        return zero(offset, std::min(length * 4, end_ - offset), fua);
      default:
        return write(offset, length, fua);
    }
  }

  Status write(uint64_t offset, uint64_t length, Fua fua) {
    std::vector<std::byte> bytes(static_cast<size_t>(length));
    for (auto& b : bytes) b = static_cast<std::byte>(random_());
    const auto copy = bytes;
    if (Status s = disk_.write(bytes, offset, fua); !s) return s;
    if (bytes != copy) return fail(Errc::corrupt, "the client's buffer was changed");
    std::copy(bytes.begin(), bytes.end(), at(offset));
    return ok();
  }

  Status zero(uint64_t offset, uint64_t length, Fua fua) {
    const auto mode = static_cast<ZeroMode>(number(4));
    Status s = disk_.zero(offset, length, mode, fua);
    if (!s && s.error().code == Errc::not_fast) return ok();
    if (!s) return s;
    std::fill_n(at(offset), length, std::byte{0});
    return ok();
  }

  /* What is there afterwards is the device's to say, but it stays. */
  Status trim(uint64_t offset, uint64_t length, Fua fua) {
    if (Status s = disk_.trim(offset, length, fua); !s) return s;
    std::vector<std::byte> now(static_cast<size_t>(length));
    if (Status s = disk_.read(now, offset); !s) return s;
    for (size_t i = 0; i < now.size(); ++i) {
      if (now[i] != std::byte{0} && now[i] != at(offset)[i]) return fail(Errc::corrupt, "trimmed bytes are noise");
    }
    std::copy(now.begin(), now.end(), at(offset));
    return ok();
  }

  Status compare(uint64_t offset, uint64_t length) {
    std::vector<std::byte> now(static_cast<size_t>(length));
    if (Status s = disk_.read(now, offset); !s) return s;
    const auto differs = std::mismatch(now.begin(), now.end(), at(offset));
    if (differs.first == now.end()) return ok();
    return fail(Errc::corrupt, "guest offset " + std::to_string(offset + (differs.first - now.begin())) + " differs");
  }

  std::byte* at(uint64_t offset) { return model_.data() + offset; }

  BlockDevice& disk_;
  std::span<std::byte> model_;
  uint64_t first_, end_, longest_;
  std::mt19937 random_;
};

Status run_threads(BlockDevice& disk, std::span<std::byte> model, const Arguments& arguments) {
  std::vector<Status> results(arguments.threads, ok());
  std::vector<std::thread> threads;
  const uint64_t part = disk.size() / arguments.threads / 512 * 512 - 512 * (arguments.threads > 1 ? 1 : 0);
  for (unsigned i = 0; i < arguments.threads; ++i) {
    const uint64_t first = i * part;
    const uint64_t end = i + 1 == arguments.threads ? disk.size() : first + part;
    threads.emplace_back([&, i, first, end] {
      results[i] = Part(disk, model, first, end, arguments, arguments.seed * 100 + i).run(arguments.operations);
    });
  }
  for (auto& thread : threads) thread.join();
  for (auto& s : results) {
    if (!s) return s;
  }
  return disk.flush();
}

/* Mostly at the start, where small images have all they have. */
Status run_hostile(BlockDevice& disk, const Arguments& arguments) {
  if (disk.size() == 0) return ok();
  std::mt19937_64 random(arguments.seed);
  constexpr uint64_t start_bytes = 1 << 20;
  constexpr uint64_t sector = 512;
  for (unsigned i = 0; i < arguments.operations; ++i) {
    const uint64_t end = i % 8 == 7 ? disk.size() : std::min(disk.size(), start_bytes);
    const uint64_t offset = random() % end;
    const uint64_t length = std::min(1 + random() % (i % 4 == 0 ? arguments.longest : sector), disk.size() - offset);
    const auto range = [&](uint64_t max) { return std::min(length * 8, std::min(max, disk.size() - offset)); };
    if (i % 5 == 3) {
      static_cast<void>(disk.zero(offset, range(start_bytes), static_cast<ZeroMode>(random() % 4), Fua::no));
    } else if (i % 5 == 4) {
      static_cast<void>(disk.trim(offset, range(start_bytes), Fua::no));
    } else {
      const std::vector<std::byte> bytes(static_cast<size_t>(length), static_cast<std::byte>(i + 1));
      if (!disk.write(bytes, offset, i % 7 == 0 ? Fua::yes : Fua::no)) continue;
      if (offset % sector + length > sector) continue; /* two guest clusters may be one */
      std::vector<std::byte> now(static_cast<size_t>(length));
      if (Status s = disk.read(now, offset); !s) return s;
      if (!std::equal(now.begin(), now.end(), bytes.begin())) {
        return fail(Errc::corrupt, "guest offset " + std::to_string(offset) + " differs");
      }
    }
  }
  static_cast<void>(disk.flush());
  return ok();
}

Status run(const Arguments& arguments) {
  Keyring keyring;
  if (!arguments.passphrase.empty()) {
    keyring.add_secret(SecureBuffer::copy_of(std::as_bytes(std::span(arguments.passphrase))));
  }
  PlainFile file(arguments.image);
  Qcow2Options options;
  if (!arguments.backing.empty()) options.backing = std::make_shared<PlainFile>(arguments.backing);
  if (!arguments.data_file.empty()) {
    auto data = FileDevice::open(arguments.data_file, FileDevice::Access::write);
    if (!data) return propagate(data);
    options.data_file = std::move(*data);
  }
  auto format = open_qcow2(file, keyring, options);
  if (!format) return propagate(format);
  const auto disk = (*format)->stack_on(file);
  if (!disk->write_abilities().write) return fail(Errc::read_only, "read-only: " + (*format)->why_read_only());

  if (arguments.hostile) return run_hostile(*disk, arguments);

  PlainFile model_file(arguments.model);
  std::vector<std::byte> model(static_cast<size_t>(disk->size()));
  if (Status s = model_file.read(model, 0); !s) return s;
  if (Status s = run_threads(*disk, model, arguments); !s) return s;
  return model_file.write(model, 0, Fua::no);
}

} // namespace

int main(int argc, char** argv) {
  Arguments arguments;
  if (!parse(argc, argv, arguments)) {
    std::fprintf(stderr, "usage: write_guest [OPTION...] IMAGE MODEL|--hostile IMAGE\n");
    return 2;
  }
  set_log_sink([](LogLevel level, const std::string& line) {
    if (level != LogLevel::debug) std::fprintf(stderr, "%s\n", line.c_str());
  });
  const Status s = run(arguments);
  if (s) return 0;
  std::fprintf(stderr, "write_guest: seed %u: %s\n", arguments.seed, s.error().what.c_str());
  return 1;
}
