// Temporary names in a table that a signal handler may read: fixed memory, no locks.
#include "unfinished_files.hpp"

#include <unistd.h>

#include <array>
#include <atomic>

#include "spdnn/io.hpp"

namespace spdnn {
namespace {

enum class State : int { free, changing, known };

struct Slot {
  std::atomic<State> state{State::free};
  std::array<char, 1024> path{};
};
std::array<Slot, 64> slots;
static_assert(std::atomic<State>::is_always_lock_free, "a signal handler reads it");

}  // namespace

UnfinishedFile::UnfinishedFile(const std::filesystem::path& path) : slot_(slots.size()) {
  const std::string& name = path.native();
  if (name.size() >= slots.front().path.size()) return;
  for (slot_ = 0; slot_ < slots.size(); ++slot_) {
    Slot& slot = slots[slot_];
    State expected = State::free;
    if (!slot.state.compare_exchange_strong(expected, State::changing)) continue;
    name.copy(slot.path.data(), name.size());
    slot.path[name.size()] = '\0';
    slot.state.store(State::known, std::memory_order_release);
    return;
  }
}

UnfinishedFile::~UnfinishedFile() {
  if (slot_ < slots.size()) slots[slot_].state.store(State::free, std::memory_order_release);
}

void remove_unfinished_files() noexcept {
  for (const Slot& slot : slots) {
    if (slot.state.load(std::memory_order_acquire) == State::known) ::unlink(slot.path.data());
  }
}

}  // namespace spdnn
