// How a crew's rows are shared, and the meetings of threads.
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

Crew::Crew(const std::vector<double>& speeds) : rows_(speeds.size()) { share_rows(speeds); }

void Crew::share_rows(const std::vector<double>& speeds) {
  const std::vector<Range> shares = split_in_proportion(kPieces, speeds);
  for (std::size_t m = 0; m < rows_.size(); ++m) {
    rows_[m] = {static_cast<std::int32_t>(shares[m].begin),
                static_cast<std::int32_t>(shares[m].end), kPieces};
  }
}

void Crew::rebalance(const std::vector<double>& busy_s) {
  std::vector<double> speeds;
  for (std::size_t m = 0; m < rows_.size(); ++m) {
    const auto pieces = static_cast<double>(rows_[m].end - rows_[m].begin);
    // A member keeps a piece at least, or nothing would tell when it has become faster.
    speeds.push_back(std::max(pieces, 1.0) / std::max(busy_s[m], 1e-9));
  }
  share_rows(speeds);
}

SharedCrew::SharedCrew(const std::vector<double>& speeds, bool spin)
    : Crew(speeds), members_(speeds.size()), spins_(spin ? kSpins : 0) {}

void SharedCrew::rebalance() {
  std::vector<double> busy_s;
  for (const Member& member : members_) busy_s.push_back(member.busy_s);
  Crew::rebalance(busy_s);
}

void SharedCrew::begin(const CrewStep& step, const CrewRoom& /*room*/, Pace& pace) {
  step_ = step;
  meet(pace);
}

void SharedCrew::dismiss(Pace& pace) {
  over_ = true;
  meet(pace);
}

bool SharedCrew::next(const CrewRoom& /*room*/, Pace& pace) {
  meet(pace);
  return !over_;
}

void SharedCrew::meet(Pace& pace) {
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

void SharedCrew::check() const {
  if (!failed_.load(std::memory_order_acquire)) return;
  const std::lock_guard lock(mutex_);
  throw CommError(failure_);
}

void SharedCrew::tell(std::size_t member, const std::uint8_t* alive, double busy_s) {
  members_[member] = {alive, busy_s};
}

void SharedCrew::combine_alive(std::uint8_t* alive) const {
  for (const Member& member : members_) {
    if (member.alive == alive) continue;
    for (std::int64_t i = 0; i < step_.images; ++i) alive[i] |= member.alive[i];
  }
}

void SharedCrew::abort(const std::string& reason) {
  {
    const std::lock_guard lock(mutex_);
    failure_ = reason;
  }
  failed_.store(true, std::memory_order_release);
  meetings_.fetch_add(1, std::memory_order_acq_rel);
  meetings_.notify_all();
}

}  // namespace spdnn
