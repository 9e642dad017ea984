// Stackful coroutines: each runs one CUDA thread of a block and can pause anywhere in it.
#pragma once

#include <cstddef>
#include <memory>

namespace simt {

/// A stack of its own on which `body(context)` runs in turns. Single-threaded: the fibers of a
/// process are resumed from one thread only.
class Fiber {
 public:
  using Body = void (*)(void* context);
  struct State;  ///< of fiber.cpp

  Fiber();
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  /// Sets what the next `resume` starts. A body that was abandoned half-way is forgotten; nothing
  /// on its stack is destroyed.
  void start(Body body, void* context);

  /// Runs the fiber until it suspends or its body returns.
  void resume();

  /// Called from within a fiber: goes back to whoever resumed it.
  static void suspend();

 private:
  std::unique_ptr<State> state_;
};

}  // namespace simt
