// Offers, claims and assignments, under one lock: they happen at segment ends only.
#include "roster.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

namespace spdnn {

std::vector<double> Roster::member_speeds(int leader, const std::vector<Helper>& helpers,
                                          const std::vector<double>& speeds) {
  constexpr double kLeast = 1e-30;  // a rank that was to have nothing may still be helped
  std::vector<double> of_members = {std::max(speeds[leader], kLeast)};
  for (const Helper& helper : helpers) {
    of_members.push_back(std::max(speeds[helper.rank], kLeast));
  }
  return of_members;
}

SharedRoster::SharedRoster(std::vector<double> speeds, bool spin, OnIdle on_idle)
    : speeds_(std::move(speeds)),
      by_speed_(speeds_.size()),
      spin_(spin),
      on_idle_(std::move(on_idle)),
      places_(speeds_.size()) {
  std::iota(by_speed_.begin(), by_speed_.end(), 0);
  std::stable_sort(by_speed_.begin(), by_speed_.end(),
                   [this](int a, int b) { return speeds_[a] > speeds_[b]; });
}

/// Some ranks wait now, or no longer.
void SharedRoster::note_idle() {
  IdleRanks idle;
  for (const int rank : by_speed_) {
    if (places_[rank].idle && idle.count++ == 0) idle.fastest = speeds_[rank];
  }
  idle_count_ = static_cast<int>(idle.count);
  fastest_idle_ = idle.fastest;
  if (on_idle_) on_idle_(idle);
}

void SharedRoster::check() const {
  if (failure_) throw CommError(*failure_);
}

std::optional<Assignment> SharedRoster::offer(int rank, Slots* landing) {
  std::unique_lock lock(mutex_);
  check();
  Place& place = places_[rank];
  place.idle = true;
  place.landing = landing;
  place.remaining = 0.0;
  note_idle();
  if (idle() == static_cast<int>(places_.size())) over_ = true;
  changed_.notify_all();
  changed_.wait(lock, [&] { return over_ || failure_ || place.assignment; });
  check();
  return std::exchange(place.assignment, std::nullopt);
}

void SharedRoster::tell_remaining(int rank, double seconds) {
  places_[rank].remaining.store(seconds, std::memory_order_relaxed);
}

Roster::Helper SharedRoster::take(int rank) {
  places_[rank].idle = false;
  return {rank, places_[rank].landing};
}

std::vector<Roster::Helper> SharedRoster::claim(int rank, std::size_t most) {
  const std::lock_guard lock(mutex_);
  check();
  double all = 0.0;
  for (const Place& place : places_) all += place.remaining.load(std::memory_order_relaxed);
  const double own = places_[rank].remaining.load(std::memory_order_relaxed);
  const double part = all > 0.0 ? std::ceil(own / all * idle_count_.load()) : 1.0;
  std::vector<Helper> helpers;
  for (const int r : by_speed_) {
    if (helpers.size() >= std::min(most, static_cast<std::size_t>(part))) break;
    if (places_[r].idle) helpers.push_back(take(r));
  }
  if (!helpers.empty()) note_idle();
  return helpers;
}

std::vector<Roster::Helper> SharedRoster::claim_all(int rank) {
  std::unique_lock lock(mutex_);
  changed_.wait(
      lock, [&] { return failure_ || idle_count_.load() + 1 == static_cast<int>(places_.size()); });
  check();
  std::vector<Helper> helpers;
  for (int r = 0; r < static_cast<int>(places_.size()); ++r) {
    if (r != rank) helpers.push_back(take(r));
  }
  note_idle();
  return helpers;
}

void SharedRoster::give(const Helper& helper, const Assignment& assignment) {
  {
    const std::lock_guard lock(mutex_);
    places_[helper.rank].assignment = assignment;
  }
  changed_.notify_all();
}

std::shared_ptr<Crew> SharedRoster::form_crew(int leader, const std::vector<Helper>& helpers,
                                              const std::vector<double>& speeds) {
  const std::vector<double> of_members = member_speeds(leader, helpers, speeds);
  const auto crew = std::make_shared<SharedCrew>(of_members, spin_);
  {
    const std::lock_guard lock(mutex_);
    check();
    places_[leader].crew = crew;
  }
  for (std::size_t h = 0; h < helpers.size(); ++h) give(helpers[h], Membership{crew, h + 1});
  return crew;
}

void SharedRoster::abort(const std::string& reason) {
  const std::lock_guard lock(mutex_);
  if (!failure_) failure_ = reason;
  for (Place& place : places_) {
    if (place.crew != nullptr) place.crew->abort(reason);
  }
  changed_.notify_all();
}

}  // namespace spdnn
