/* SPDX-License-Identifier: BSD-3-Clause */
/* Speeds of several contestants that took turns, and the table made of them. */
#ifndef QLUKS_BENCH_TABLE_HPP
#define QLUKS_BENCH_TABLE_HPP

#include <time.h>

#include <functional>
#include <random>
#include <string>
#include <vector>

namespace qluks::bench {

enum class Kind { limit, ours, rival };

struct Contestant {
  Kind kind;
  std::string name;
  double work;                     /* bytes or iterations of one turn */
  std::function<void()> go;        /* one turn */
  int limit = -1;                  /* index of the contestant that is its limit, if it has one */
  std::vector<double> speeds = {}; /* work a second, by round */
};

/* Contestants of one case.  In each round everyone has one turn, in a new order; speeds are only compared within a
 * round, so that a clock that moves from round to round does not matter. */
class Race {
 public:
  /* `clock` as for clock_gettime: the time of the thread leaves out what other programs take of a busy machine. */
  Race(std::string title, std::vector<Contestant> contestants, clockid_t clock = CLOCK_THREAD_CPUTIME_ID);

  /* Give everyone about the same time for a turn. */
  void repeat_turns(double seconds);
  /* Before each turn, go on for so long without measuring. */
  void set_warm_up(double seconds) { warm_up_ = seconds; }
  void run_round();

  const std::string& title() const { return title_; }
  const std::vector<Contestant>& contestants() const { return contestants_; }
  double median_speed(size_t i) const;
  /* The median over rounds of speed(a) / speed(b). */
  double median_ratio(size_t a, size_t b) const;

 private:
  double seconds_of(const std::function<void()>& go) const;

  std::string title_;
  std::vector<Contestant> contestants_;
  clockid_t clock_;
  double warm_up_ = 0;
  std::mt19937 random_{1};
};

/* One line a case: ours with their share of the limit, rivals with how many times the first of ours is faster. */
void print_table(const std::vector<Race>& races, double unit, const char* unit_name);

} // namespace qluks::bench

#endif
