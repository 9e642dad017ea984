// What the CUDA launchers see of a stream when they are built for the host: work goes to a queue.
#pragma once

#include <functional>

#include "support/simt/simt.hpp"

namespace simt {

/// Takes the work of one stream, in order.
class Queue {
 public:
  virtual ~Queue() = default;
  virtual void push(std::function<void()> work) = 0;
};

/// Multiprocessors of the devices there are.
inline constexpr int kMultiprocessors = 3;

/// A schedule for the next launch: forward, reversed and random ones in turn.
[[nodiscard]] Schedule next_schedule();

}  // namespace simt
