// Every collective by itself, for each element type, reduction and size from 0, against its
// meaning.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <limits>
#include <numeric>
#include <thread>

#include "comm/backends.hpp"
#include "spdnn/timing.hpp"

namespace spdnn::test {
namespace {

INSTANTIATE_TEST_SUITE_P(Ranks, CommTest,
                         testing::Combine(testing::ValuesIn(backends), testing::Range(1, 9)),
                         test_name);

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

/// Uneven pieces, some of them empty.
std::vector<std::int64_t> uneven_counts(int ranks, std::int64_t scale) {
  std::vector<std::int64_t> counts;
  for (int r = 0; r < ranks; ++r) counts.push_back(r % 3 == 1 ? 0 : scale * (r + 1));
  return counts;
}

TEST_P(CommTest, RanksAreNumberedFromZero) {
  std::vector<std::atomic<int>> seen(static_cast<std::size_t>(size()));
  run([&](Communicator& comm) {
    EXPECT_EQ(comm.size(), size());
    ++seen.at(static_cast<std::size_t>(comm.rank()));
  });
  std::int64_t ranks = 0;
  for (const auto& count : seen) {
    EXPECT_LE(count, 1);
    ranks += count;
  }
  EXPECT_EQ(ranks, here());
}

TEST_P(CommTest, NobodyPassesABarrierEarly) {
  std::atomic<int> arrived = 0;
  run([&](Communicator& comm) {
    for (int round = 1; round <= 50; ++round) {
      ++arrived;
      comm.barrier();
      EXPECT_GE(arrived, round * here());
      comm.barrier();
    }
  });
}

TEST_P(CommTest, AllGather) {
  run([&](Communicator& comm) {
    for (const std::int64_t scale : {0, 1, 7, 1000}) {
      const auto counts = uneven_counts(size(), scale);
      for_each_type([&](auto zero) {
        using T = decltype(zero);
        const auto send =
            values_of<T>(1, comm.rank(), counts[static_cast<std::size_t>(comm.rank())]);
        const auto expected = gathered<T>(1, counts);
        std::vector<T> receive(expected.size());
        comm.all_gather(send.data(), receive.data(), counts, dtype_of<T>, nullptr);
        EXPECT_TRUE(same_bits(receive, expected)) << "scale " << scale;
      });
    }
  });
}

TEST_P(CommTest, AllGatherInPlace) {
  run([&](Communicator& comm) {
    const auto counts = uneven_counts(size(), 5);
    const auto expected = gathered<float>(2, counts);
    std::vector<float> data(expected.size());
    const auto offset = std::accumulate(counts.begin(), counts.begin() + comm.rank(), 0L);
    const auto own =
        values_of<float>(2, comm.rank(), counts[static_cast<std::size_t>(comm.rank())]);
    std::copy(own.begin(), own.end(), data.begin() + offset);
    comm.all_gather(data.data() + offset, data.data(), counts, DType::f32, nullptr);
    EXPECT_EQ(data, expected);
  });
}

TEST_P(CommTest, AllReduce) {
  run([&](Communicator& comm) {
    for (const std::int64_t count : {0, 1, 3, 64, 1025, 5000}) {
      for_each_type([&](auto zero) {
        using T = decltype(zero);
        for (const Reduction reduction : reductions_of<T>()) {
          const auto send = values_of<T>(3, comm.rank(), count);
          std::vector<T> expected;
          for (std::int64_t i = 0; i < count; ++i) {
            expected.push_back(reduced_value<T>(3, size(), i, reduction));
          }
          std::vector<T> receive(send.size());
          comm.all_reduce(send.data(), receive.data(), count, dtype_of<T>, reduction, nullptr);
          EXPECT_TRUE(same_bits(receive, expected)) << "count " << count;
          auto in_place = send;
          comm.all_reduce(in_place.data(), in_place.data(), count, dtype_of<T>, reduction, nullptr);
          EXPECT_TRUE(same_bits(in_place, expected)) << "in place, count " << count;
        }
      });
    }
  });
}

TEST_P(CommTest, NanSurvivesAReduction) {
  run([&](Communicator& comm) {
    for (int from = 0; from < size(); ++from) {
      for (const Reduction reduction : {Reduction::sum, Reduction::max, Reduction::min}) {
        double value = comm.rank() == from ? std::numeric_limits<double>::quiet_NaN() : 1.0;
        comm.all_reduce(&value, &value, 1, DType::f64, reduction, nullptr);
        EXPECT_NE(value, value) << "from rank " << from;
      }
    }
  });
}

TEST_P(CommTest, ReduceScatter) {
  run([&](Communicator& comm) {
    for (const std::int64_t scale : {0, 1, 700}) {
      const auto counts = uneven_counts(size(), scale);
      const auto total = std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
      const auto offset =
          std::accumulate(counts.begin(), counts.begin() + comm.rank(), std::int64_t{0});
      const std::int64_t own = counts[static_cast<std::size_t>(comm.rank())];
      for_each_type([&](auto zero) {
        using T = decltype(zero);
        for (const Reduction reduction : reductions_of<T>()) {
          const auto send = values_of<T>(4, comm.rank(), total);
          std::vector<T> expected;
          for (std::int64_t i = offset; i < offset + own; ++i) {
            expected.push_back(reduced_value<T>(4, size(), i, reduction));
          }
          std::vector<T> receive(expected.size());
          comm.reduce_scatter(send.data(), receive.data(), counts, dtype_of<T>, reduction, nullptr);
          EXPECT_TRUE(same_bits(receive, expected)) << "scale " << scale;
        }
      });
    }
  });
}

TEST_P(CommTest, ExchangeWithEveryRankAndItself) {
  run([&](Communicator& comm) {
    std::vector<std::vector<std::uint8_t>> out, in;
    std::vector<Communicator::Message> sends, receives;
    for (int peer = 0; peer < size(); ++peer) {
      out.push_back(values_of<std::uint8_t>(5, comm.rank() * 100 + peer, comm.rank() + 2 * peer));
      in.emplace_back(static_cast<std::size_t>(peer + 2 * comm.rank()));
    }
    for (int peer = size() - 1; peer >= 0; --peer) {
      auto& piece = out[static_cast<std::size_t>(peer)];
      auto& place = in[static_cast<std::size_t>(peer)];
      sends.push_back({peer, piece.data(), piece.size()});
      receives.insert(receives.begin(), {peer, place.data(), place.size()});
    }
    comm.exchange(sends, receives, nullptr);
    for (int peer = 0; peer < size(); ++peer) {
      EXPECT_EQ(in[static_cast<std::size_t>(peer)],
                values_of<std::uint8_t>(5, peer * 100 + comm.rank(), peer + 2 * comm.rank()));
    }
    comm.exchange({}, {}, nullptr);
  });
}

TEST(CommLending, PieceIsReadWhereItsSenderHasIt) {
  std::atomic<const void*> place = nullptr;
  run_ranks(2, [&](Communicator& comm) {
    const int other = 1 - comm.rank();
    auto sent = std::make_shared<int>(comm.rank());
    auto own = std::make_shared<int>(-1);
    if (comm.rank() == 0) place = sent.get();
    const Communicator::Message send{other, sent.get(), sizeof(int), sent};
    // Rank 0 does not take what is lent.
    const Communicator::Message receive{other, own.get(), sizeof(int),
                                        comm.rank() == 0 ? nullptr : own};
    const auto pending = comm.start_exchange({&send, 1}, {&receive, 1}, nullptr);
    sent.reset();
    pending->finish();
    if (comm.rank() == 0) {
      EXPECT_EQ(pending->lent(other), nullptr);
      EXPECT_EQ(*own, 1);
    } else {
      ASSERT_EQ(pending->lent(other), place);
      EXPECT_EQ(*own, -1);
      EXPECT_EQ(*static_cast<const int*>(pending->lent(other)), 0);
    }
  });
}

TEST(CommLending, WhatIsLentOutlivesARankThatFails) {
  std::weak_ptr<int> left;
  const auto body = [&](Communicator& comm) {
    const int other = 1 - comm.rank();
    auto piece = std::make_shared<int>(comm.rank() + 7);
    if (comm.rank() == 0) left = piece;
    const Communicator::Message message{other, piece.get(), sizeof(int), piece};
    auto pending = comm.start_exchange({&message, 1}, {&message, 1}, nullptr);
    pending->finish();
    if (comm.rank() == 0) throw InputError("this rank's memory goes");
    // All that rank 0 had is gone by the time the group has failed.
    EXPECT_THROW(comm.barrier(), CommError);
    EXPECT_EQ(*static_cast<const int*>(pending->lent(other)), 7);
    EXPECT_EQ(left.use_count(), 1);
    pending.reset();
    EXPECT_TRUE(left.expired());
  };
  EXPECT_THROW(run_ranks(2, body), InputError);
}

TEST_P(CommTest, TimesOfCallsTogetherAreThoseOfAllRanks) {
  run([&](Communicator& comm) {
    int calls = 0;
    std::vector<double> times = {fastest_together(comm, 3, [&] { ++calls; })};
    EXPECT_EQ(calls, 4);
    std::int64_t most = 0;
    times.push_back(fastest_in_a_row(comm, 3, [&](std::int64_t n) {
      most = std::max(most, n);
      // Every rank sees the time of the slowest: it is the last that makes a run long enough.
      if (comm.rank() == size() - 1 && n >= 6) {
        std::this_thread::sleep_for(std::chrono::milliseconds(6));
      }
    }));
    EXPECT_EQ(most % 3, 0);
    for (const double time : times) {
      EXPECT_GE(time, 0.0);
      double highest = 0.0;
      comm.all_reduce(&time, &highest, 1, DType::f64, Reduction::max, nullptr);
      EXPECT_EQ(time, highest);
    }
  });
}

TEST_P(CommTest, SplitOrdersByKeyThenRank) {
  run([&](Communicator& comm) {
    // Colours of every sign; keys that turn each group around.
    const auto half = comm.split(comm.rank() % 2 == 0 ? -7 : 1 << 30, -comm.rank());
    const int members = comm.rank() % 2 == 0 ? (size() + 1) / 2 : size() / 2;
    ASSERT_EQ(half->size(), members);
    EXPECT_EQ(half->rank(), members - 1 - comm.rank() / 2);
    std::int64_t sum = comm.rank();
    half->all_reduce(&sum, &sum, 1, DType::i64, Reduction::sum, nullptr);
    std::int64_t expected = 0;
    for (int r = comm.rank() % 2; r < size(); r += 2) expected += r;
    EXPECT_EQ(sum, expected);

    const auto same_key = comm.split(0, 5);
    EXPECT_EQ(same_key->rank(), comm.rank());
    EXPECT_EQ(same_key->size(), size());
  });
}

TEST_P(CommTest, SplitOfSplitOutlivesItsParent) {
  run([&](Communicator& comm) {
    auto half = comm.split(comm.rank() / 4, comm.rank());
    auto quarter = half->split(half->rank() / 2, half->rank());
    half.reset();
    const auto first = static_cast<std::int64_t>(comm.rank()) / 2 * 2;
    const std::int64_t members = std::min<std::int64_t>(2, size() - first);
    ASSERT_EQ(quarter->size(), members);
    const std::vector<std::int64_t> counts(static_cast<std::size_t>(members), 1);
    std::vector<std::int64_t> ranks(counts.size());
    const std::int64_t own = comm.rank();
    quarter->all_gather(&own, ranks.data(), counts, DType::i64, nullptr);
    for (std::int64_t i = 0; i < members; ++i) {
      EXPECT_EQ(ranks[static_cast<std::size_t>(i)], first + i);
    }
    comm.barrier();
  });
}

TEST_P(CommTest, CountsBytesSentToOthers) {
  run([&](Communicator& comm) {
    comm.barrier();
    EXPECT_EQ(comm.bytes_sent(), 0);
    const auto counts = uneven_counts(size(), 3);
    const auto total = std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
    const std::int64_t own = counts[static_cast<std::size_t>(comm.rank())];
    std::vector<float> all(static_cast<std::size_t>(total)), piece(static_cast<std::size_t>(own));
    comm.all_gather(piece.data(), all.data(), counts, DType::f32, nullptr);
    std::int64_t expected = own * 4 * (size() - 1);
    EXPECT_EQ(comm.bytes_sent(), expected);
    comm.reduce_scatter(all.data(), piece.data(), counts, DType::f32, Reduction::sum, nullptr);
    expected += (total - own) * 4;
    EXPECT_EQ(comm.bytes_sent(), expected);
    std::int64_t mine = 1, theirs = 0;
    const int next = (comm.rank() + 1) % size();
    const int previous = (comm.rank() + size() - 1) % size();
    comm.exchange(std::vector{Communicator::Message{next, &mine, 8}},
                  std::vector{Communicator::Message{previous, &theirs, 8}}, nullptr);
    expected += next == comm.rank() ? 0 : 8;
    EXPECT_EQ(comm.bytes_sent(), expected);
    std::vector<double> data(100);
    comm.all_reduce(data.data(), data.data(), 100, DType::f64, Reduction::sum, nullptr);
    std::int64_t reduced_bytes = comm.bytes_sent() - expected;
    comm.all_reduce(&reduced_bytes, &reduced_bytes, 1, DType::i64, Reduction::sum, nullptr);
    // Every rank's elements to where they are combined, and the results to all.
    EXPECT_EQ(reduced_bytes, 2 * (size() - 1) * 100 * 8);
  });
}

TEST(CommManyRanks, SixtyFourThreads) {
  for (const Backend& backend : backends) {
    backend.run(64, [](Communicator& comm) {
      for (std::int64_t round = 0; round < 20; ++round) {
        std::int64_t sum = comm.rank() + round;
        comm.all_reduce(&sum, &sum, 1, DType::i64, Reduction::sum, nullptr);
        EXPECT_EQ(sum, 64 * 63 / 2 + 64 * round);
      }
    });
  }
}

}  // namespace
}  // namespace spdnn::test
