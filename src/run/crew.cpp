// The meetings of a crew, and how its rows are shared.
#include "crew.hpp"

#include <algorithm>

#include "spdnn/pace.hpp"
#include "spdnn/plan.hpp"
#include "spdnn/spin.hpp"

namespace spdnn {
namespace {

/// Pieces into which rows are cut, for shares of them.
constexpr std::int32_t kPieces = 4096;

}  // namespace

Crew::Crew(const std::vector<double>& speeds, bool spin)
    : members_(speeds.size()), spins_(spin ? kSpins : 0) {
  share_rows(speeds);
}

void Crew::share_rows(const std::vector<double>& speeds) {
  const std::vector<Range> shares = split_in_proportion(kPieces, speeds);
  for (std::size_t m = 0; m < members_.size(); ++m) {
    members_[m].rows = {static_cast<std::int32_t>(shares[m].begin),
                        static_cast<std::int32_t>(shares[m].end), kPieces};
  }
}

void Crew::rebalance() {
  std::vector<double> speeds;
  for (const Member& member : members_) {
    const auto pieces = static_cast<double>(member.rows.end - member.rows.begin);
    // A member keeps a piece at least, or nothing would tell when it has become faster.
    speeds.push_back(std::max(pieces, 1.0) / std::max(member.busy_s, 1e-9));
  }
  share_rows(speeds);
}

void Crew::begin(const CrewStep& step, Pace& pace) {
  step_ = step;
  meet(pace);
}

void Crew::dismiss(Pace& pace) {
  over_ = true;
  meet(pace);
}

bool Crew::next(Pace& pace) {
  meet(pace);
  return !over_;
}

void Crew::meet(Pace& pace) {
  pace.begin_wait();
  const std::uint32_t meeting = meetings_.load(std::memory_order_acquire);
  check();  // after the load: an abort from here on ends this meeting
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == members_.size()) {
    arrived_.store(0, std::memory_order_relaxed);
    meetings_.fetch_add(1, std::memory_order_acq_rel);
    meetings_.notify_all();
  } else {
    await_change(meetings_, meeting, spins_);
  }
  pace.end_wait();
  check();
}

void Crew::check() const {
  if (!failed_.load(std::memory_order_acquire)) return;
  const std::lock_guard lock(mutex_);
  throw CommError(failure_);
}

void Crew::tell(std::size_t member, std::uint8_t* alive, double busy_s) {
  members_[member].alive = alive;
  members_[member].busy_s = busy_s;
}

void Crew::combine_alive(std::uint8_t* alive) const {
  for (const Member& member : members_) {
    if (member.alive == alive) continue;
    for (std::int64_t i = 0; i < step_.images; ++i) alive[i] |= member.alive[i];
  }
}

void Crew::abort(const std::string& reason) {
  {
    const std::lock_guard lock(mutex_);
    failure_ = reason;
  }
  failed_.store(true, std::memory_order_release);
  meetings_.fetch_add(1, std::memory_order_acq_rel);
  meetings_.notify_all();
}

}  // namespace spdnn
