/* SPDX-License-Identifier: BSD-3-Clause */
/* power_cut [OPTION…] IMAGE: what is left of a qcow2 when the power goes while it is written.
 *
 *      --passphrase TEXT   for an encrypted image
 *      --backing FILE      the backing file, raw
 *      --data-file FILE    the external data file, which is storage of its own
 *      --length N          operations in a workload; 3 if it is not said
 *      --part K/N          only each N-th workload, from the K-th on
 *      --subsets N         all subsets of so many writes; of more, prefixes and random ones
 *      --lying             the storage acknowledges flushes and does nothing: bad states are expected
 *      --sample N DIR      keep each N-th state as a file
 *
 *      client:   write ── zero ── trim ── flush ── …       every sequence of the operations below, some of them two at
 *                                                          once, then a flush
 *      below:    w w │ w │ w w w │ …                       │ a flush: all before it is stable, of the rest any part
 *
 * Each state that storage may be left in is opened.  An independent check must find nothing but clusters that nobody
 * uses, and each byte of the guest disk is one that it was given since it was last known to be stable.  Prints how many
 * states there were and how many were bad, and the first of those. */
#include <getopt.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "base/log.hpp"
#include "base/window.hpp"
#include "formats/luks/keyring.hpp"
#include "formats/qcow2/layer.hpp"
#include "tests/support/memory_device.hpp"
#include "tests/support/qcow2_check.hpp"
#include "tests/support/writable_device.hpp"

using namespace qluks;

namespace {

using Bytes = std::vector<std::byte>;
using test::WriteCall;

struct Arguments {
  std::string passphrase, backing, data_file, image, sample_dir;
  unsigned length = 3, part = 0, parts = 1, subsets = 6;
  uint64_t sample = 0;
  bool lying = false;
};

bool parse(int argc, char** argv, Arguments& a) {
  static const option known[] = {{"passphrase", required_argument, nullptr, 'p'},
                                 {"backing", required_argument, nullptr, 'b'},
                                 {"length", required_argument, nullptr, 'l'},
                                 {"part", required_argument, nullptr, 'k'},
                                 {"subsets", required_argument, nullptr, 's'},
                                 {"lying", no_argument, nullptr, 'y'},
                                 {"sample", required_argument, nullptr, 'm'},
                                 {"data-file", required_argument, nullptr, 'd'},
                                 {nullptr, 0, nullptr, 0}};
  for (int c; (c = getopt_long(argc, argv, "", known, nullptr)) != -1;) {
    if (c == 'p') a.passphrase = optarg;
    if (c == 'b') a.backing = optarg;
    if (c == 'd') a.data_file = optarg;
    if (c == 'l') a.length = static_cast<unsigned>(std::stoul(optarg));
    if (c == 'k' && std::sscanf(optarg, "%u/%u", &a.part, &a.parts) != 2) return false;
    if (c == 's') a.subsets = static_cast<unsigned>(std::stoul(optarg));
    if (c == 'y') a.lying = true;
    if (c == 'm') {
      a.sample = std::stoull(optarg);
      if (optind == argc) return false;
      a.sample_dir = argv[optind++];
    }
    if (c == '?') return false;
  }
  if (optind + 1 != argc) return false;
  a.image = argv[optind];
  return true;
}

Bytes load(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string content((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  const auto bytes = std::as_bytes(std::span(content));
  return {bytes.begin(), bytes.end()};
}

/* Image and data file lie one behind the other, and each is flushed by itself. */
class Part final : public BlockDevice {
 public:
  Part(test::WritableDevice& whole, unsigned number, uint64_t offset, uint64_t length)
      : window_(whole, offset, length), number_(number) {}
  uint64_t size() const noexcept override { return window_.size(); }
  Limits limits() const noexcept override { return window_.limits(); }
  WriteAbilities write_abilities() const noexcept override { return window_.write_abilities(); }
  Status read(std::span<std::byte> dst, uint64_t offset) override { return window_.read(dst, offset); }
  Result<Extent> extent(uint64_t offset, uint64_t max) override { return window_.extent(offset, max); }
  Status write(std::span<const std::byte> src, uint64_t offset, Fua fua) override {
    return here().write(src, offset, fua);
  }
  Status zero(uint64_t offset, uint64_t length, ZeroMode mode, Fua fua) override {
    return here().zero(offset, length, mode, fua);
  }
  Status trim(uint64_t offset, uint64_t length, Fua fua) override { return here().trim(offset, length, fua); }
  Status flush() override { return here().flush(); }

 private:
  BlockDevice& here() {
    test::WritableDevice::part = number_;
    return window_;
  }
  Window window_;
  unsigned number_;
};

/* What a client does.  Offsets and lengths in clusters and bytes. */
struct Operation {
  enum class Kind : uint8_t { write, fua, zero, trim, flush };
  Kind kind;
  uint64_t offset = 0;
  uint64_t length = 0;
  /* Does the next one run at the same time, in a thread of its own?  They share no byte, and a flush comes first. */
  bool with_next = false;
};
using Operations = std::vector<Operation>; /* one, or two at once */

std::vector<Operations> operations(uint64_t cluster, uint64_t disk) {
  using Kind = Operation::Kind;
  return {{{Kind::write, cluster + 100, 50}},              /* inside of a cluster */
          {{Kind::write, 0, 2 * cluster}},                 /* whole ones */
          {{Kind::write, 2 * cluster - 30, cluster + 60}}, /* across three */
          {{Kind::write, disk - 200, 200}},                /* at the end */
          {{Kind::fua, cluster + 120, 10}},                /* and stable */
          {{Kind::zero, cluster / 2, 2 * cluster}},        /* with edges */
          {{Kind::trim, 0, 3 * cluster}},                  /* frees */
          {{Kind::flush}},
          {{Kind::write, 3 * cluster + 10, 20, true}, {Kind::write, 3 * cluster + 200, 100}}, /* one new cluster */
          {{Kind::flush, 0, 0, true}, {Kind::write, cluster - 20, cluster}}};
}

/* What the guest disk held after each operation, and from which call below on. */
struct Step {
  Operation operation;
  Bytes content;
  size_t begun = 0; /* calls below when it began, and when it was answered */
  size_t answered = 0;
};

class Proof {
 public:
  explicit Proof(const Arguments& arguments) : arguments_(arguments), start_(load(arguments.image)) {
    image_bytes_ = start_.size();
    if (!arguments.data_file.empty()) {
      const Bytes data = load(arguments.data_file);
      start_.insert(start_.end(), data.begin(), data.end());
    }
    if (!arguments.passphrase.empty()) {
      keyring_.add_secret(SecureBuffer::copy_of(std::as_bytes(std::span(arguments.passphrase))));
    }
    if (!arguments.backing.empty()) {
      options_.backing = std::make_shared<test::MemoryDevice>(load(arguments.backing));
    }
  }

  Status run() {
    test::WritableDevice storage(start_);
    Part device(storage, 0, 0, image_bytes_);
    auto format = open(storage, device, options_);
    if (!format) return propagate(format);
    if (!(*format)->why_read_only().empty()) return fail(Errc::read_only, (*format)->why_read_only());
    auto header = read_qcow2_header(device);
    if (!header) return propagate(header);
    const auto all = operations(header->cluster_size(), (*format)->stack_on(device)->size());
    uint64_t workloads = 1;
    for (unsigned i = 0; i < arguments_.length; ++i) workloads *= all.size();
    for (uint64_t w = arguments_.part; w < workloads; w += arguments_.parts) {
      Operations chosen;
      name_.clear();
      for (uint64_t rest = w, i = 0; i < arguments_.length; ++i, rest /= all.size()) {
        const Operations& next = all[rest % all.size()];
        chosen.insert(chosen.end(), next.begin(), next.end());
        name_ += std::to_string(rest % all.size());
      }
      chosen.push_back({Operation::Kind::flush});
      if (Status s = run_workload(chosen); !s) return propagate(s, "workload " + name_);
    }
    return ok();
  }

  uint64_t states() const { return states_; }
  uint64_t bad() const { return bad_; }
  const std::string& first_bad() const { return first_bad_; }

 private:
  Result<std::unique_ptr<Qcow2Format>> open(test::WritableDevice& storage, BlockDevice& image, Qcow2Options options) {
    const uint64_t data_bytes = start_.size() - image_bytes_;
    if (data_bytes != 0) options.data_file = std::make_shared<Part>(storage, 1, image_bytes_, data_bytes);
    return open_qcow2(image, keyring_, options);
  }

  Status run_workload(const Operations& chosen) {
    test::WritableDevice storage(start_);
    Part device(storage, 0, 0, image_bytes_);
    auto format = open(storage, device, options_);
    if (!format) return propagate(format);
    const auto disk = (*format)->stack_on(device);
    steps_.clear();
    Bytes content(static_cast<size_t>(disk->size()));
    if (Status s = disk->read(content, 0); !s) return s;
    steps_.push_back({{Operation::Kind::flush}, content, 0, 0});
    may_be_zero_.assign(content.size(), false);
    uint8_t fill = 0x11;
    for (size_t i = 0; i < chosen.size(); ++i) {
      std::vector<Step> at_once;
      std::vector<std::thread> threads;
      std::vector<Status> results(2, ok());
      const size_t begun = storage.calls.size();
      const size_t first = i;
      for (;; ++i) {
        fill = static_cast<uint8_t>(fill + 0x11);
        at_once.push_back({chosen[i], note(chosen[i], content, std::byte{fill}), begun, 0});
        if (!chosen[i].with_next) break;
      }
      const auto run = [&](size_t k) { results[k] = apply(*disk, chosen[first + k], at_once[k].content); };
      for (size_t k = 1; k < at_once.size(); ++k) threads.emplace_back(run, k);
      run(0);
      for (std::thread& thread : threads) thread.join();
      for (size_t k = 0; k < at_once.size(); ++k) {
        if (!results[k]) return results[k];
        at_once[k].answered = storage.calls.size();
        steps_.push_back(std::move(at_once[k]));
      }
    }
    cut_everywhere(storage.calls);
    return ok();
  }

  /* What the disk holds after it. */
  const Bytes& note(const Operation& o, Bytes& content, std::byte fill) {
    const auto at = content.begin() + static_cast<ptrdiff_t>(o.offset);
    const bool writes = o.kind == Operation::Kind::write || o.kind == Operation::Kind::fua;
    if (writes || o.kind == Operation::Kind::zero) std::fill_n(at, o.length, writes ? fill : std::byte{0});
    if (o.kind == Operation::Kind::trim) {
      std::fill_n(may_be_zero_.begin() + static_cast<ptrdiff_t>(o.offset), o.length, true);
    }
    return content;
  }

  static Status apply(BlockDevice& disk, const Operation& o, std::span<const std::byte> content) {
    switch (o.kind) {
      case Operation::Kind::write:
      case Operation::Kind::fua:
        return disk.write(content.subspan(static_cast<size_t>(o.offset), static_cast<size_t>(o.length)), o.offset,
                          o.kind == Operation::Kind::fua ? Fua::yes : Fua::no);
      case Operation::Kind::zero:
        return disk.zero(o.offset, o.length, ZeroMode::may_trim, Fua::no);
      case Operation::Kind::trim:
        return disk.trim(o.offset, o.length, Fua::no);
      default:
        return disk.flush();
    }
  }

  /* ---- states ---- */

  static void put(Bytes& image, const WriteCall& call, uint64_t skip_mask = 0) {
    for (uint64_t done = 0; done < call.length;) {
      const uint64_t piece = std::min<uint64_t>(512 - (call.offset + done) % 512, call.length - done);
      const bool skipped = (skip_mask >> (done / 512 % 64) & 1) != 0;
      const auto at = image.begin() + static_cast<ptrdiff_t>(call.offset + done);
      if (!skipped && call.kind == WriteCall::Kind::write) {
        std::copy_n(call.bytes.begin() + static_cast<ptrdiff_t>(done), piece, at);
      } else if (!skipped) {
        std::fill_n(at, piece, std::byte{0});
      }
      done += piece;
    }
  }

  void cut_everywhere(const std::vector<WriteCall>& calls) {
    Bytes stable = start_;
    std::vector<size_t> pending;
    forced_.clear();
    for (size_t i = 0; i < calls.size(); ++i) {
      const bool is_flush = calls[i].kind == WriteCall::Kind::flush;
      if (!is_flush) pending.push_back(i);
      if (is_flush && arguments_.lying) continue;
      const bool is_fua = !is_flush && calls[i].fua == Fua::yes && !arguments_.lying;
      if (!is_flush && !is_fua && i + 1 != calls.size()) continue;
      cut(stable, calls, pending, i);
      if (is_flush) {
        const auto is_of_part = [&](size_t p) { return calls[p].part == calls[i].part; };
        for (const size_t p : pending) {
          if (is_of_part(p)) put(stable, calls[p]);
        }
        std::erase_if(pending, is_of_part);
      } else if (is_fua) {
        forced_.insert(i); /* from now on it is there, whether what came before it is or not */
      }
    }
    if (arguments_.lying || !pending.empty())
      cut(stable, calls, pending, calls.size());
    else
      look(stable, calls.size());
  }

  /* Storage has seen the calls before `now`, and of those that are pending any subset is there. */
  void cut(const Bytes& stable, const std::vector<WriteCall>& calls, const std::vector<size_t>& pending, size_t now) {
    const size_t n = pending.size();
    const auto state = [&](auto&& is_there, size_t torn = SIZE_MAX) {
      Bytes image = stable;
      const uint64_t lost = torn == SIZE_MAX ? 0 : uint64_t{random_()} << 32 | random_(); /* sectors of that write */
      for (size_t k = 0; k < n; ++k) {
        if (k == torn || forced_.contains(pending[k]) || is_there(k)) {
          put(image, calls[pending[k]], k == torn ? lost : 0);
        }
      }
      return image;
    };
    if (n <= arguments_.subsets) {
      for (uint64_t set = 0; set < uint64_t{1} << n; ++set) {
        look(state([&](size_t k) { return (set >> k & 1) != 0; }), now);
      }
    } else {
      for (size_t end = 0; end <= n; ++end) look(state([&](size_t k) { return k < end; }), now);
      for (size_t without = 0; without < n; ++without) look(state([&](size_t k) { return k != without; }), now);
      for (size_t alone = 0; alone < n; ++alone) look(state([&](size_t k) { return k == alone; }), now);
      for (unsigned i = 0; i < 1U << arguments_.subsets; ++i) look(state([&](size_t) { return random_() & 1; }), now);
    }
    for (size_t torn = 0; torn < n; ++torn) {
      if (calls[pending[torn]].length <= 512 || forced_.contains(pending[torn])) continue;
      for (const bool others : {false, true}) {
        look(state([&](size_t k) { return others || k < torn; }, torn), now);
      }
    }
  }

  void look(const Bytes& image, size_t now) {
    ++states_;
    std::string wrong = test::Qcow2Check(std::span(image).first(image_bytes_)).run();
    if (wrong.empty()) wrong = compare(image, now);
    if (arguments_.sample != 0 && states_ % arguments_.sample == 0) keep(image);
    if (wrong.empty()) return;
    if (bad_++ != 0) return;
    first_bad_ = "workload " + name_ + ", after " + std::to_string(now) + " calls: " + wrong;
  }

  void keep(const Bytes& image) const {
    std::ofstream file(arguments_.sample_dir + "/" + name_ + "-" + std::to_string(states_), std::ios::binary);
    file.write(reinterpret_cast<const char*>(image.data()), static_cast<std::streamsize>(image_bytes_));
  }

  /* Each byte is what some operation since the last stable one has left. */
  std::string compare(const Bytes& image, size_t now) {
    test::WritableDevice storage(image);
    Part device(storage, 0, 0, image_bytes_);
    auto options = options_;
    options.read_only = true;
    auto format = open(storage, device, options);
    if (!format) return "does not open: " + format.error().what;
    Bytes content(steps_[0].content.size());
    if (Status s = (*format)->stack_on(device)->read(content, 0); !s) return "does not read: " + s.error().what;
    std::vector<size_t> oldest(content.size(), 0);
    size_t last = 0;
    for (size_t k = 1; k < steps_.size(); ++k) {
      const Step& step = steps_[k];
      if (step.begun <= now) last = k;
      if (step.answered > now) continue;
      if (step.operation.kind == Operation::Kind::flush) std::fill(oldest.begin(), oldest.end(), k);
      if (step.operation.kind == Operation::Kind::fua) {
        std::fill_n(oldest.begin() + static_cast<ptrdiff_t>(step.operation.offset), step.operation.length, k);
      }
    }
    for (size_t b = 0; b < content.size(); ++b) {
      if (may_be_zero_[b] && content[b] == std::byte{0}) continue;
      bool known = false;
      for (size_t k = oldest[b]; k <= last && !known; ++k) known = steps_[k].content[b] == content[b];
      if (!known) return "guest byte " + std::to_string(b) + " is " + std::to_string(std::to_integer<int>(content[b]));
    }
    return {};
  }

  const Arguments& arguments_;
  Bytes start_; /* the image, and the data file behind it */
  uint64_t image_bytes_ = 0;
  Keyring keyring_;
  Qcow2Options options_;
  std::string name_;
  std::vector<Step> steps_; /* the first one: as it was */
  std::vector<bool> may_be_zero_;
  std::set<size_t> forced_; /* calls with FUA that were answered */
  std::mt19937 random_{1};
  uint64_t states_ = 0;
  uint64_t bad_ = 0;
  std::string first_bad_;
};

} // namespace

int main(int argc, char** argv) {
  Arguments arguments;
  if (!parse(argc, argv, arguments)) {
    std::fprintf(stderr, "usage: power_cut [OPTION...] IMAGE\n");
    return 2;
  }
  Proof proof(arguments);
  const Status s = proof.run();
  if (!s) {
    std::fprintf(stderr, "power_cut: %s\n", s.error().what.c_str());
    return 1;
  }
  std::printf("%ju states, %ju bad%s%s\n", uintmax_t{proof.states()}, uintmax_t{proof.bad()},
              proof.bad() != 0 ? ": " : "", proof.first_bad().c_str());
  return (proof.bad() != 0) == arguments.lying ? 0 : 1;
}
