// Groups of some ranks of a group, which they make without the others. Only ranks of several
// processes do.
#include <algorithm>
#include <numeric>
#include <random>

#include "comm/backends.hpp"

namespace spdnn::test {
namespace {

/// `body` on so many ranks of the processes.
void run_world(int size, const std::function<void(Communicator&)>& body) {
  backends.back().run(size, body);
}

class CommPart : public testing::Test {
 protected:
  void SetUp() override {
    if (std::getenv("SPDNN_TEST_MPI") == nullptr) GTEST_SKIP() << "one process has no such groups";
  }
};

TEST_F(CommPart, OthersGoOnMeanwhile) {
  constexpr int kSize = 7;
  run_world(kSize, [&](Communicator& comm) {
    std::mt19937_64 random(5);  // alike on all ranks
    for (int round = 0; round < 40; ++round) {
      // The ranks in some order, cut into parts; the first of them does something else.
      std::vector<int> order(kSize);
      std::iota(order.begin(), order.end(), 0);
      std::shuffle(order.begin(), order.end(), random);
      for (std::size_t begin = 0; begin < order.size();) {
        const std::size_t end = std::min(order.size(), begin + 1 + random() % 4);
        const std::vector<int> ranks(order.begin() + static_cast<std::ptrdiff_t>(begin),
                                     order.begin() + static_cast<std::ptrdiff_t>(end));
        const auto own = std::find(ranks.begin(), ranks.end(), comm.rank());
        if (begin > 0 && own != ranks.end()) {
          const std::unique_ptr<Communicator> part = world().among(comm, ranks);
          ASSERT_EQ(part->size(), std::ssize(ranks));
          ASSERT_EQ(part->rank(), own - ranks.begin());
          const std::vector<std::int64_t> ones(ranks.size(), 1);
          std::vector<std::int32_t> all(ranks.size());
          const std::int32_t value = comm.rank();
          for (std::size_t call = 0; call < 1 + begin; ++call) {
            part->all_gather(&value, all.data(), ones, DType::i32, nullptr);
            ASSERT_EQ(all, std::vector<std::int32_t>(ranks.begin(), ranks.end()));
          }
        }
        begin = end;
      }
      if (round % 8 != 0) continue;
      std::int32_t sum = 1;
      comm.all_reduce(&sum, &sum, 1, DType::i32, Reduction::sum, nullptr);
      ASSERT_EQ(sum, kSize);
    }
  });
}

TEST_F(CommPart, TakesItsFailureToAll) {
  EXPECT_THROW(run_world(4,
                         [&](Communicator& comm) {
                           if (comm.rank() == 1 || comm.rank() == 3) {
                             const auto part = world().among(comm, std::vector<int>{3, 1});
                             if (comm.rank() == 3) part->abort("the disk is full");
                             part->barrier();
                           }
                           comm.barrier();
                         }),
               CommError);
}

TEST_F(CommPart, IsOfItsOwnRanksAlone) {
  EXPECT_THROW(run_world(4,
                         [&](Communicator& comm) {
                           static_cast<void>(world().among(comm, std::vector<int>{0, 1}));
                           comm.barrier();
                         }),
               CommError);
}

}  // namespace
}  // namespace spdnn::test
