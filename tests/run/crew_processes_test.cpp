// Crews of ranks of several processes, two of them in the first: the bits of one rank. Started by
// mpirun. With `die` as the argument, the last process kills itself within a crew, and the others
// are to end, one of them with a message; crew_death_test.py looks at that.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>

#include "crews.hpp"
#include "help_desk.hpp"

namespace spdnn {
namespace {

using test::CrewNetwork;
using test::CrewRun;

World* the_world = nullptr;

/// A rank for each process, and one more in the first.
Job make_job() {
  const std::int64_t process = the_world->processes().rank();
  Job job = {*the_world, {}, {}};
  job.specs.resize(static_cast<std::size_t>(the_world->processes().size()) + 1);
  job.here = process == 0 ? Range{0, 2} : Range{process + 1, process + 2};
  return job;
}

/// The results of this process's ranks, in `results`, as of all ranks.
void run_processes(
    const CrewNetwork& network, const Job& job, const Plan& plan, std::vector<PassResult>& results,
    const std::function<std::unique_ptr<Roster>(std::unique_ptr<Roster>, int)>& wrap) {
  const CrewRun run(network, plan);
  HelpDesk desk(job, plan.speeds);
  job.run_ranks([&](Communicator& comm) {
    const auto rank = static_cast<std::size_t>(comm.rank());
    const auto make_roster = [&](const PassContext& context, Communicator& with, Device& device) {
      return wrap(std::make_unique<DeskRoster>(desk, context, with, device), with.rank());
    };
    results[rank] = test::run_crew_rank(run, comm, job.specs[rank], make_roster);
    comm.barrier();
  });
}

std::unique_ptr<Roster> as_it_is(std::unique_ptr<Roster> roster, int /*rank*/) { return roster; }

TEST(CrewProcesses, GiveTheBitsOfOneRank) {
  for (std::uint64_t round = 0; round < 12; ++round) {
    std::mt19937_64 random(round);
    const auto batch = 1 + static_cast<std::int64_t>(random() % 16);
    const CrewNetwork network = test::crew_network(
        6 + static_cast<std::int64_t>(random() % 30),
        1 + static_cast<std::int64_t>(random() % (3 * batch)), round % 4 == 3, random);
    Job job = make_job();
    const std::size_t ranks = job.specs.size();
    if (round % 2 == 1) job.specs[random() % ranks].slowdown = 3.0;
    Plan plan = test::crew_plan(network, ranks, batch);
    plan.stream_weights[random() % ranks] = random() % 2 == 0;
    SCOPED_TRACE(fmt::format("round {}, {} ranks, {} images in batches of {}", round, ranks,
                             network.images.rows(), batch));
    std::vector<PassResult> all(ranks);
    run_processes(network, job, plan, all, as_it_is);
    if (job.leads()) {
      const PassResult one = test::run_alone(network, batch);
      EXPECT_EQ(all[0].ids, one.ids);
      EXPECT_TRUE(all[0].outputs == one.outputs) << "outputs differ";
      EXPECT_EQ(all[0].images_per_layer, one.images_per_layer);
      EXPECT_EQ(all[0].helped_segments, 0);
    }
    for (std::int64_t rank = std::max<std::int64_t>(job.here.begin, 1); rank < job.here.end;
         ++rank) {
      EXPECT_GT(all[rank].helped_segments, 0);
      EXPECT_TRUE(all[rank].ids.empty());
    }
    if (HasFailure()) return;
  }
}

/// A crew's end that ends its process in the middle of the third step.
class DyingCrew final : public Crew {
 public:
  explicit DyingCrew(std::shared_ptr<Crew> crew)
      : Crew(std::vector<double>(crew->size(), 1.0)), crew_(std::move(crew)) {}
  void begin(const CrewStep& step, const CrewRoom& room, Pace& pace) override {
    crew_->begin(step, room, pace);
  }
  void dismiss(Pace& pace) override { crew_->dismiss(pace); }
  [[nodiscard]] bool next(const CrewRoom& room, Pace& pace) override {
    const bool more = crew_->next(room, pace);
    step_ = crew_->step();
    for (std::size_t m = 0; m < size(); ++m) rows_[m] = crew_->rows(m);
    ++steps_;
    return more;
  }
  void finish_layer(const CrewLayer& layer, const CrewRoom& room, Pace& pace) override {
    if (steps_ == 3) {
      fmt::print(stderr, "killed at {:.3f}\n", now_seconds());
      kill(getpid(), SIGKILL);
    }
    crew_->finish_layer(layer, room, pace);
  }
  void tell(std::size_t member, const std::uint8_t* alive, double busy_s) override {
    crew_->tell(member, alive, busy_s);
  }
  void combine_alive(std::uint8_t* alive) const override { crew_->combine_alive(alive); }
  void rebalance() override { crew_->rebalance(); }

 private:
  std::shared_ptr<Crew> crew_;
  int steps_ = 0;
};

/// Lets its rank die in a crew.
class DyingRoster final : public Roster {
 public:
  explicit DyingRoster(std::unique_ptr<Roster> roster) : roster_(std::move(roster)) {}
  [[nodiscard]] std::optional<Assignment> offer(int rank, Slots* landing) override {
    std::optional<Assignment> given = roster_->offer(rank, landing);
    if (given && std::holds_alternative<Membership>(*given)) {
      auto& place = std::get<Membership>(*given);
      place.crew = std::make_shared<DyingCrew>(place.crew);
    }
    return given;
  }
  [[nodiscard]] int idle() const override { return roster_->idle(); }
  [[nodiscard]] double fastest_idle() const override { return roster_->fastest_idle(); }
  void tell_remaining(int rank, double seconds) override { roster_->tell_remaining(rank, seconds); }
  [[nodiscard]] std::vector<Helper> claim(int rank, std::size_t most) override {
    return roster_->claim(rank, most);
  }
  [[nodiscard]] std::vector<Helper> claim_all(int rank) override {
    return roster_->claim_all(rank);
  }
  void give(const Helper& helper, const Assignment& assignment) override {
    roster_->give(helper, assignment);
  }
  [[nodiscard]] std::shared_ptr<Crew> form_crew(int leader, const std::vector<Helper>& helpers,
                                                const std::vector<double>& speeds) override {
    return roster_->form_crew(leader, helpers, speeds);
  }
  void abort(const std::string& reason) override { roster_->abort(reason); }

 private:
  std::unique_ptr<Roster> roster_;
};

void die_in_crew() {
  std::mt19937_64 random(2);
  CrewNetwork network = test::crew_network(60, 9, false, random);
  for (Layer& layer : network.model.layers) std::get<SparseLinear>(layer).bias = {0.05F};
  const Job job = make_job();
  std::vector<PassResult> all(job.specs.size());
  const auto last = static_cast<int>(job.specs.size()) - 1;
  run_processes(network, job, test::crew_plan(network, job.specs.size(), 16), all,
                [&](std::unique_ptr<Roster> roster, int rank) -> std::unique_ptr<Roster> {
                  if (rank != last) return roster;
                  return std::make_unique<DyingRoster>(std::move(roster));
                });
}

/// Ends as `spdnn-gpu run` does.
int end_well(const std::exception& error) {
  const World::Ending ending = the_world->fail(error);
  if (ending.speaks) {
    fmt::print(stderr, "error: {}\n", ending.reason.empty() ? error.what() : ending.reason);
  }
  return static_cast<int>(ending.status);
}

int run_tests(bool dies) {
  WorldSpec spec;
  spec.last_resort = [](const std::string& reason) {
    if (!reason.empty()) fmt::print(stderr, "error: {}\n", reason);
    std::_Exit(static_cast<int>(ExitStatus::failure));
  };
  const std::unique_ptr<World> world = open_world(spec);
  the_world = world.get();
  if (!dies) return RUN_ALL_TESTS();
  try {
    die_in_crew();
  } catch (const std::exception& error) {
    return end_well(error);
  }
  return 0;
}

}  // namespace
}  // namespace spdnn

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  return spdnn::run_tests(argc > 1 && std::string_view(argv[1]) == "die");
}
