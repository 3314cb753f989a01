/* SPDX-License-Identifier: BSD-3-Clause */
#include "bench/table.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <numeric>

namespace qluks::bench {

namespace {

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

size_t first_of_ours(const std::vector<Contestant>& contestants) {
  const auto ours =
      std::find_if(contestants.begin(), contestants.end(), [](const Contestant& c) { return c.kind == Kind::ours; });
  return static_cast<size_t>(ours - contestants.begin());
}

std::string cell(const Race& race, size_t i, double unit) {
  const Contestant& c = race.contestants()[i];
  char text[64];
  if (c.kind == Kind::rival) {
    const double ratio = race.median_ratio(first_of_ours(race.contestants()), i);
    std::snprintf(text, sizeof text, "%.2f (%.2fx)", race.median_speed(i) / unit, ratio);
  } else if (c.limit >= 0) {
    const double share = race.median_ratio(i, static_cast<size_t>(c.limit));
    std::snprintf(text, sizeof text, "%.2f (%.1f %%)", race.median_speed(i) / unit, 100 * share);
  } else {
    std::snprintf(text, sizeof text, "%.2f", race.median_speed(i) / unit);
  }
  return text;
}

void print_row(const std::vector<std::string>& cells, size_t first_width) {
  std::printf("| %-*s |", static_cast<int>(first_width), cells[0].c_str());
  for (size_t i = 1; i < cells.size(); ++i) std::printf(" %15s |", cells[i].c_str());
  std::printf("\n");
}

} // namespace

Race::Race(std::string title, std::vector<Contestant> contestants, clockid_t clock)
    : title_(std::move(title)), contestants_(std::move(contestants)), clock_(clock) {}

double Race::seconds_of(const std::function<void()>& go) const {
  timespec start{};
  timespec end{};
  clock_gettime(clock_, &start);
  go();
  clock_gettime(clock_, &end);
  return static_cast<double>(end.tv_sec - start.tv_sec) + 1e-9 * static_cast<double>(end.tv_nsec - start.tv_nsec);
}

void Race::repeat_turns(double seconds) {
  for (Contestant& c : contestants_) {
    c.go(); /* page faults and cold caches */
    const double turns = std::ceil(seconds / std::max(seconds_of(c.go), 1e-9));
    if (turns <= 1) continue;
    c.work *= turns;
    c.go = [once = c.go, count = static_cast<size_t>(turns)] {
      for (size_t i = 0; i < count; ++i) once();
    };
  }
}

void Race::run_round() {
  std::vector<size_t> order(contestants_.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::shuffle(order.begin(), order.end(), random_);
  for (const size_t i : order) {
    Contestant& c = contestants_[i];
    for (double spent = 0; spent < warm_up_;) spent += seconds_of(c.go);
    c.speeds.push_back(c.work / seconds_of(c.go));
  }
}

double Race::median_speed(size_t i) const { return median(contestants_[i].speeds); }

double Race::median_ratio(size_t a, size_t b) const {
  std::vector<double> ratios;
  for (size_t round = 0; round < contestants_[a].speeds.size(); ++round) {
    ratios.push_back(contestants_[a].speeds[round] / contestants_[b].speeds[round]);
  }
  return median(ratios);
}

void print_table(const std::vector<Race>& races, double unit, const char* unit_name) {
  if (races.empty()) return;
  size_t width = 0;
  for (const Race& race : races) width = std::max(width, race.title().size());
  std::vector<std::string> cells{unit_name};
  for (const Contestant& c : races[0].contestants()) cells.push_back(c.name);
  std::printf("\n");
  print_row(cells, width);
  for (std::string& c : cells) c = "---";
  print_row(cells, width);
  for (const Race& race : races) {
    cells = {race.title()};
    for (size_t i = 0; i < race.contestants().size(); ++i) cells.push_back(cell(race, i, unit));
    print_row(cells, width);
  }
}

} // namespace qluks::bench
