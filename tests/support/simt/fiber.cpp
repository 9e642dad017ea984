// Fibers on mapped stacks. On x86-64 the switch is a dozen instructions; elsewhere it is
// ucontext's, which asks the kernel for the signal mask each time. The address sanitizer is told of
// each switch.
#include "support/simt/fiber.hpp"

#include <sys/mman.h>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#include <cstdint>
#include <new>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SIMT_ASAN 1
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define SIMT_ASAN 1
#endif
#if defined(SIMT_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace simt {
namespace {

constexpr std::size_t kStackBytes = 128 * 1024;

/// One side of a switch: where it stopped, and its stack as the sanitizer knows it.
struct Side {
#if defined(__x86_64__)
  void* stack_pointer = nullptr;
#else
  ucontext_t context{};
#endif
  void* fake_stack = nullptr;
  const void* bottom = nullptr;
  std::size_t bytes = 0;
};

}  // namespace

struct Fiber::State {
  void* stack = nullptr;
  Side self;
  Side caller;
  Body body = nullptr;
  void* context = nullptr;
};

namespace {

Fiber::State* current = nullptr;

#if defined(__x86_64__)
// Saves the callee-saved registers and the stack pointer in *save, and continues at `load`.
asm(R"(
  .text
  .type simt_switch_stack, @function
simt_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .size simt_switch_stack, .-simt_switch_stack
)");
extern "C" void simt_switch_stack(void** save, void* load);
#endif

/// Leaves `from` and goes on in `to`. `ending`: `from` will never run again.
void switch_sides(Side& from, Side& to, [[maybe_unused]] bool ending) {
#if defined(SIMT_ASAN)
  __sanitizer_start_switch_fiber(ending ? nullptr : &from.fake_stack, to.bottom, to.bytes);
#endif
#if defined(__x86_64__)
  simt_switch_stack(&from.stack_pointer, to.stack_pointer);
#else
  swapcontext(&from.context, &to.context);
#endif
#if defined(SIMT_ASAN)
  __sanitizer_finish_switch_fiber(from.fake_stack, nullptr, nullptr);
#endif
}

void enter() {
  Fiber::State& state = *current;
#if defined(SIMT_ASAN)
  __sanitizer_finish_switch_fiber(nullptr, &state.caller.bottom, &state.caller.bytes);
#endif
  state.body(state.context);
  switch_sides(state.self, state.caller, true);
}

}  // namespace

Fiber::Fiber() : state_(std::make_unique<State>()) {
  void* stack = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (stack == MAP_FAILED) throw std::bad_alloc();
  state_->stack = stack;
}

Fiber::~Fiber() {
#if defined(SIMT_ASAN)
  __asan_unpoison_memory_region(state_->stack, kStackBytes);
#endif
  munmap(state_->stack, kStackBytes);
}

void Fiber::start(Body body, void* context) {
  State& state = *state_;
  state.body = body;
  state.context = context;
  state.self = Side{};
  state.self.bottom = state.stack;
  state.self.bytes = kStackBytes;
#if defined(SIMT_ASAN)
  __asan_unpoison_memory_region(state.stack, kStackBytes);
#endif
#if defined(__x86_64__)
  // Seen from its top: a null return address of `enter`, `enter` for the switch's `ret`, and the
  // six registers the switch pops. `enter` then finds the stack aligned as after a call.
  auto* top = static_cast<std::uintptr_t*>(state.stack) + kStackBytes / sizeof(std::uintptr_t);
  *--top = 0;
  *--top = reinterpret_cast<std::uintptr_t>(&enter);
  for (int i = 0; i < 6; ++i) *--top = 0;
  state.self.stack_pointer = top;
#else
  getcontext(&state.self.context);
  state.self.context.uc_stack.ss_sp = state.stack;
  state.self.context.uc_stack.ss_size = kStackBytes;
  state.self.context.uc_link = nullptr;
  makecontext(&state.self.context, &enter, 0);
#endif
}

void Fiber::resume() {
  current = state_.get();
  switch_sides(state_->caller, state_->self, false);
}

void Fiber::suspend() { switch_sides(current->self, current->caller, false); }

}  // namespace simt
