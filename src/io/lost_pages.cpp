// SIGBUS: pages of a mapped file that was cut, or that its disk can't give back. The thread that
// reads them can't go on, and only functions that are safe in a signal handler may be called here,
// so the message is made beforehand and the process ends with it.
#include "lost_pages.hpp"

#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <iterator>
#include <mutex>

#include "spdnn/error.hpp"
#include "spdnn/io.hpp"

namespace spdnn {
namespace {

struct Slot {
  std::atomic<const std::byte*> begin{nullptr};  ///< null: free; written last
  std::size_t bytes = 0;
  std::array<char, 1024> message{};
  std::size_t length = 0;
};
std::array<Slot, 128> slots;
std::mutex registering;

void handle(int signal, siginfo_t* info, void* /*context*/) {
  const auto* address = static_cast<const std::byte*>(info->si_addr);
  for (const Slot& slot : slots) {
    const std::byte* const begin = slot.begin.load(std::memory_order_acquire);
    if (begin == nullptr || address < begin || address >= begin + slot.bytes) continue;
    [[maybe_unused]] const auto written = ::write(STDERR_FILENO, slot.message.data(), slot.length);
    ::_exit(static_cast<int>(ExitStatus::failure));
  }
  ::signal(signal, SIG_DFL);  // none of ours: as if nobody had handled it
  ::raise(signal);
}

}  // namespace

KnownMapping::KnownMapping(std::span<const std::byte> bytes, const std::filesystem::path& path) {
  const std::lock_guard lock(registering);
  for (slot_ = 0; slot_ < slots.size(); ++slot_) {
    Slot& slot = slots[slot_];
    if (slot.begin.load(std::memory_order_relaxed) != nullptr) continue;
    slot.bytes = bytes.size();
    slot.length =
        fmt::format_to_n(slot.message.data(), slot.message.size(),
                         "error: {}: became shorter than its {} bytes while it was in "
                         "use, or its disk failed; start again when nothing writes to it\n",
                         path.string(), bytes.size())
            .out -
        slot.message.data();
    slot.begin.store(bytes.data(), std::memory_order_release);
    return;
  }
}

KnownMapping::~KnownMapping() {
  if (slot_ == slots.size()) return;
  const std::lock_guard lock(registering);
  slots[slot_].begin.store(nullptr, std::memory_order_release);
}

void report_lost_pages() {
  struct sigaction action {};
  action.sa_sigaction = handle;
  action.sa_flags = SA_SIGINFO;
  sigemptyset(&action.sa_mask);
  sigaction(SIGBUS, &action, nullptr);
}

}  // namespace spdnn
