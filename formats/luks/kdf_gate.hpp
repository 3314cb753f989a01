/* SPDX-License-Identifier: BSD-3-Clause */
/* Which derivations run at the same time.
 *
 * Anyone who makes an image chooses what its key derivation costs.  So that a dear one does not hold up the images of
 * others, derivations run side by side:
 *
 *      memory     all that run together stay within one limit; a single one beyond it runs alone
 *      dear ones  (longer than a second) at most one for each CPU at a time
 *      cheap ones do not queue behind dear ones: only for memory
 *
 * Within its class, who comes first is let in first.  A wait ends when the process is told to end.
 */
#ifndef QLUKS_FORMATS_LUKS_KDF_GATE_HPP
#define QLUKS_FORMATS_LUKS_KDF_GATE_HPP

#include <condition_variable>
#include <cstdint>
#include <list>
#include <mutex>
#include <utility>

#include "base/result.hpp"

namespace qluks {

/* What one derivation takes, as it was estimated. */
struct KdfCost {
  uint64_t memory_bytes = 0;
  double seconds = 0;
};

class KdfGate {
 public:
  /* `dear_max`: of the dear ones at a time. */
  KdfGate(uint64_t memory_max, unsigned dear_max) noexcept : memory_max_(memory_max), dear_max_(dear_max) {}

  void set_memory_max(uint64_t bytes) noexcept { memory_max_ = bytes; }

  /* Inside of the gate until it goes. */
  class Pass {
   public:
    Pass(Pass&& other) noexcept : gate_(std::exchange(other.gate_, nullptr)), cost_(other.cost_) {}
    Pass& operator=(Pass&&) = delete;
    ~Pass() {
      if (gate_ != nullptr) gate_->leave(cost_);
    }

   private:
    friend class KdfGate;
    Pass(KdfGate& gate, const KdfCost& cost) noexcept : gate_(&gate), cost_(cost) {}

    KdfGate* gate_;
    KdfCost cost_;
  };

  /* Waits for its turn; Errc::shutting_down if the process has to end first. */
  Result<Pass> enter(const KdfCost& cost);

  /* How many wait now. */
  size_t waiting() const;

 private:
  static bool is_dear(const KdfCost& cost) noexcept { return cost.seconds > 1; }
  bool is_next(std::list<KdfCost>::const_iterator waiter) const noexcept;
  void leave(const KdfCost& cost) noexcept;

  uint64_t memory_max_;
  const unsigned dear_max_;
  mutable std::mutex mutex_;
  std::condition_variable left_;
  std::list<KdfCost> waiting_; /* in the order in which they came */
  unsigned running_ = 0;
  unsigned dear_running_ = 0;
  uint64_t memory_used_ = 0;
};

} // namespace qluks

#endif
