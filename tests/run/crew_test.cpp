// Crews whose members send one another their rows: the bits of one rank, whatever the layers are.
// The members are threads here; `crew_processes_test` runs the same in processes.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "crew_choice.hpp"
#include "crews.hpp"
#include "group.hpp"
#include "message_crew.hpp"
#include "spdnn/pace.hpp"

namespace spdnn {
namespace {

using test::CrewNetwork;
using test::CrewRun;

/// Threads that form crews by messages, as if they had no memory in common.
class MessageRoster final : public Roster {
 public:
  explicit MessageRoster(SharedRoster& all) : all_(all) {}
  [[nodiscard]] std::optional<Assignment> offer(int rank, Slots* landing) override {
    return all_.offer(rank, landing);
  }
  [[nodiscard]] int idle() const override { return all_.idle(); }
  [[nodiscard]] double fastest_idle() const override { return all_.fastest_idle(); }
  void tell_remaining(int rank, double seconds) override { all_.tell_remaining(rank, seconds); }
  [[nodiscard]] std::vector<Helper> claim(int rank, std::size_t most) override {
    return all_.claim(rank, most);
  }
  [[nodiscard]] std::vector<Helper> claim_all(int rank) override { return all_.claim_all(rank); }
  void give(const Helper& helper, const Assignment& assignment) override {
    all_.give(helper, assignment);
  }
  [[nodiscard]] std::shared_ptr<Crew> form_crew(int leader, const std::vector<Helper>& helpers,
                                                const std::vector<double>& speeds) override {
    const auto group = std::make_shared<comm::Group>(static_cast<int>(helpers.size()) + 1);
    const std::vector<double> unknown(helpers.size() + 1, 1.0);
    const auto end = [&](std::size_t member, const std::vector<double>& of_members) {
      return std::make_shared<MessageCrew>(
          comm::make_in_process(group, static_cast<int>(member), {}), of_members);
    };
    for (std::size_t h = 0; h < helpers.size(); ++h) {
      give(helpers[h], Membership{end(h + 1, unknown), h + 1});
    }
    return end(0, member_speeds(leader, helpers, speeds));
  }
  void abort(const std::string& reason) override { all_.abort(reason); }

 private:
  SharedRoster& all_;
};

std::vector<PassResult> run_threads(const CrewNetwork& network, const Plan& plan,
                                    const std::vector<DeviceSpec>& specs) {
  const auto ranks = static_cast<int>(specs.size());
  const CrewRun run(network, plan);
  SharedRoster all(plan.speeds, false);
  std::vector<PassResult> results(specs.size());
  run_ranks(ranks, [&](Communicator& comm) {
    const auto rank = static_cast<std::size_t>(comm.rank());
    results[rank] = test::run_crew_rank(run, comm, specs[rank],
                                        [&](const PassContext&, Communicator&, Device&) {
                                          return std::make_unique<MessageRoster>(all);
                                        });
  });
  return results;
}

/// Rank 0 found what one rank finds, and all others helped it as often.
void expect_crew(const PassResult& one, const std::vector<PassResult>& all) {
  EXPECT_EQ(all[0].ids, one.ids);
  EXPECT_TRUE(all[0].outputs == one.outputs) << "outputs differ";
  EXPECT_EQ(all[0].images_per_layer, one.images_per_layer);
  EXPECT_GT(all[1].helped_segments, 0);
  for (std::size_t rank = 1; rank < all.size(); ++rank) {
    EXPECT_TRUE(all[rank].ids.empty());
    EXPECT_EQ(all[rank].helped_segments, all[1].helped_segments);
  }
}

TEST(MessageCrew, GivesTheBitsOfOneRank) {
  std::int64_t dead = 0;
  for (std::uint64_t round = 0; round < 24; ++round) {
    std::mt19937_64 random(round);
    const bool planes = round % 4 == 3;
    // Up to three batches, one after the other: the crew goes on with each.
    const auto batch = 1 + static_cast<std::int64_t>(random() % 16);
    const CrewNetwork network =
        test::crew_network(6 + static_cast<std::int64_t>(random() % 30),
                           1 + static_cast<std::int64_t>(random() % (3 * batch)), planes, random);
    const PassResult one = test::run_alone(network, batch);
    std::vector<DeviceSpec> specs(2 + round % 3);
    if (round % 2 == 1) specs[random() % specs.size()].slowdown = 3.0;
    Plan plan = test::crew_plan(network, specs.size(), batch);
    plan.stream_weights[random() % specs.size()] = random() % 2 == 0;
    SCOPED_TRACE(fmt::format("round {}, {} ranks, {} images in batches of {}", round, specs.size(),
                             network.images.rows(), batch));
    expect_crew(one, run_threads(network, plan, specs));
    if (HasFailure()) return;
    dead += network.images.rows() - std::ssize(one.ids);
  }
  EXPECT_GT(dead, 0);  // images went, and others took their places
}

/// What a layer of ones is to its members: each writes its rank in its rows.
TEST(MessageCrew, SharesRowsByTheSpeedsItsMembersHad) {
  constexpr std::int64_t kRows = 4096;
  constexpr std::int64_t kImages = 3;
  run_ranks(3, [&](Communicator& comm) {
    const std::unique_ptr<Device> device = open_device({});
    const std::unique_ptr<Stream> stream = device->make_stream();
    const std::int64_t width = panel_width(device->info());
    std::vector<float> buffers[2];
    for (auto& buffer : buffers) buffer.assign(static_cast<std::size_t>(kRows * width), -1.0F);
    const CrewRoom room = {*stream, width, {buffers[0].data(), buffers[1].data()}};
    MessageCrew crew(comm.split(0, comm.rank()), {1.0, 1.0, 2.0});
    const auto member = static_cast<std::size_t>(comm.rank());
    Pace pace(1.0);
    SpmmKernel<float> in_order = {};
    std::uint8_t alive[3] = {};
    alive[2 - member] = 1;
    const auto run_step = [&] {
      float* to = crew.step().to;
      const Panels<float> y = {to, kRows, kImages, width, nullptr};
      const RowShare rows = crew.rows(member);
      for (std::int64_t row = kRows * rows.begin / rows.of; row < kRows * rows.end / rows.of;
           ++row) {
        for (std::int64_t i = 0; i < kImages; ++i) y.at(row, i) = static_cast<float>(member);
      }
      crew.tell(member, alive, member == 0 ? 3.0 : static_cast<double>(member));
      crew.finish_layer({&in_order, nullptr, kRows, y}, room, pace);
      std::vector<std::int64_t> counts(3);
      for (std::int64_t row = 0; row < kRows; ++row) {
        for (std::int64_t i = 0; i < kImages; ++i) {
          ++counts[static_cast<std::size_t>(y.at(row, i))];
        }
      }
      return counts;
    };
    if (member == 0) {
      for (int step = 0; step < 2; ++step) {
        crew.begin({0, buffers[0].data(), buffers[1].data(), kImages, kRows, step}, room, pace);
        const auto counts = run_step();
        // First as the leader was told, then speeds of 1/3, 1 and 1.
        EXPECT_NEAR(static_cast<double>(counts[0]), kImages * kRows / (step == 0 ? 4.0 : 7.0), 3.0);
        std::uint8_t all[3] = {};
        crew.combine_alive(all);
        EXPECT_EQ(std::vector<int>(all, all + 3), std::vector<int>(3, 1));
        crew.rebalance();
      }
      crew.dismiss(pace);
    } else {
      while (crew.next(room, pace)) static_cast<void>(run_step());
    }
  });
}

TEST(MessageCrew, EndsWhenAMemberFails) {
  EXPECT_THROW(run_ranks(3,
                         [&](Communicator& comm) {
                           MessageCrew crew(comm.split(0, comm.rank()), {1.0, 1.0, 1.0});
                           if (comm.rank() == 2) throw SystemError("the disk is full");
                           const std::unique_ptr<Device> device = open_device({});
                           const std::unique_ptr<Stream> stream = device->make_stream();
                           Pace pace(1.0);
                           const CrewRoom room = {*stream, 32, {}};
                           if (comm.rank() == 0) crew.dismiss(pace);
                           static_cast<void>(crew.next(room, pace));
                         }),
               SystemError);
}

TEST(MessageCrew, MeasuresWhatItsMessagesTake) {
  run_ranks(2, [](Communicator& comm) {
    const std::unique_ptr<Device> device = open_device({});
    const MessageCost cost = measure_messages(comm, *device);
    EXPECT_GT(cost.latency_s, 0.0);
    EXPECT_GE(cost.seconds_per_row, 0.0);
    EXPECT_GE(cost.seconds_per_byte, 0.0);
    EXPECT_LT(cost.seconds_per_byte, 1e-3);
  });
}

/// 120 layers of 65,536 neurons, 3 ms each, and 10 GB/s between the ranks.
constexpr CrewWork kWide = {0.36, 120, 120 * 65536, 65536, 4};
constexpr MessageCost kMessages = {30e-6, 1e-9, 1e-10};

TEST(ChooseHelpers, TakesThoseWhoSaveMoreThanTheirMessagesCost) {
  const std::vector<double> equal(4, 1.0);
  EXPECT_EQ(choose_helpers(kWide, equal, 0, 3, kMessages, 1.1), 3U);
  EXPECT_EQ(choose_helpers(kWide, equal, 0, 2, kMessages, 1.1), 2U);
  EXPECT_EQ(choose_helpers(kWide, equal, 0, 0, kMessages, 1.1), 0U);
  // 1024 neurons: 30 µs a layer, no less than a message.
  const CrewWork narrow = {120 * 30e-6, 120, 120 * 1024, 1024, 4};
  EXPECT_EQ(choose_helpers(narrow, equal, 0, 3, kMessages, 1.1), 0U);
  EXPECT_GT(choose_helpers(narrow, equal, 0, 3, {}, 1.1), 0U);
  // The same compute with 16 images, over a link of 100 MB/s.
  CrewWork many = kWide;
  many.images = 16;
  EXPECT_EQ(choose_helpers(many, equal, 0, 3, {30e-6, 1e-9, 1e-8}, 1.1), 0U);
  EXPECT_EQ(choose_helpers(many, equal, 0, 3, kMessages, 1.1), 3U);
}

TEST(ChooseHelpers, GoesByTheSpeedsOfTheOthers) {
  // A fast rank gains little from slow ones, and a slow one much from fast ones.
  const std::vector<double> speeds = {20.0, 1.0, 1.0};
  EXPECT_EQ(choose_helpers(kWide, speeds, 0, 2, kMessages, 1.2), 0U);
  EXPECT_GT(choose_helpers(kWide, speeds, 1, 2, kMessages, 1.2), 0U);
  EXPECT_LT(seconds_in_crew(kWide, speeds, 1, 1, kMessages),
            seconds_in_crew(kWide, speeds, 0, 1, kMessages));
}

TEST(ChooseHelpers, StopsWhereOneMoreTakesLonger) {
  // Each helper more divides the compute further, and multiplies the messages.
  const std::vector<double> equal(64, 1.0);
  const MessageCost slow = {0.0, 0.0, 3e-10};
  const std::size_t best = choose_helpers(kWide, equal, 0, 63, slow, 1.1);
  EXPECT_GT(best, 1U);
  for (std::size_t helpers = 1; helpers < 64; ++helpers) {
    EXPECT_LE(seconds_in_crew(kWide, equal, 0, best, slow),
              seconds_in_crew(kWide, equal, 0, helpers, slow));
  }
}

TEST(ChooseHelpers, CountsSecondsAsTold) {
  const CrewWork work = {12.0, 10, 1000, 100, 2};
  const std::vector<double> speeds = {1.0, 2.0, 4.0};
  // The leader's share: 1 of 1 + 3. Messages: 14 letters, 1100 rows, and as both members send what
  // they have and receive the rest, all bytes once, beside the inputs.
  EXPECT_NEAR(seconds_in_crew(work, speeds, 0, 1, {}), 3.0, 1e-12);
  EXPECT_NEAR(seconds_in_crew(work, speeds, 0, 1, {1.0, 0.0, 0.0}), 17.0, 1e-12);
  EXPECT_NEAR(seconds_in_crew(work, speeds, 0, 1, {0.0, 1.0, 0.0}), 1103.0, 1e-9);
  EXPECT_NEAR(seconds_in_crew(work, speeds, 0, 1, {0.0, 0.0, 1.0}), 3.0 + 4.0 * 2200.0, 1e-9);
}

/// A crew under a rank that is much slower than an idle one would be held up by it.
TEST(Roster, LastImagesGoToAMuchFasterRank) {
  std::int64_t taken_over = 0;
  for (std::uint64_t round = 0; round < 12; ++round) {
    std::mt19937_64 random(round);
    const auto batch = 1 + static_cast<std::int64_t>(random() % 40);
    const CrewNetwork network =
        test::crew_network(6 + static_cast<std::int64_t>(random() % 30), batch, false, random);
    const PassResult one = test::run_alone(network, batch);
    Plan plan = test::crew_plan(network, 3, batch);
    plan.speeds = {1.0, 0.5, 100.0};
    const std::vector<PassResult> all = run_threads(network, plan, std::vector<DeviceSpec>(3));
    std::vector<std::int64_t> ids;
    std::map<std::int64_t, std::vector<float>> outputs;
    for (const PassResult& rank : all) {
      ids.insert(ids.end(), rank.ids.begin(), rank.ids.end());
      outputs.insert(rank.outputs.begin(), rank.outputs.end());
    }
    std::sort(ids.begin(), ids.end());
    std::vector<std::int64_t> expected = one.ids;
    std::sort(expected.begin(), expected.end());
    EXPECT_EQ(ids, expected);
    EXPECT_TRUE(outputs == one.outputs) << "outputs differ";
    EXPECT_EQ(all[1].taken_over, 0);
    taken_over += all[2].taken_over;
    if (HasFailure()) return;
  }
  EXPECT_GT(taken_over, 0);
}

TEST(Roster, HasTheFastestIdleRankClaimedFirst) {
  std::vector<std::int64_t> told;
  std::vector<double> fastest_told;
  SharedRoster roster({1.0, 2.0, 4.0, 3.0}, false, [&](const IdleRanks& waiting) {
    told.push_back(waiting.count);
    fastest_told.push_back(waiting.fastest);
  });
  EXPECT_EQ(roster.fastest_idle(), 0.0);
  std::vector<std::thread> idle;
  for (const int rank : {1, 2, 3}) {
    idle.emplace_back([&roster, rank] { static_cast<void>(roster.offer(rank, nullptr)); });
  }
  while (roster.idle() < 3) std::this_thread::yield();
  std::vector<int> order;
  std::vector<double> fastest;
  while (roster.idle() > 0) {
    fastest.push_back(roster.fastest_idle());
    for (const Roster::Helper& helper : roster.claim(0, 1)) {
      order.push_back(helper.rank);
      roster.give(helper, Parcel{});
    }
  }
  for (std::thread& thread : idle) thread.join();
  EXPECT_EQ(order, (std::vector<int>{2, 3, 1}));
  EXPECT_EQ(fastest, (std::vector<double>{4.0, 3.0, 2.0}));
  EXPECT_EQ(told, (std::vector<std::int64_t>{1, 2, 3, 2, 1, 0}));
  EXPECT_EQ(std::vector(fastest_told.end() - 4, fastest_told.end()),
            (std::vector<double>{4.0, 3.0, 2.0, 0.0}));
}

TEST(CrewChoice, PartsGoByTheSpeedsOfTheirRanks) {
  const auto shares = [](std::int64_t parts, const std::vector<double>& speeds) {
    std::vector<double> seconds;
    for (const double speed : speeds) seconds.push_back(1.0 / std::max(speed, 1e-30));
    return share_parts(parts, seconds, {});
  };
  using Shares = std::vector<std::int64_t>;
  EXPECT_EQ(shares(4, {1.0, 1.0}), (Shares{2, 2}));
  EXPECT_EQ(shares(5, {1.0, 1.0}), (Shares{3, 2}));
  EXPECT_EQ(shares(2, {1.0, 8.0}), (Shares{0, 2}));
  EXPECT_EQ(shares(9, {1.0, 8.0}), (Shares{1, 8}));
  EXPECT_EQ(shares(2, {8.0, 1.0}), (Shares{2, 0}));
  EXPECT_EQ(shares(3, {0.0, 1.0, 2.0}), (Shares{0, 1, 2}));
  EXPECT_EQ(shares(0, {1.0, 2.0}), (Shares{0, 0}));
}

TEST(CrewChoice, PartsStayWhereHandingThemOverTakesLonger) {
  using Shares = std::vector<std::int64_t>;
  EXPECT_EQ(share_parts(4, {1.0, 1.0}, {0.0, 0.5}), (Shares{3, 1}));  // done after 3 and 1.5
  EXPECT_EQ(share_parts(4, {1.0, 1.0}, {4.0, 0.0}), (Shares{4, 0}));
  EXPECT_EQ(share_parts(4, {1.0, 0.1}, {0.0, 10.0}), (Shares{4, 0}));
  EXPECT_EQ(share_parts(1, {8.0, 1.0}, {1.0, 1.0}), (Shares{0, 1}));  // the last one goes whole
  EXPECT_EQ(share_parts(1, {2.0, 1.0}, {1.0, 1.0}), (Shares{1, 0}));
  // One link for all helpers: the second one's part waits for the first one's.
  EXPECT_EQ(share_parts(4, {2.0, 1.0, 1.0}, {0.0, 1.0}), (Shares{2, 1, 1}));
  EXPECT_EQ(share_parts(4, {2.0, 1.0, 1.0}, {0.0, 3.0}), (Shares{3, 1, 0}));
  const Handing handing = handing_of(1024, {1e-3, 5.0, 1e-6});
  EXPECT_DOUBLE_EQ(handing.first_s, 4e-3);
  EXPECT_DOUBLE_EQ(handing.image_s, 4096e-6);
}

}  // namespace
}  // namespace spdnn
