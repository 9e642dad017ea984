// Random sequences of collectives on groups and their subgroups, against what one thread computes.
#include <algorithm>
#include <chrono>
#include <memory>
#include <numeric>
#include <random>
#include <thread>

#include "comm/backends.hpp"

namespace spdnn::test {
namespace {

using Random = std::mt19937_64;

std::int64_t below(Random& random, std::int64_t limit) {
  return static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(limit));
}

/// One rank's walk through a script that all ranks of `comm` derive from the same seed.
class Walk {
 public:
  Walk(Communicator& comm, std::uint64_t seed, bool delays)
      : comm_(comm),
        random_(seed),
        delay_(seed + static_cast<std::uint64_t>(comm.rank())),
        delays_(delays) {}

  void run(int steps, int depth) {
    for (int i = 0; i < steps; ++i) {
      step_ = random_();
      if (delays_) pause();
      switch (below(random_, 7)) {
        case 0: comm_.barrier(); break;
        case 1: with_type([&](auto zero) { all_gather(zero); }); break;
        case 2: with_type([&](auto zero) { all_reduce(zero); }); break;
        case 3: with_type([&](auto zero) { reduce_scatter(zero); }); break;
        case 4: Exchanged(*this).check(); break;
        case 5: split(depth); break;
        case 6: overlap(); break;
      }
    }
  }

 private:
  void pause() {
    switch (below(delay_, 4)) {
      case 0: std::this_thread::yield(); break;
      case 1: std::this_thread::sleep_for(std::chrono::microseconds(below(delay_, 100))); break;
      default: break;
    }
  }
  template <class Call>
  void with_type(Call call) {
    const std::int64_t chosen = below(random_, 7);
    std::int64_t at = 0;
    for_each_type([&](auto zero) {
      if (at++ == chosen) call(zero);
    });
  }
  std::vector<std::int64_t> random_counts() {
    std::vector<std::int64_t> counts;
    const std::int64_t limit = below(random_, 10) == 0 ? 3000 : 9;
    for (int r = 0; r < comm_.size(); ++r) counts.push_back(below(random_, limit));
    return counts;
  }
  template <class T>
  Reduction random_reduction(T /*zero*/) {
    const auto all = reductions_of<T>();
    return all[static_cast<std::size_t>(below(random_, static_cast<std::int64_t>(all.size())))];
  }
  [[nodiscard]] std::int64_t own(const std::vector<std::int64_t>& counts) const {
    return counts[static_cast<std::size_t>(comm_.rank())];
  }

  template <class T>
  void all_gather(T /*zero*/) {
    const auto counts = random_counts();
    const auto send = values_of<T>(step_, comm_.rank(), own(counts));
    const auto expected = gathered<T>(step_, counts);
    std::vector<T> receive(expected.size());
    comm_.all_gather(send.data(), receive.data(), counts, dtype_of<T>, nullptr);
    EXPECT_EQ(receive, expected);
  }
  template <class T>
  void all_reduce(T zero) {
    const std::int64_t count = random_counts()[0];
    const Reduction reduction = random_reduction(zero);
    auto data = values_of<T>(step_, comm_.rank(), count);
    comm_.all_reduce(data.data(), data.data(), count, dtype_of<T>, reduction, nullptr);
    for (std::int64_t i = 0; i < count; ++i) {
      ASSERT_EQ(data[static_cast<std::size_t>(i)],
                reduced_value<T>(step_, comm_.size(), i, reduction));
    }
  }
  template <class T>
  void reduce_scatter(T zero) {
    const auto counts = random_counts();
    const Reduction reduction = random_reduction(zero);
    const auto total = std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
    const auto offset =
        std::accumulate(counts.begin(), counts.begin() + comm_.rank(), std::int64_t{0});
    const auto send = values_of<T>(step_, comm_.rank(), total);
    std::vector<T> receive(static_cast<std::size_t>(own(counts)));
    comm_.reduce_scatter(send.data(), receive.data(), counts, dtype_of<T>, reduction, nullptr);
    for (std::int64_t i = 0; i < own(counts); ++i) {
      ASSERT_EQ(receive[static_cast<std::size_t>(i)],
                reduced_value<T>(step_, comm_.size(), offset + i, reduction));
    }
  }
  /// Pieces of random sizes between all pairs, some of them missing.
  struct Exchanged {
    explicit Exchanged(Walk& walk)
        : step(walk.random_()), comm(walk.comm_), out(ranks()), in(ranks()) {
      // Every rank draws the whole table of sizes; -1 is no message.
      bytes.assign(ranks(), std::vector<std::int64_t>(ranks()));
      for (auto& row : bytes) {
        for (auto& cell : row) cell = below(walk.random_, 20) - 5;
      }
      for (std::size_t peer = 0; peer < ranks(); ++peer) {
        const int p = static_cast<int>(peer);
        if (bytes[me()][peer] >= 0) {
          out[peer] = std::make_shared<std::vector<std::uint8_t>>(
              values_of<std::uint8_t>(step, comm.rank() * 64 + p, bytes[me()][peer]));
          sends.push_back({p, out[peer]->data(), out[peer]->size(), owner_of(walk, out[peer])});
        }
        if (bytes[peer][me()] >= 0) {
          in[peer].resize(static_cast<std::size_t>(bytes[peer][me()]));
          receives.push_back({p, in[peer].data(), in[peer].size(), owner_of(walk, taker)});
        }
      }
      std::shuffle(sends.begin(), sends.end(), walk.delay_);
      std::shuffle(receives.begin(), receives.end(), walk.delay_);
    }
    /// Each rank decides by itself what it lends and what it takes so.
    static std::shared_ptr<void> owner_of(Walk& walk, const std::shared_ptr<void>& owner) {
      return below(walk.delay_, 2) == 0 ? nullptr : owner;
    }
    [[nodiscard]] std::size_t ranks() const { return static_cast<std::size_t>(comm.size()); }
    [[nodiscard]] std::size_t me() const { return static_cast<std::size_t>(comm.rank()); }
    void check() {
      comm.exchange(sends, receives, nullptr);
      expect_received();
    }
    void start() { pending = comm.start_exchange(sends, receives, nullptr); }
    void finish() {
      pending->finish();
      expect_received();
    }
    void expect_received() const {
      for (std::size_t peer = 0; peer < ranks(); ++peer) {
        if (bytes[peer][me()] < 0) continue;
        const auto sent = static_cast<int>(peer);
        const auto* lent =
            pending == nullptr ? nullptr : static_cast<const std::uint8_t*>(pending->lent(sent));
        const std::uint8_t* found = lent != nullptr ? lent : in[peer].data();
        EXPECT_EQ(std::vector<std::uint8_t>(found, found + bytes[peer][me()]),
                  values_of<std::uint8_t>(step, sent * 64 + comm.rank(), bytes[peer][me()]));
      }
    }
    std::uint64_t step;
    Communicator& comm;
    std::vector<std::vector<std::int64_t>> bytes;
    std::vector<std::shared_ptr<std::vector<std::uint8_t>>> out;  ///< others may outlive this
    std::vector<std::vector<std::uint8_t>> in;
    std::shared_ptr<int> taker = std::make_shared<int>();
    std::vector<Communicator::Message> sends, receives;
    std::unique_ptr<Communicator::Pending> pending;
  };
  /// Up to three exchanges under way, other calls between, finished in any order.
  void overlap() {
    std::vector<std::unique_ptr<Exchanged>> under_way;
    const std::int64_t count = 1 + below(random_, 3);
    for (std::int64_t i = 0; i < count; ++i) {
      under_way.push_back(std::make_unique<Exchanged>(*this));
      under_way.back()->start();
      if (delays_) pause();
    }
    if (below(random_, 2) == 0) all_reduce(float{});
    if (below(random_, 2) == 0) Exchanged(*this).check();
    std::shuffle(under_way.begin(), under_way.end(), random_);
    for (const auto& exchanged : under_way) exchanged->finish();
  }
  void split(int depth) {
    std::vector<std::pair<int, int>> asked;  // color and key of each rank
    for (int r = 0; r < comm_.size(); ++r) {
      asked.emplace_back(below(random_, 3), below(random_, 3));
    }
    const auto [color, key] = asked[static_cast<std::size_t>(comm_.rank())];
    const auto group = comm_.split(color, key);
    int members = 0, before = 0;
    for (int r = 0; r < comm_.size(); ++r) {
      const auto [c, k] = asked[static_cast<std::size_t>(r)];
      if (c != color) continue;
      ++members;
      if (std::pair(k, r) < std::pair(key, comm_.rank())) ++before;
    }
    ASSERT_EQ(group->size(), members);
    ASSERT_EQ(group->rank(), before);
    if (depth > 0) {
      Walk(*group, step_ + static_cast<std::uint64_t>(color), delays_).run(4, depth - 1);
    }
  }

  Communicator& comm_;
  Random random_;  ///< the same on all ranks
  Random delay_;   ///< the rank's own
  bool delays_;
  std::uint64_t step_ = 0;
};

class CommRandom : public CommTest {};
INSTANTIATE_TEST_SUITE_P(Ranks, CommRandom,
                         testing::Combine(testing::ValuesIn(backends), testing::Range(1, 9)),
                         test_name);

TEST_P(CommRandom, LongWalk) {
  const std::uint64_t seed = 20 + static_cast<std::uint64_t>(size());
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  run([&](Communicator& comm) { Walk(comm, seed, false).run(200, 2); });
}

TEST(CommRandomRuns, ManyShortWalksWithDelays) {
  for (const Backend& backend : backends) {
    for (std::uint64_t seed = 1; seed <= backend.walks && !testing::Test::HasFailure(); ++seed) {
      SCOPED_TRACE(testing::Message() << backend.name << ", seed " << seed);
      backend.run(static_cast<int>(1 + seed % 8),
                  [&](Communicator& comm) { Walk(comm, seed, true).run(5, 1); });
    }
  }
}

struct Planned {};

TEST(CommRandomRuns, AbortInTheMiddle) {
  for (const Backend& backend : backends) {
    for (std::uint64_t seed = 1; seed <= backend.walks / 3 && !testing::Test::HasFailure();
         ++seed) {
      const int size = static_cast<int>(2 + seed % 7);
      const int failing = static_cast<int>(seed % static_cast<std::uint64_t>(size));
      const int after = static_cast<int>(seed % 5);
      SCOPED_TRACE(testing::Message() << backend.name << ", seed " << seed);
      expect_thrown<Planned>(backend, size, failing, [&](Communicator& comm) {
        Walk walk(comm, seed, true);
        walk.run(after, 1);
        if (comm.rank() == failing) throw Planned{};
        walk.run(10, 1);
        comm.barrier();
      });
    }
  }
}

}  // namespace
}  // namespace spdnn::test
