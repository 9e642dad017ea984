// Waiting for another thread that is expected soon.
#pragma once

#include <atomic>
#include <cstdint>

namespace spdnn {

/// Looks at a word before a thread blocks: about 20 µs, several times what waking a blocked thread
/// takes on an idle machine.
inline constexpr int kSpins = 4000;

/// Between two looks of a thread that keeps its core: leaves more of it to the other thread there.
inline void pause_core() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

/// Returns when `word` is no longer `value`: looks `spins` times, then blocks until the one who
/// changes it calls `notify_one` or `notify_all` on it. What was written before the change is seen.
inline void await_change(const std::atomic<std::uint32_t>& word, std::uint32_t value, int spins) {
  for (int i = 0; i < spins && word.load(std::memory_order_acquire) == value; ++i) {
    pause_core();
  }
  word.wait(value, std::memory_order_acquire);
}

}  // namespace spdnn
