// A discrete-event simulation of `Pass`, `Flow`, `ImageQueue`, `Roster` and `Crew`.
#include "stragglers/simulate.hpp"

#include <algorithm>
#include <cmath>
#include <queue>
#include <tuple>

#include "stragglers/simulated_queue.hpp"
#include "stragglers/simulated_rank.hpp"

namespace spdnn::bench {
namespace {

/// Images are packed once this part of them has died; as in `Flow`.
constexpr double kWorthPacking = 0.05;
/// Pieces of rows that a member of a crew is left with at least; as in `Crew`.
constexpr double kLeastShare = 1.0 / 4096.0;

enum class Event : std::uint8_t { choose, begin_segment, end_segment };

class Simulation {
 public:
  Simulation(const Plan& plan, const Images& images, const std::vector<double>& slowdowns,
             const StepCosts& costs)
      : plan_(plan), images_(images), costs_(costs), queue_(plan), ranks_(slowdowns.size()) {
    for (std::size_t r = 0; r < ranks_.size(); ++r) ranks_[r].slowdown = slowdowns[r];
    for (const Segment& segment : plan.segments) layers_ += segment.count;
  }

  SimulatedRun run() {
    start();
    while (!events_.empty()) {
      const auto [time, order, rank, event] = events_.top();
      events_.pop();
      switch (event) {
        case Event::choose: choose(rank, time); break;
        case Event::begin_segment: begin_segment(rank, time); break;
        case Event::end_segment: end_segment(rank, time); break;
      }
    }
    SimulatedRun run;
    run.seconds = end_ + costs_.finish_s;
    for (Rank& rank : ranks_) {
      rank.result.busy_s = rank.ended_s - rank.waited_s;
      rank.result.idle_s = run.seconds - rank.result.busy_s;
      run.ranks.push_back(rank.result);
    }
    return run;
  }

 private:
  [[nodiscard]] std::int64_t layers_from(std::size_t segment) const {
    return layers_ - plan_.segments[segment].first;
  }
  [[nodiscard]] static std::int64_t groups_of(std::size_t images) {
    return (static_cast<std::int64_t>(images) + kSideBySide - 1) / kSideBySide;
  }
  [[nodiscard]] const WorkCosts& work_of(const Rank& rank) const {
    return rank.slowdown > 1.0 ? costs_.drowsy : costs_.steady;
  }
  [[nodiscard]] static double seconds_of(const WorkCosts& work, std::size_t segment,
                                         std::int64_t groups) {
    const std::vector<double>& known = work.segment_s[segment];
    const auto last = std::ssize(known) - 1;
    if (groups <= last) return known[groups];
    return known[last] * static_cast<double>(groups) / static_cast<double>(last);
  }
  /// What a sleep adds to a member of a crew, which sleeps after each layer: its waking. That what
  /// the layer reads is not in its cache is in `fetch_s`.
  [[nodiscard]] double waking_of(const Rank& rank, std::size_t segment) const {
    return std::max(seconds_of(work_of(rank), segment, 1) - seconds_of(costs_.steady, segment, 1),
                    0.0);
  }

  void schedule(double time, int rank, Event event) {
    events_.emplace(time, order_++, rank, event);
  }

  /// All ranks prepare, and meet; a slowed rank owes the time its work should have taken.
  void start() {
    const auto count = static_cast<double>(ranks_.size());
    const double prepared = costs_.prepare_alone_s + costs_.prepare_shared_s / count;
    double all = prepared;
    for (const Rank& rank : ranks_) all = std::max(all, prepared * rank.slowdown);
    std::vector<int> helpers;
    for (int r = 0; r < std::ssize(ranks_); ++r) {
      const double ready = prepared * ranks_[r].slowdown;
      ranks_[r].wait_start_s = ready;
      if (plan_.helping != Helping::rows) schedule(ready, r, Event::choose);
      if (r > 0) helpers.push_back(r);
    }
    if (plan_.helping != Helping::rows) return;
    ranks_[0].end_wait(all);
    form_crew(0, std::move(helpers));
    schedule(all, 0, Event::choose);
  }

  /// What a rank does next: a full pool, input images, any pool, help, or nothing.
  void choose(int r, double time) {
    Rank& rank = ranks_[r];
    auto pool = rank.full_pool(plan_.batch[r]);
    if (pool == rank.pools.end()) {
      if (const Range range = queue_.take(r); range.size() > 0) return load(r, range, time);
      pool = std::find_if(rank.pools.begin(), rank.pools.end(),
                          [](const auto& entry) { return !entry.second.empty(); });
    }
    if (pool != rank.pools.end()) {
      rank.current = std::exchange(pool->second, {});
      rank.segment = pool->first;
      return begin_segment(r, time);
    }
    end_ = std::max(end_, time);
    if (plan_.helping == Helping::none) {
      rank.ended_s = time;
      return;
    }
    dismiss(r, time);
    rank.idle = true;
    rank.wait_start_s = time;
    rank.remaining_s = 0.0;
    if (std::all_of(ranks_.begin(), ranks_.end(), [](const Rank& each) { return each.idle; })) {
      for (Rank& each : ranks_) {
        each.end_wait(time);
        each.ended_s = time;
      }
    }
  }

  void load(int r, Range range, double time) {
    Rank& rank = ranks_[r];
    const Range share = plan_.images[r];
    rank.result.begun += range.size();
    if (plan_.sharing == Sharing::stealing &&
        (range.begin < share.begin || range.end > share.end)) {
      rank.result.taken_over += range.size();
    }
    rank.current.assign(images_.begin() + range.begin, images_.begin() + range.end);
    rank.segment = 0;
    const double seconds = work_of(rank).load_s * static_cast<double>(range.size());
    schedule(time + rank.slowdown * seconds, r, Event::begin_segment);
  }

  void begin_segment(int r, double time) {
    Rank& rank = ranks_[r];
    time = find_help(r, time);
    rank.step_images = rank.current.size();
    const std::int64_t groups = groups_of(rank.current.size());
    double seconds = 0.0;
    if (groups > 0) {
      seconds = rank.crew.members.empty()
                    ? rank.slowdown * seconds_of(work_of(rank), rank.segment, groups)
                    : run_together(rank, groups);
      rank.image_layers += std::ssize(rank.current) * plan_.segments[rank.segment].count;
      seconds +=
          rank.slowdown * (costs_.step_s + work_of(rank).pack_s * static_cast<double>(pack(r)));
    } else {
      rank.here = true;
    }
    rank.step_s = seconds;
    schedule(time + seconds, r, Event::end_segment);
  }

  void end_segment(int r, double time) {
    Rank& rank = ranks_[r];
    if (plan_.helping == Helping::images_then_rows && rank.step_images > 0 &&
        rank.step_images <= static_cast<std::size_t>(kSideBySide)) {
      judge_crew(r, time);
    }
    ++rank.segment;
    if (rank.here && rank.segment < plan_.segments.size() && !rank.current.empty()) {
      begin_segment(r, time);
    } else {
      choose(r, time);
    }
  }

  /// One segment under a crew; seconds until its last meeting.
  double run_together(Rank& leader, std::int64_t groups) {
    Team& crew = leader.crew;
    const auto layers = static_cast<double>(plan_.segments[leader.segment].count);
    const double alone = seconds_of(costs_.steady, leader.segment, groups);
    const double fetch = costs_.fetch_s * static_cast<double>(groups) * layers;
    std::vector<double> busy;
    for (std::size_t m = 0; m < crew.members.size(); ++m) {
      const double share = crew.shares[m];
      const Rank& rank = ranks_[crew.members[m]];
      busy.push_back(rank.slowdown * (share * alone + (1.0 - share) * fetch +
                                      layers * waking_of(rank, leader.segment)));
    }
    const double meetings = (layers + 1.0) * static_cast<double>(crew.members.size() - 1);
    const double seconds = *std::max_element(busy.begin(), busy.end()) + costs_.meet_s * meetings;
    leader.waited_s += seconds - busy[0];
    for (std::size_t m = 1; m < crew.members.size(); ++m) {
      Rank& helper = ranks_[crew.members[m]];
      helper.waited_s -= busy[m];  // its wait goes on until it is dismissed
      ++helper.result.helped_segments;
    }
    if (plan_.rebalance_rows) {
      std::vector<double> speeds;
      for (std::size_t m = 0; m < busy.size(); ++m) {
        speeds.push_back(std::max(crew.shares[m], kLeastShare) / std::max(busy[m], 1e-9));
      }
      crew.share_rows(speeds);
    }
    return seconds;
  }

  /// Drops the dead of a segment, or sets the living aside; returns how many images were moved.
  std::int64_t pack(int r) {
    Rank& rank = ranks_[r];
    const std::size_t next = rank.segment + 1;
    const auto died = static_cast<std::int32_t>(rank.segment);
    const auto dead = std::count_if(rank.current.begin(), rank.current.end(),
                                    [&](std::int32_t segment) { return segment <= died; });
    const std::int64_t living = std::ssize(rank.current) - dead;
    const std::int64_t may_run =
        plan_.sharing == Sharing::own ? plan_.images[r].size() : std::ssize(images_);
    rank.here = !plan_.pools[r] || next == plan_.segments.size() || 2 * living > plan_.batch[r] ||
                may_run <= plan_.batch[r];
    if (rank.here && next < plan_.segments.size() &&
        static_cast<double>(dead) <= kWorthPacking * static_cast<double>(rank.current.size())) {
      return 0;
    }
    std::erase_if(rank.current, [&](std::int32_t segment) { return segment <= died; });
    if (!rank.here) {
      Images& pool = rank.pools[next];
      pool.insert(pool.end(), rank.current.begin(), rank.current.end());
      rank.current.clear();
    }
    return living;
  }

  /// Hands work to idle ranks before a segment; returns when that is done.
  double find_help(int r, double time) {
    Rank& rank = ranks_[r];
    if (plan_.helping != Helping::images_then_rows || rank.segment == 0 || rank.image_layers == 0) {
      return time;
    }
    std::int64_t work = std::ssize(rank.current) * layers_from(rank.segment);
    for (const auto& [segment, pool] : rank.pools) work += std::ssize(pool) * layers_from(segment);
    rank.remaining_s =
        (time - rank.waited_s) / static_cast<double>(rank.image_layers) * static_cast<double>(work);
    const std::int64_t parts = groups_of(rank.current.size());
    if (parts > 1) dismiss(r, time);
    if (idle_ranks() == 0 || rank.remaining_s < plan_.worth_help_s) return time;
    for (auto& [segment, pool] : rank.pools) {
      if (pool.empty()) continue;
      const std::vector<int> helper = claim(r, 1);
      if (helper.empty()) break;
      time = hand_over(r, helper[0], segment, std::exchange(pool, {}), time);
    }
    if (parts > 1) return give_images(r, parts, time);
    if (rank.crew.members.empty() && rank.crews_pay && rank.alone_rate > 0.0) {
      form_crew(r, claim(r, ranks_.size()));
    }
    return time;
  }

  double give_images(int r, std::int64_t parts, double time) {
    Rank& rank = ranks_[r];
    const std::vector<int> helpers = claim(r, static_cast<std::size_t>(parts - 1));
    const auto sharers = std::ssize(helpers) + 1;
    const auto begin_of = [&, images = std::ssize(rank.current)](std::int64_t sharer) {
      return std::min(images, parts * sharer / sharers * kSideBySide);
    };
    for (std::int64_t h = 1; h < sharers; ++h) {
      const Images given(rank.current.begin() + begin_of(h),
                         rank.current.begin() + begin_of(h + 1));
      time = hand_over(r, helpers[h - 1], rank.segment, given, time);
    }
    rank.current.resize(static_cast<std::size_t>(begin_of(1)));
    return time;
  }

  double hand_over(int from, int to, std::size_t segment, Images images, double time) {
    time += ranks_[from].slowdown * costs_.copy_s * static_cast<double>(images.size());
    Rank& helper = ranks_[to];
    helper.end_wait(time + costs_.wake_s);
    helper.result.taken_over += std::ssize(images);
    helper.current = std::move(images);
    helper.segment = segment;
    schedule(time + costs_.wake_s, to, Event::begin_segment);
    return time;
  }

  [[nodiscard]] std::int64_t idle_ranks() const {
    return std::count_if(ranks_.begin(), ranks_.end(), [](const Rank& rank) { return rank.idle; });
  }

  /// Idle ranks for rank `r`: its part of them by the work that is left, `most` at most.
  std::vector<int> claim(int r, std::size_t most) {
    double all = 0.0;
    for (const Rank& rank : ranks_) all += rank.remaining_s;
    const double part =
        all > 0.0 ? std::ceil(ranks_[r].remaining_s / all * static_cast<double>(idle_ranks()))
                  : 1.0;
    const std::size_t count = std::min(most, static_cast<std::size_t>(part));
    std::vector<int> helpers;
    for (int each = 0; each < std::ssize(ranks_) && helpers.size() < count; ++each) {
      if (!ranks_[each].idle) continue;
      ranks_[each].idle = false;
      helpers.push_back(each);
    }
    return helpers;
  }

  void form_crew(int leader, std::vector<int> helpers) {
    if (helpers.empty()) return;
    helpers.insert(helpers.begin(), leader);
    std::vector<double> speeds;
    speeds.reserve(helpers.size());
    for (const int member : helpers) speeds.push_back(plan_.speeds[member]);
    ranks_[leader].crew.members = std::move(helpers);
    ranks_[leader].crew.share_rows(speeds);
  }

  /// Sends a crew away: its helpers look for work of their own.
  void dismiss(int r, double time) {
    Team& crew = ranks_[r].crew;
    for (std::size_t m = 1; m < crew.members.size(); ++m) {
      ranks_[crew.members[m]].end_wait(time);
      schedule(time, crew.members[m], Event::choose);
    }
    crew = {};
  }

  void judge_crew(int r, double time) {
    Rank& rank = ranks_[r];
    const double rate = costs_.segment_edges[rank.segment] / rank.step_s;
    if (rank.crew.members.empty()) {
      rank.alone_rate = rate;
    } else if (rate < plan_.worth_rows * rank.alone_rate) {
      rank.crews_pay = false;
      dismiss(r, time);
    }
  }

  const Plan& plan_;
  const Images& images_;
  const StepCosts& costs_;
  SimulatedQueue queue_;
  std::vector<Rank> ranks_;
  std::int64_t layers_ = 0;
  double end_ = 0.0;

  using Entry = std::tuple<double, std::int64_t, int, Event>;  ///< when, which came first, whose
  std::priority_queue<Entry, std::vector<Entry>, std::greater<>> events_;
  std::int64_t order_ = 0;
};

}  // namespace

SimulatedRun simulate(const Plan& plan, const std::vector<std::int32_t>& last_segment,
                      const std::vector<double>& slowdowns, const StepCosts& costs) {
  return Simulation(plan, last_segment, slowdowns, costs).run();
}

}  // namespace spdnn::bench
