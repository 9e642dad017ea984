// Which NCCL calls become of a communicator's, in order and with all counts, and what comes of
// NCCL's errors and of ranks that NCCL waits for.
#include <fmt/format.h>

#include <atomic>
#include <numeric>

#include "comm/backends.hpp"

namespace spdnn::test {
namespace {

using Calls = std::vector<std::string>;

/// Uneven pieces of 1 to 8 ranks, some of them empty.
std::vector<std::int64_t> pieces(int ranks) {
  std::vector<std::int64_t> counts;
  for (int r = 0; r < ranks; ++r) counts.push_back(r % 3 == 1 ? 0 : 2 * r + 1);
  return counts;
}

class NcclCalls : public testing::TestWithParam<int> {
 protected:
  void SetUp() override { reset_fake_nccl(); }
  void TearDown() override {
    EXPECT_EQ(open_nccl_groups(), 0);
    EXPECT_EQ(aborted_nccl_groups(), 0);
    reset_fake_nccl();
  }
  [[nodiscard]] static int ranks() { return GetParam(); }
  /// All ranks' calls.
  static void expect_all(const Calls& expected) {
    for (int r = 0; r < ranks(); ++r) EXPECT_EQ(nccl_calls(r), expected) << "rank " << r;
  }
};
INSTANTIATE_TEST_SUITE_P(Ranks, NcclCalls, testing::Range(1, 9));

TEST_P(NcclCalls, UnevenAllGatherIsABroadcastFromEachThatHasAPiece) {
  const auto counts = pieces(ranks());
  const auto total = std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
  run_nccl_ranks(ranks(), [&](Communicator& comm) {
    const auto send = values_of<std::uint16_t>(1, comm.rank(), counts[comm.rank()]);
    std::vector<std::uint16_t> receive(static_cast<std::size_t>(total));
    comm.all_gather(send.data(), receive.data(), counts, DType::u16, nullptr);
    EXPECT_EQ(receive, gathered<std::uint16_t>(1, counts));
  });
  if (ranks() == 1) return expect_all({"start", "all_gather 2", "end"});
  Calls expected = {"start"};
  for (int r = 0; r < ranks(); ++r) {
    if (counts[r] > 0) expected.push_back(fmt::format("broadcast {} from {}", counts[r] * 2, r));
  }
  expected.emplace_back("end");
  expect_all(expected);
}

TEST_P(NcclCalls, UnevenReduceScatterIsAReductionToEachThatHasAPiece) {
  const auto counts = pieces(ranks());
  const auto total = std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
  run_nccl_ranks(ranks(), [&](Communicator& comm) {
    const auto send = values_of<double>(1, comm.rank(), total);
    std::vector<double> receive(static_cast<std::size_t>(counts[comm.rank()]));
    comm.reduce_scatter(send.data(), receive.data(), counts, DType::f64, Reduction::max, nullptr);
    const auto before =
        std::accumulate(counts.begin(), counts.begin() + comm.rank(), std::int64_t{0});
    for (std::size_t i = 0; i < receive.size(); ++i) {
      EXPECT_EQ(receive[i], reduced_value<double>(1, ranks(), before + static_cast<std::int64_t>(i),
                                                  Reduction::max));
    }
  });
  if (ranks() == 1) return expect_all({"start", "reduce_scatter 8", "end"});
  Calls expected = {"start"};
  for (int r = 0; r < ranks(); ++r) {
    if (counts[r] > 0) expected.push_back(fmt::format("reduce {} to {}", counts[r] * 8, r));
  }
  expected.emplace_back("end");
  expect_all(expected);
}

TEST_P(NcclCalls, EvenPiecesAreOneCall) {
  run_nccl_ranks(ranks(), [&](Communicator& comm) {
    const std::vector<std::int64_t> counts(static_cast<std::size_t>(ranks()), 3);
    const auto send = values_of<float>(1, comm.rank(), 3);
    std::vector<float> receive(3 * counts.size());
    comm.all_gather(send.data(), receive.data(), counts, DType::f32, nullptr);
    EXPECT_EQ(receive, gathered<float>(1, counts));
    comm.reduce_scatter(receive.data(), receive.data(), counts, DType::f32, Reduction::sum,
                        nullptr);
  });
  expect_all({"start", "all_gather 12", "end", "start", "reduce_scatter 12", "end"});
}

TEST_P(NcclCalls, AllReduceIsOneCallAndNothingIsNone) {
  run_nccl_ranks(ranks(), [&](Communicator& comm) {
    auto data = values_of<std::int64_t>(1, comm.rank(), 5);
    comm.all_reduce(data.data(), data.data(), 5, DType::i64, Reduction::min, nullptr);
    EXPECT_EQ(data[4], reduced_value<std::int64_t>(1, ranks(), 4, Reduction::min));
    const std::vector<std::int64_t> none(static_cast<std::size_t>(ranks()));
    comm.all_reduce(nullptr, nullptr, 0, DType::f32, Reduction::sum, nullptr);
    comm.all_gather(nullptr, nullptr, none, DType::f32, nullptr);
    comm.reduce_scatter(nullptr, nullptr, none, DType::f32, Reduction::sum, nullptr);
    comm.exchange({}, {}, nullptr);
    comm.barrier();
  });
  expect_all({"start", "all_reduce 40", "end"});
}

TEST_P(NcclCalls, ReductionsThatNcclHasNotAreStaged) {
  run_nccl_ranks(ranks(), [&](Communicator& comm) {
    auto bits = values_of<std::uint32_t>(1, comm.rank(), 5);
    comm.all_reduce(bits.data(), bits.data(), 5, DType::u32, Reduction::bit_or, nullptr);
    EXPECT_EQ(bits[4], reduced_value<std::uint32_t>(1, ranks(), 4, Reduction::bit_or));
    auto shorts = values_of<std::uint16_t>(1, comm.rank(), 5);
    comm.all_reduce(shorts.data(), shorts.data(), 5, DType::u16, Reduction::sum, nullptr);
    EXPECT_EQ(shorts[4], reduced_value<std::uint16_t>(1, ranks(), 4, Reduction::sum));
  });
  expect_all({});
}

TEST_P(NcclCalls, ExchangeIsAGroupOfSendsAndReceives) {
  // Rank a sends b so many bytes; a ring of empty pieces goes along and is no call.
  const auto bytes = [](int a, int b) { return static_cast<std::size_t>((3 * a + b) % 5); };
  run_nccl_ranks(ranks(), [&](Communicator& comm) {
    std::vector<std::vector<std::uint8_t>> in(static_cast<std::size_t>(ranks()));
    std::vector<Communicator::Message> sends, receives;
    auto out = values_of<std::uint8_t>(1, comm.rank(), 4);
    for (int peer = 0; peer < ranks(); ++peer) {
      in[peer].resize(bytes(peer, comm.rank()));
      sends.push_back({peer, out.data(), bytes(comm.rank(), peer)});
      receives.push_back({peer, in[peer].data(), in[peer].size()});
    }
    comm.start_exchange(sends, receives, nullptr)->finish();
    for (int peer = 0; peer < ranks(); ++peer) {
      EXPECT_EQ(in[peer], values_of<std::uint8_t>(1, peer, std::ssize(in[peer])));
    }
  });
  for (int rank = 0; rank < ranks(); ++rank) {
    Calls expected;
    for (int peer = 0; peer < ranks(); ++peer) {
      if (bytes(rank, peer) == 0) continue;
      expected.push_back(fmt::format("send {} to {}", bytes(rank, peer), peer));
    }
    for (int peer = 0; peer < ranks(); ++peer) {
      if (bytes(peer, rank) == 0) continue;
      expected.push_back(fmt::format("receive {} from {}", bytes(peer, rank), peer));
    }
    if (!expected.empty()) {
      expected.insert(expected.begin(), "start");
      expected.emplace_back("end");
    }
    EXPECT_EQ(nccl_calls(rank), expected) << "rank " << rank;
  }
}

TEST_P(NcclCalls, HostMemoryGoesToTheHostCommunicator) {
  run_ranks(ranks(), [&](Communicator& host) {
    comm::NcclCommunicator comm(host, std::make_shared<FakeStream>(), fake_nccl(), 60.0);
    std::int64_t sum = comm.rank();
    comm.all_reduce(&sum, &sum, 1, DType::i64, Reduction::sum, nullptr);
    EXPECT_EQ(sum, ranks() * (ranks() - 1) / 2);
  });
  expect_all({});
}

TEST_P(NcclCalls, AreBehindTheWorkOfTheStreamTheyAreGiven) {
  run_ranks(ranks(), [&](Communicator& host) {
    comm::NcclCommunicator comm(host, std::make_shared<FakeStream>(), fake_nccl(), 60.0);
    FakeStream stream;  // does nothing until it is asked
    const auto source = values_of<std::int64_t>(1, comm.rank(), 6);
    std::vector<std::int64_t> send(6, -1), sums(6), got(6);
    stream.copy(send.data(), source.data(), 48);
    comm.all_reduce(send.data(), sums.data(), 6, DType::i64, Reduction::sum, &stream);
    EXPECT_EQ(sums[5], reduced_value<std::int64_t>(1, ranks(), 5, Reduction::sum));
    stream.zero(send.data(), 48);
    const int next = (comm.rank() + 1) % ranks();
    const int previous = (comm.rank() + ranks() - 1) % ranks();
    const std::vector<Communicator::Message> sends = {{next, send.data(), 48}};
    const std::vector<Communicator::Message> receives = {{previous, got.data(), 48}};
    const auto pending = comm.start_exchange(sends, receives, &stream);
    comm.all_reduce(sums.data(), sums.data(), 6, DType::i64, Reduction::bit_or, &stream);
    pending->finish();
    EXPECT_EQ(got, std::vector<std::int64_t>(6, 0));
  });
}

class NcclFaults : public testing::Test {
 protected:
  void TearDown() override {
    EXPECT_EQ(open_nccl_groups(), 0);
    reset_fake_nccl();
  }
  /// What `body` fails with on every one of three ranks.
  static void expect_errors(const std::function<void(Communicator&)>& body, double patience_s,
                            const std::vector<std::string>& names) {
    std::atomic<int> failures = 0;
    run_ranks(3, [&](Communicator& host) {
      try {
        OnFakeDevice comm(std::make_unique<comm::NcclCommunicator>(
            host, std::make_shared<FakeStream>(), fake_nccl(), patience_s));
        body(comm);
      } catch (const CommError& error) {
        ++failures;
        for (const std::string& name : names) {
          EXPECT_NE(std::string(error.what()).find(name), std::string::npos) << error.what();
        }
      }
    });
    EXPECT_EQ(failures, 3);
  }
};

void reduce_once(Communicator& comm) {
  float value = 1.0F;
  comm.all_reduce(&value, &value, 1, DType::f32, Reduction::sum, nullptr);
}

TEST_F(NcclFaults, RankThatCannotConnectIsNamedOnAll) {
  reset_fake_nccl({.refuses_to_connect = 1});
  expect_errors([](Communicator&) {}, 0.2, {"rank 1: unhandled system error", "NCCL_DEBUG"});
}

TEST_F(NcclFaults, RanksThatWaitToConnectAreNamed) {
  reset_fake_nccl({.never_connects = 2});
  expect_errors([](Communicator&) {}, 0.2, {"rank 0: not connected after 0.2 s", "rank 2: not"});
}

TEST_F(NcclFaults, CallThatCannotBeQueuedEndsAllRanks) {
  reset_fake_nccl({.fails_to_queue = 1});
  expect_errors(
      [](Communicator& comm) {
        reduce_once(comm);
        comm.barrier();
      },
      0.2, {"rank", "all_reduce(1 f32, sum)"});
  EXPECT_EQ(aborted_nccl_groups(), 3);
}

TEST_F(NcclFaults, ErrorOnTheWayEndsAllRanks) {
  reset_fake_nccl({.breaks_later = 0});
  expect_errors(
      [](Communicator& comm) {
        reduce_once(comm);
        comm.barrier();
      },
      0.2, {"all_reduce(1 f32, sum)"});
}

TEST_F(NcclFaults, WorkThatIsNeverDoneTimesOutAndIsEnded) {
  reset_fake_nccl({.loses_work = 2});
  expect_errors(
      [](Communicator& comm) {
        reduce_once(comm);
        comm.barrier();
      },
      0.2, {"rank 2 waits for NCCL in all_reduce(1 f32, sum) with ranks 0, 1: not done after 0.2"});
  EXPECT_EQ(aborted_nccl_groups(), 3);
}

TEST_F(NcclFaults, AbortEndsTheGroup) {
  reset_fake_nccl();
  expect_errors(
      [](Communicator& comm) {
        if (comm.rank() == 1) comm.abort("the disk is full");
        reduce_once(comm);
      },
      60.0, {"the disk is full"});
  EXPECT_EQ(aborted_nccl_groups(), 3);
}

TEST(NcclLibrary, IsThereOrSaysHowToHaveIt) {
  std::string why;
  const comm::NcclFunctions* functions = comm::nccl_functions(why);
  if (functions == nullptr) {
    EXPECT_NE(why.find("libnccl.so.2"), std::string::npos) << why;
    EXPECT_NE(why.find("install"), std::string::npos) << why;
  } else {
    int version = 0;
    EXPECT_EQ(functions->get_version(&version), comm::NcclResult::success);
    EXPECT_GE(version, comm::nccl_least_version);
  }
}

}  // namespace
}  // namespace spdnn::test
