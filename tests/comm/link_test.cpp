// Declared links of an in-process group: nothing arrives sooner than its bytes allow.
#include <chrono>

#include "comm/backends.hpp"

namespace spdnn::test {
namespace {

double seconds_of(const std::function<void()>& call) {
  const auto start = std::chrono::steady_clock::now();
  call();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// Of the rank that took longest: one that begins late finds its bytes on their way.
double longest(Communicator& comm, const std::function<void()>& call) {
  double seconds = seconds_of(call);
  comm.all_reduce(&seconds, &seconds, 1, DType::f64, Reduction::max, nullptr);
  return seconds;
}

TEST(CommLink, BytesTakeTheirTimeAndComputingHidesIt) {
  const Link link = {0.002, 1e6};
  run_ranks(
      3,
      [&](Communicator& comm) {
        std::vector<std::byte> out(4000), in(4000);
        const int next = (comm.rank() + 1) % 3;
        const int previous = (comm.rank() + 2) % 3;
        const std::vector<Communicator::Message> sends = {{next, out.data(), out.size()}};
        const std::vector<Communicator::Message> receives = {{previous, in.data(), in.size()}};
        // 4000 bytes at 1 MB/s, and the latency.
        EXPECT_GE(longest(comm, [&] { comm.exchange(sends, receives, nullptr); }), 0.0059);
        EXPECT_GE(longest(comm,
                          [&] {
                            const auto first = comm.start_exchange(sends, receives, nullptr);
                            std::vector<std::byte> more(4000);
                            const std::vector<Communicator::Message> second_in = {
                                {previous, more.data(), more.size()}};
                            const auto second = comm.start_exchange(sends, second_in, nullptr);
                            first->finish();
                            second->finish();
                          }),
                  0.0099)
            << "two exchanges share the link";
        std::int64_t sum = 1;
        EXPECT_GE(seconds_of(
                      [&] { comm.all_reduce(&sum, &sum, 1, DType::i64, Reduction::sum, nullptr); }),
                  0.0019);
        EXPECT_EQ(sum, 3);
      },
      link);
}

TEST(CommLink, PiecesToItselfAndNothingAreFree) {
  run_ranks(
      2,
      [](Communicator& comm) {
        std::vector<std::byte> out(1000), in(1000);
        const std::vector<Communicator::Message> sends = {{comm.rank(), out.data(), out.size()}};
        const std::vector<Communicator::Message> receives = {{comm.rank(), in.data(), in.size()}};
        EXPECT_LT(seconds_of([&] { comm.start_exchange(sends, receives, nullptr)->finish(); }),
                  30.0);
        EXPECT_EQ(comm.bytes_sent(), 0);
      },
      Link{60.0, 1.0});
}

}  // namespace
}  // namespace spdnn::test
