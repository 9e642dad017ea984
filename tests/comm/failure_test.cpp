// What happens when a rank fails, leaves or calls something else: an error on every rank, never a
// hang.
#include <atomic>
#include <functional>
#include <stdexcept>
#include <thread>

#include "comm/backends.hpp"

namespace spdnn::test {
namespace {

/// Each backend with 2, 3 and 8 ranks.
class CommFailure : public CommTest {};
INSTANTIATE_TEST_SUITE_P(Ranks, CommFailure,
                         testing::Combine(testing::ValuesIn(backends), testing::Values(2, 3, 8)),
                         test_name);

/// The message of the `CommError` that `call` throws.
std::string comm_error(const std::function<void()>& call) {
  try {
    call();
  } catch (const CommError& error) {
    return error.what();
  }
  ADD_FAILURE() << "no CommError";
  return "";
}

void expect_names(const std::string& message, const std::vector<std::string>& parts) {
  for (const std::string& part : parts) {
    EXPECT_NE(message.find(part), std::string::npos) << "no \"" << part << "\" in: " << message;
  }
}

TEST_P(CommFailure, AbortReachesEveryoneWaitingOrCallingLater) {
  std::atomic<int> failed = 0;
  run([&](Communicator& comm) {
    // The abort may find others still in the first barrier.
    const std::string message = comm_error([&] {
      comm.barrier();
      if (comm.rank() == size() - 1) comm.abort("the disk is full");
      comm.barrier();
    });
    expect_names(message, {"the disk is full", "barrier"});
    std::int64_t value = 0;
    const std::vector<std::int64_t> counts(static_cast<std::size_t>(size()), 0);
    for (const auto& call : std::vector<std::function<void()>>{
             [&] { comm.barrier(); },
             [&] { comm.all_gather(nullptr, nullptr, counts, DType::f32, nullptr); },
             [&] { comm.all_reduce(&value, &value, 1, DType::i64, Reduction::sum, nullptr); },
             [&] { comm.exchange({}, {}, nullptr); },
             [&] { comm.start_exchange({}, {}, nullptr)->finish(); },
             [&] { (void)comm.split(0, 0); }}) {
      expect_names(comm_error(call), {"the disk is full"});
    }
    ++failed;
  });
  EXPECT_EQ(failed, here());
}

TEST_P(CommFailure, FirstErrorIsRethrownWithItsType) {
  std::atomic<int> failed = 0;
  const auto body = [&](Communicator& comm) {
    if (comm.rank() == 1) throw InputError("weights.tsv, line 3: no number");
    try {
      comm.barrier();
    } catch (const CommError& error) {
      expect_names(error.what(), {"rank 1 failed", "weights.tsv, line 3"});
      ++failed;
      throw;
    }
  };
  expect_thrown<InputError>(1, body);
  // All but the one that failed.
  std::int64_t all = failed;
  world().processes().all_reduce(&all, &all, 1, DType::i64, Reduction::sum, nullptr);
  EXPECT_EQ(all, size() - 1);
}

TEST_P(CommFailure, ErrorOfAnyTypeIsRethrown) {
  expect_thrown<int>(0, [](Communicator& comm) {
    if (comm.rank() == 0) throw 17;  // NOLINT: the type is the point
    comm.barrier();
  });
}

TEST_P(CommFailure, RankThatFailsInASubgroupIsTheOneReported) {
  // Its group ends as the error unwinds, before the error is known to anybody else.
  for (int round = 0; round < 50; ++round) {
    expect_thrown<InputError>(1, [&](Communicator& comm) {
      const auto middle = comm.split(0, -comm.rank());
      const auto group = middle->split(comm.rank() < 2 ? 0 : 1, 0);
      if (comm.rank() == 1) throw InputError("bad input");
      group->barrier();
      if (comm.rank() >= 2) comm.barrier();
    });
  }
}

TEST_P(CommFailure, AbortReachesSubgroupsOfGroupsThatAreGone) {
  std::atomic<int> failed = 0;
  run([&](Communicator& comm) {
    auto middle = comm.split(0, 0);
    const auto group = middle->split(0, 0);
    middle.reset();
    // The abort may find others still in the barrier.
    expect_names(comm_error([&] {
                   comm.barrier();
                   if (comm.rank() == 0) comm.abort("enough");
                   group->barrier();
                 }),
                 {"enough"});
    ++failed;
    // Stays alive until all have seen the abort, so that nobody sees a rank that left instead.
    while (failed < here()) std::this_thread::yield();
  });
}

TEST_P(CommFailure, AbortOfASubgroupLeavesItsParentAlone) {
  run([&](Communicator& comm) {
    const auto group = comm.split(0, 0);
    comm.barrier();
    if (comm.rank() == 0) group->abort("only here");
    expect_names(comm_error([&] { group->barrier(); }), {"only here"});
    comm.barrier();
  });
}

TEST_P(CommFailure, RankThatLeavesFailsThoseWhoWait) {
  run([](Communicator& comm) {
    if (comm.rank() == 1) return;
    expect_names(comm_error([&] { comm.barrier(); }), {"barrier", "rank 1 has left"});
  });
}

/// A call that fits no other, with the words that name it.
struct OddCall {
  std::vector<std::string> names;
  std::function<void(Communicator&)> call;
};

std::vector<OddCall> odd_calls(int size) {
  static std::vector<double> data(64);
  const auto counts = [size](std::int64_t first) {
    std::vector<std::int64_t> pieces(static_cast<std::size_t>(size), 1);
    pieces[0] = first;
    return pieces;
  };
  const auto reduce = [](std::int64_t count, DType type, Reduction reduction) {
    return [=](Communicator& comm) {
      std::vector<double> own(64);
      comm.all_reduce(own.data(), own.data(), count, type, reduction, nullptr);
    };
  };
  const auto gather = [counts](std::int64_t first, DType type) {
    return [=](Communicator& comm) {
      std::vector<double> own(64);
      comm.all_gather(data.data(), own.data(), counts(first), type, nullptr);
    };
  };
  const auto scatter = [counts](std::int64_t first) {
    return [=](Communicator& comm) {
      std::vector<double> own(64);
      comm.reduce_scatter(data.data(), own.data(), counts(first), DType::f32, Reduction::sum,
                          nullptr);
    };
  };
  return {{{"barrier"}, [](Communicator& comm) { comm.barrier(); }},
          {{"split"}, [](Communicator& comm) { (void)comm.split(0, 0); }},
          {{"exchange"}, [](Communicator& comm) { comm.exchange({}, {}, nullptr); }},
          {{"all_reduce", "3 f32", "sum"}, reduce(3, DType::f32, Reduction::sum)},
          {{"all_reduce", "4 f32", "sum"}, reduce(4, DType::f32, Reduction::sum)},
          {{"all_reduce", "3 i32", "sum"}, reduce(3, DType::i32, Reduction::sum)},
          {{"all_reduce", "3 f32", "max"}, reduce(3, DType::f32, Reduction::max)},
          {{"all_gather", "2+1", "u8"}, gather(2, DType::u8)},
          {{"all_gather", "0+1", "u8"}, gather(0, DType::u8)},
          {{"all_gather", "2+1", "u16"}, gather(2, DType::u16)},
          {{"reduce_scatter", "2+1", "f32"}, scatter(2)},
          {{"reduce_scatter", "5+1", "f32"}, scatter(5)}};
}

TEST_P(CommFailure, DifferentCallsAreNamedOnAllRanks) {
  const auto calls = odd_calls(size());
  for (std::size_t a = 0; a < calls.size(); ++a) {
    for (std::size_t b = 0; b < calls.size(); ++b) {
      if (a == b) continue;
      std::atomic<int> failed = 0;
      run([&](Communicator& comm) {
        const OddCall& own = calls[comm.rank() == 1 ? b : a];
        const std::string message = comm_error([&] { own.call(comm); });
        expect_names(message, calls[a].names);
        expect_names(message, calls[b].names);
        expect_names(message, {"rank 0", "rank 1"});
        ++failed;
      });
      EXPECT_EQ(failed, here());
    }
  }
}

TEST_P(CommFailure, ExchangesThatDoNotFit) {
  const auto attempt = [&](std::size_t sent, std::size_t expected, const std::string& names) {
    std::atomic<int> failed = 0;
    run([&](Communicator& comm) {
      std::vector<std::byte> data(16);
      std::vector<Communicator::Message> sends, receives;
      if (comm.rank() == 0 && sent > 0) sends.push_back({1, data.data(), sent});
      if (comm.rank() == 1 && expected > 0) receives.push_back({0, data.data(), expected});
      const std::string message = comm_error([&] {
        comm.exchange(sends, receives, nullptr);
        comm.barrier();  // ranks that neither send nor receive
      });
      expect_names(message, {names});
      ++failed;
    });
    EXPECT_EQ(failed, here());
  };
  attempt(8, 4, "rank 0 sends 8 bytes to rank 1, but rank 1 expects 4 bytes");
  attempt(8, 0, "rank 0 sends 8 bytes to rank 1, but rank 1 expects nothing");
  attempt(0, 4, "rank 0 sends nothing to rank 1, but rank 1 expects 4 bytes");
}

TEST_P(CommFailure, StartedExchangesThatDoNotFit) {
  std::atomic<int> failed = 0;
  run([&](Communicator& comm) {
    std::vector<std::byte> data(16);
    std::vector<Communicator::Message> sends, receives;
    if (comm.rank() == 0) sends.push_back({1, data.data(), 8});
    if (comm.rank() == 1) receives.push_back({0, data.data(), 4});
    const std::string message = comm_error([&] {
      comm.start_exchange(sends, receives, nullptr)->finish();
      comm.barrier();  // ranks that neither send nor receive
    });
    expect_names(message, {"rank 0 sends 8 bytes to rank 1, but rank 1 expects 4 bytes"});
    ++failed;
  });
  EXPECT_EQ(failed, here());
}

TEST_P(CommFailure, ExchangeThatNobodyFinishes) {
  run([&](Communicator& comm) {
    std::byte data{};
    std::vector<Communicator::Message> sends, receives;
    if (comm.rank() == 0) sends.push_back({1, &data, 1});
    if (comm.rank() == 1) receives.push_back({0, &data, 1});
    expect_names(comm_error([&] {
                   { const auto unfinished = comm.start_exchange(sends, receives, nullptr); }
                   comm.barrier();
                 }),
                 {"unfinished"});
  });
}

TEST_P(CommFailure, RankThatLeavesFailsAnExchangeUnderWay) {
  run([](Communicator& comm) {
    std::byte data{};
    const std::vector<Communicator::Message> receives = {{1, &data, 1}};
    if (comm.rank() != 0) return;
    expect_names(comm_error([&] { comm.start_exchange({}, receives, nullptr)->finish(); }),
                 {"rank", "left"});
  });
}

TEST_P(CommFailure, CallsThatMakeNoSense) {
  double value = 0.0;
  const std::vector<std::int64_t> few(static_cast<std::size_t>(size()) - 1, 0);
  std::vector<std::int64_t> negative(static_cast<std::size_t>(size()), 0);
  negative.back() = -1;
  std::vector<std::int64_t> huge(static_cast<std::size_t>(size()), std::int64_t{1} << 60);
  const auto exchange = [&value](Communicator& comm, std::vector<int> peers) {
    std::vector<Communicator::Message> sends;
    for (const int peer : peers) sends.push_back({peer, &value, 1});
    comm.exchange(sends, {}, nullptr);
  };
  const std::vector<std::pair<std::string, std::function<void(Communicator&)>>> calls = {
      {"counts for",
       [&](Communicator& c) { c.all_gather(nullptr, nullptr, few, DType::f32, nullptr); }},
      {"a count of -1",
       [&](Communicator& c) {
         c.reduce_scatter(nullptr, nullptr, negative, DType::f32, Reduction::sum, nullptr);
       }},
      {"a count of 1152921504606846976",
       [&](Communicator& c) { c.all_gather(&value, &value, huge, DType::f64, nullptr); }},
      {"a count of -4",
       [&](Communicator& c) {
         c.all_reduce(&value, &value, -4, DType::f64, Reduction::sum, nullptr);
       }},
      {"integers only",
       [&](Communicator& c) {
         c.all_reduce(&value, &value, 1, DType::f64, Reduction::bit_or, nullptr);
       }},
      {"no memory for 8 bytes",
       [&](Communicator& c) {
         c.all_reduce(nullptr, &value, 1, DType::f64, Reduction::sum, nullptr);
       }},
      {"no rank 99", [&](Communicator& c) { exchange(c, {99}); }},
      {"no rank -1", [&](Communicator& c) { exchange(c, {-1}); }},
      {"two pieces", [&](Communicator& c) {
         exchange(c, {0, 0});
       }}};
  for (const auto& [names, call] : calls) {
    std::atomic<int> failed = 0;
    run([&, &names = names, &call = call](Communicator& comm) {
      // The others wait for the one that erred.
      expect_names(comm_error([&] { comm.rank() == 0 ? call(comm) : comm.barrier(); }), {names});
      ++failed;
    });
    EXPECT_EQ(failed, here()) << names;
  }
}

TEST(CommGroup, NeedsARank) {
  for (const Backend& backend : backends) {
    EXPECT_THROW(backend.run(0, [](Communicator&) {}), CommError);
  }
}

}  // namespace
}  // namespace spdnn::test
