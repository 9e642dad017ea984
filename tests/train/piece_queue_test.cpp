// Images of a step that go from rank to rank while they compute, on invented times.
#include "piece_queue.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <numeric>
#include <random>
#include <thread>

namespace spdnn::train {
namespace {

constexpr std::int64_t kWidth = 32;
constexpr std::int64_t kFeatures = 3;

/// A rank's images of a step; image i of all ranks has i + 1 in its first feature, and i as its
/// label.
struct Share {
  Share(std::int64_t first, std::int64_t images)
      : x(static_cast<std::size_t>((images + kWidth - 1) / kWidth * kWidth * kFeatures)),
        labels(static_cast<std::size_t>(images)),
        spare(kWidth * kFeatures) {
    const Panels<float> panels = {x.data(), kFeatures, images, kWidth, nullptr};
    for (std::int64_t i = 0; i < images; ++i) {
      panels.at(0, i) = static_cast<float>(first + i + 1);
      labels[i] = static_cast<std::int32_t>(first + i);
    }
  }
  [[nodiscard]] Batch batch() const {
    return {{x.data(), kFeatures, std::ssize(labels), kWidth, nullptr}, labels.data()};
  }

  std::vector<float> x;
  std::vector<std::int32_t> labels;
  std::vector<float> spare;
};

std::vector<Share> shares_of(const std::vector<std::int64_t>& images) {
  std::vector<Share> shares;
  std::int64_t first = 0;
  for (const std::int64_t count : images) {
    shares.emplace_back(first, count);
    first += count;
  }
  return shares;
}

/// Counts the images of a piece, and sees that each is where its label is and that the lanes behind
/// them are empty.
void count(const Batch& piece, std::vector<int>& seen) {
  for (std::int64_t i = 0; i < piece.x.count() * kWidth; ++i) {
    const float id = piece.x.panel(i / kWidth)[i % kWidth];
    if (i >= piece.x.batch) {
      ASSERT_EQ(id, 0.0F);
      continue;
    }
    ASSERT_EQ(id, static_cast<float>(piece.labels[i] + 1));
    ++seen[static_cast<std::size_t>(piece.labels[i])];
  }
}

/// A step in which rank r takes `seconds[r]` for an image: when each was done, on a clock of its
/// own. With `work`, ranks compute an image in so many seconds and are held back for the rest.
struct Step {
  std::vector<double> done;
  std::vector<std::int64_t> images, taken_over;
  std::vector<int> seen;  ///< by image, how often it was computed
  [[nodiscard]] double last() const { return *std::max_element(done.begin(), done.end()); }
};

Step run_step(PieceQueue& queue, std::int64_t step, const std::vector<std::int64_t>& images,
              const std::vector<double>& seconds, std::int64_t most,
              std::optional<double> work = {}) {
  const std::size_t ranks = images.size();
  std::vector<Share> shares = shares_of(images);
  Step result;
  result.done.assign(ranks, 0.0);
  result.seen.assign(
      static_cast<std::size_t>(std::accumulate(images.begin(), images.end(), std::int64_t{0})), 0);
  std::vector<std::unique_ptr<PieceQueue::Turn>> turns;
  for (std::size_t r = 0; r < ranks; ++r) {
    turns.push_back(std::make_unique<PieceQueue::Turn>(queue, r, step, shares[r].batch(), most,
                                                       shares[r].spare.data(), 0.0));
  }
  std::vector<bool> at_work(ranks, true);
  std::vector<double> at(ranks, 0.0);  ///< when each really goes on
  while (std::find(at_work.begin(), at_work.end(), true) != at_work.end()) {
    std::size_t next = ranks;
    for (std::size_t r = 0; r < ranks; ++r) {
      if (at_work[r] && (next == ranks || at[r] < at[next])) next = r;
    }
    if (at[next] < result.done[next] && !turns[next]->works_ahead(at[next], result.done[next])) {
      at[next] = result.done[next];
      continue;  // it sleeps, and others may go on first
    }
    const std::optional<Batch> piece = turns[next]->next(result.done[next]);
    at_work[next] = piece.has_value();
    if (!piece) continue;
    EXPECT_LE(piece->x.batch, most);
    count(*piece, result.seen);
    const auto count = static_cast<double>(piece->x.batch);
    result.done[next] += seconds[next] * count;
    at[next] += work.value_or(seconds[next]) * count;
  }
  for (const auto& turn : turns) {
    result.images.push_back(turn->images());
    result.taken_over.push_back(turn->taken_over());
  }
  // As ranks do it: those who took images let go of them before the others' turns can end.
  std::vector<std::thread> ends;
  for (auto& turn : turns) ends.emplace_back([&turn] { turn.reset(); });
  for (std::thread& end : ends) end.join();
  return result;
}

double alone(const std::vector<std::int64_t>& images, const std::vector<double>& seconds) {
  double last = 0.0;
  for (std::size_t r = 0; r < images.size(); ++r) {
    last = std::max(last, seconds[r] * static_cast<double>(images[r]));
  }
  return last;
}

TEST(PieceQueue, EveryImageIsComputedOnce) {
  std::mt19937_64 random(1);
  for (int trial = 0; trial < 150; ++trial) {
    const std::size_t ranks = 1 + random() % 6;
    PieceQueue queue(ranks);
    const std::int64_t most = kWidth * static_cast<std::int64_t>(1 + random() % 6);
    for (std::int64_t step = 0; step < 3; ++step) {
      std::vector<std::int64_t> images;
      std::vector<double> seconds;
      for (std::size_t r = 0; r < ranks; ++r) {
        images.push_back(random() % 4 == 0 ? 0 : static_cast<std::int64_t>(random() % 400));
        seconds.push_back(0.01 * static_cast<double>(1 + random() % 100));
      }
      const std::optional<double> work =
          trial % 2 == 0 ? std::optional<double>() : std::optional<double>(0.01);
      const Step result = run_step(queue, step, images, seconds, most, work);
      EXPECT_TRUE(
          std::all_of(result.seen.begin(), result.seen.end(), [](int n) { return n == 1; }));
      EXPECT_EQ(std::accumulate(result.images.begin(), result.images.end(), std::int64_t{0}),
                std::ssize(result.seen));
      if (testing::Test::HasFailure()) return;
    }
  }
}

/// With equal shares, the slow rank's would take three times what all together need.
TEST(PieceQueue, RanksOfUnlikeSpeedAreDoneTogether) {
  const std::vector<std::int64_t> images = {512, 512, 512};
  const std::vector<double> seconds = {1.0, 1.0, 4.0};
  PieceQueue queue(3);
  const double ideal = 3 * 512.0 / (1.0 + 1.0 + 0.25);
  EXPECT_LT(run_step(queue, 0, images, seconds, 128).last(), 1.25 * ideal);
  const Step second = run_step(queue, 1, images, seconds, 128);
  EXPECT_LT(second.last(), 1.15 * ideal);
  EXPECT_LT(second.last(), 0.4 * alone(images, seconds));
  EXPECT_EQ(second.taken_over[2], 0);
  EXPECT_EQ(second.taken_over[0] + second.taken_over[1], 512 - second.images[2]);
}

TEST(PieceQueue, BalancedRanksKeepTheirImages) {
  const std::vector<std::int64_t> images = {512, 256, 64};
  PieceQueue queue(3);
  for (std::int64_t step = 0; step < 3; ++step) {
    const Step result = run_step(queue, step, images, {1.0, 2.0, 8.0}, 128);
    EXPECT_EQ(result.images, images);
    EXPECT_EQ(result.last(), 512.0);
  }
}

/// Those that work ahead of their time do no more of it than what they would have done anyway.
TEST(PieceQueue, RanksThatAreHeldBackAreDoneTogetherToo) {
  const std::vector<std::int64_t> images = {512, 512, 512};
  const std::vector<double> seconds = {2.0, 2.0, 8.0};
  PieceQueue queue(3);
  const double ideal = 3 * 512.0 / (0.5 + 0.5 + 0.125);
  EXPECT_LT(run_step(queue, 0, images, seconds, 128, 1.0).last(), 1.25 * ideal);
  EXPECT_LT(run_step(queue, 1, images, seconds, 128, 1.0).last(), 1.15 * ideal);
}

TEST(PieceQueue, WorksAheadAsFarAsAllWouldBeDoneTogether) {
  const std::vector<std::int64_t> images = {512, 512, 512};
  PieceQueue queue(3);
  static_cast<void>(run_step(queue, 0, images, {1.0, 1.0, 4.0}, 128));
  // Together they would be done at 1536 / 2.25 = 683 s.
  std::vector<Share> shares = shares_of(images);
  std::vector<std::unique_ptr<PieceQueue::Turn>> turns;
  for (std::size_t r = 0; r < images.size(); ++r) {
    turns.push_back(std::make_unique<PieceQueue::Turn>(queue, r, 1, shares[r].batch(), 128,
                                                       shares[r].spare.data(), 0.0));
  }
  EXPECT_TRUE(turns[2]->works_ahead(0.0, 0.0));  // until 512 s
  ASSERT_TRUE(turns[2]->next(0.0));
  EXPECT_FALSE(turns[2]->works_ahead(1.0, 512.0));  // until 1024 s
  double now = 0.0;
  for (int piece = 0; piece < 3; ++piece, now += 128.0) {
    EXPECT_TRUE(turns[0]->works_ahead(1.0, now));
    ASSERT_TRUE(turns[0]->next(now));
  }
}

TEST(PieceQueue, OnlyRanksOfTheSameStepHelp) {
  std::vector<Share> shares = shares_of({64, 256});
  PieceQueue queue(2);
  PieceQueue::Turn slow(queue, 1, 7, shares[1].batch(), 64, shares[1].spare.data(), 0.0);
  ASSERT_TRUE(slow.next(0.0));
  ASSERT_TRUE(slow.next(6400.0));  // 100 s an image
  {
    PieceQueue::Turn fast(queue, 0, 6, shares[0].batch(), 64, shares[0].spare.data(), 6400.0);
    double now = 6400.0;
    while (fast.next(now)) now += 1.0;
    EXPECT_EQ(fast.images(), 64);
  }
  {
    PieceQueue::Turn fast(queue, 0, 7, shares[0].batch(), 64, shares[0].spare.data(), 6410.0);
    double now = 6410.0;
    while (fast.next(now)) now += 1.0;
    EXPECT_EQ(fast.taken_over(), 256 - 128);
  }
}

/// A rank whose step ends early, as by a failure of another one, waits for who reads its images.
TEST(PieceQueue, ImagesStayWhileOthersComputeOnThem) {
  std::vector<Share> shares = shares_of({32, 256});
  PieceQueue queue(2);
  auto slow = std::make_unique<PieceQueue::Turn>(queue, 1, 0, shares[1].batch(), 64,
                                                 shares[1].spare.data(), 0.0);
  ASSERT_TRUE(slow->next(0.0));
  ASSERT_TRUE(slow->next(6400.0));
  auto fast = std::make_unique<PieceQueue::Turn>(queue, 0, 0, shares[0].batch(), 64,
                                                 shares[0].spare.data(), 6400.0);
  ASSERT_TRUE(fast->next(6400.0));
  ASSERT_TRUE(fast->next(6401.0));
  ASSERT_GT(fast->taken_over(), 0);
  std::atomic<bool> gone = false;
  std::thread leaves([&] {
    slow.reset();
    EXPECT_TRUE(gone.load());
  });
  gone = true;
  fast.reset();
  leaves.join();
}

}  // namespace
}  // namespace spdnn::train
