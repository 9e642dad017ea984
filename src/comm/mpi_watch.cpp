// Signs of life as letters around a ring, and what is made of those that stay away.
#include "mpi_watch.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <utility>

namespace spdnn::comm {
namespace {

constexpr int kTopic = 4;

/// Between two looks at the others.
constexpr auto kTick = std::chrono::milliseconds(100);
/// The longest time that one look counts for: a process that is held up looks late.
constexpr double kMostCounted = 0.2;
/// How long a process that was told of a failure may go on computing.
constexpr double kGrace = 0.7;
/// How long letters may take to be opened.
constexpr double kLetters = 0.5;
/// How long after it was held up a process may know less than the others.
constexpr double kBehind = 5.0;
/// Processes that all write to one another.
constexpr int kSmallJob = 32;

}  // namespace

Watch::Watch(MpiJob& job, Endings& endings, int process, int processes,
             std::function<void(const std::string&)> last_resort)
    : job_(job),
      endings_(endings),
      process_(process),
      processes_(processes),
      last_resort_(std::move(last_resort)),
      addresses_(static_cast<std::size_t>(processes)),
      neighbours_(addresses_.size()) {
  Address own;
  own.pid = getpid();
  host_name().copy(own.host.data(), own.host.size() - 1);
  {
    const auto caller = one_caller();  // every process is at it
    check_mpi(MPI_Allgather(&own, sizeof own, MPI_BYTE, addresses_.data(), sizeof own, MPI_BYTE,
                            MPI_COMM_WORLD),
              "MPI_Allgather");
  }
  if (processes == 1) return;
  job_.mail.serve(
      kTopic, [this](int from, std::span<const std::byte> letter) { read_signs(from, letter); });
  ticked_ = now_seconds();
  thread_ = std::thread([this] { run(); });
}

Watch::~Watch() {
  stop();
  if (processes_ > 1) job_.mail.serve(kTopic, nullptr);
}

void Watch::stop() {
  over_ = true;
  if (thread_.joinable() && thread_.get_id() != std::this_thread::get_id()) thread_.join();
}

void Watch::show(int slot, int rank, const char* phase, std::int64_t place) {
  Pulse& pulse = pulses_[slot];
  pulse.phase.store(phase, std::memory_order_relaxed);
  pulse.place.store(place, std::memory_order_relaxed);
  ++pulse.beats;
  // The others learn at once who is there.
  if (pulse.rank.exchange(rank, std::memory_order_acq_rel) != rank && processes_ > 1) write_signs();
}

void Watch::show_device(int slot, const std::string& name) {
  auto& device = pulses_[slot].device;
  device.fill(0);
  name.copy(device.data(), device.size() - 1);
}

void Watch::end_wait(int slot) {
  ++pulses_[slot].beats;
  --pulses_[slot].waiting;
}

bool Watch::stands_still() const {
  return processes_ > 1 && !over_ && now_seconds() - ticked_ > patience_;
}

bool Watch::held_up() const { return stands_still() || now_seconds() < behind_until_; }

void Watch::run() {
  while (!over_) {
    if (stands_still()) behind_until_ = now_seconds() + kBehind;
    ticked_ = now_seconds();
    write_signs();
    look_for_dead();
    look_for_hung();
    double found = 0.0;
    std::string finding;
    {
      const std::lock_guard lock(mutex_);
      found = found_;
      finding = finding_;
    }
    if (!finding.empty() && now_seconds() - found > kGrace && last_resort_ &&
        !endings_.concluding()) {
      const bool behind = held_up();
      const auto ending = endings_.conclude({true, ExitStatus::failure}, finding);
      if (ending.speaks && !behind) last_resort_(finding);
      last_resort_("");
    }
    std::this_thread::sleep_for(kTick);
  }
}

void Watch::write_signs() {
  std::vector<Sign> signs;
  for (const Pulse& pulse : pulses_) {
    Sign sign;
    sign.rank = pulse.rank.load(std::memory_order_acquire);
    if (sign.rank < 0) continue;
    sign.waiting = pulse.waiting;
    sign.place = pulse.place;
    sign.beats = pulse.beats;
    std::strncpy(sign.phase.data(), pulse.phase, sign.phase.size() - 1);
    sign.device = pulse.device;
    signs.push_back(sign);
  }
  for (int p = 0; p < processes_; ++p) {
    const bool before = (p + 1) % processes_ == process_;
    if (p == process_ || (processes_ > kSmallJob && !before)) continue;
    job_.mail.send(p, kTopic, std::as_bytes(std::span(signs)));
  }
}

void Watch::read_signs(int from, std::span<const std::byte> letter) {
  const std::lock_guard lock(mutex_);
  Neighbour& neighbour = neighbours_[from];
  neighbour.heard = true;
  neighbour.silent_s = 0.0;
  neighbour.ranks.resize(letter.size() / sizeof(Sign));
  for (std::size_t i = 0; i < neighbour.ranks.size(); ++i) {
    Seen& seen = neighbour.ranks[i];
    Sign sign;
    std::memcpy(&sign, letter.data() + i * sizeof sign, sizeof sign);
    const bool still = sign.rank == seen.sign.rank && sign.beats == seen.sign.beats;
    if (!still || sign.waiting > 0 || sign.place < 0) seen.stalled_s = 0.0;
    seen.sign = sign;
  }
}

/// Processes of this host that are gone, and did not say that they would be. One that was itself
/// held up may have letters that it has not opened yet.
void Watch::look_for_dead() {
  const Address& own = addresses_[process_];
  for (int p = 0; p < processes_; ++p) {
    if (p == process_ || addresses_[p].host != own.host || endings_.has_told(p)) continue;
    if (kill(static_cast<pid_t>(addresses_[p].pid), 0) == 0 || errno != ESRCH) continue;
    open_letters();
    if (!endings_.has_told(p)) find(p, "died");
  }
}

/// Opens what others sent before they were gone, or waits until the thread that is at it has.
void Watch::open_letters() {
  const double start = now_seconds();
  // The first time that the box is found empty may have begun before.
  for (const std::int64_t polls = job_.mail.emptied();
       job_.mail.emptied() < polls + 2 && now_seconds() - start < kLetters;) {
    if (!job_.mail.poll()) std::this_thread::yield();
  }
}

/// Seconds since the last look that count: none unless all letters were opened meanwhile.
double Watch::looked() {
  const double now = now_seconds();
  const double passed = now - std::exchange(looked_, now);
  const std::int64_t polls = job_.mail.emptied();
  return std::exchange(looked_polls_, polls) == polls ? 0.0 : std::min(passed, kMostCounted);
}

void Watch::look_for_hung() {
  const double passed = looked();
  for (int p = 0; p < processes_; ++p) {
    std::string what;
    {
      const std::lock_guard lock(mutex_);
      Neighbour& neighbour = neighbours_[p];
      if (neighbour.heard) neighbour.silent_s += passed;
      for (Seen& seen : neighbour.ranks) seen.stalled_s += passed;
      what = stalled(neighbour);
    }
    if (!what.empty() && !endings_.has_told(p)) find(p, what);
  }
}

/// How it shows that a process hangs; empty where it does not.
std::string Watch::stalled(const Neighbour& neighbour) const {
  const double patience = patience_;
  if (neighbour.silent_s > patience) {
    return fmt::format("has shown no sign of life for {:.1f} s", neighbour.silent_s);
  }
  for (const Seen& seen : neighbour.ranks) {
    if (seen.stalled_s > patience) {
      return fmt::format("has made no progress for {:.1f} s", seen.stalled_s);
    }
  }
  return "";
}

/// Fails everything, with what is known of the process's ranks.
void Watch::find(int process, const std::string& what) {
  std::string finding;
  {
    const std::lock_guard lock(mutex_);
    if (!finding_.empty()) return;
    finding_ = finding = fmt::format("{} {}", describe(process), what);
    found_ = now_seconds();
  }
  endings_.bury(process);
  job_.failures.fail_all(finding);
}

std::string Watch::describe(int process) const {
  std::string ranks;
  for (const Seen& seen : neighbours_[process].ranks) {
    ranks += fmt::format("{}rank {} on {} in {}", ranks.empty() ? "" : ", ", seen.sign.rank,
                         seen.sign.device.data(), seen.sign.phase.data());
    if (seen.sign.place >= 0) ranks += fmt::format(" {}", seen.sign.place);
  }
  const Address& address = addresses_[process];
  return fmt::format("process {} of host {} (pid {}{}{})", process, address.host.data(),
                     address.pid, ranks.empty() ? "" : "; ", ranks);
}

std::string Watch::finding() {
  look_for_dead();
  const std::lock_guard lock(mutex_);
  return finding_;
}

}  // namespace spdnn::comm
