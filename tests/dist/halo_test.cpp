// Halo lists and their exchanges against a table of who owns and reads what, for 1 to 8 ranks.
#include "spdnn/halo.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>

#include "support/fake_nccl.hpp"

namespace spdnn {
namespace {

/// Random owners of features, and what each rank reads; some ranks own or read nothing.
struct Table {
  std::vector<std::uint32_t> owners;
  std::vector<std::vector<std::uint32_t>> own;   ///< by rank, in an order of its own
  std::vector<std::vector<std::uint32_t>> read;  ///< by rank, ascending

  Table(int ranks, std::uint32_t features, std::uint64_t seed)
      : own(static_cast<std::size_t>(ranks)), read(own.size()) {
    std::mt19937_64 random(seed);
    const auto used = 1 + random() % own.size();
    for (std::uint32_t f = 0; f < features; ++f) {
      owners.push_back(static_cast<std::uint32_t>(random() % used));
      own[owners.back()].push_back(f);
    }
    for (std::size_t r = 0; r < own.size(); ++r) {
      std::shuffle(own[r].begin(), own[r].end(), random);
      const auto density = random() % 4;  // none, a third, two thirds, all
      for (std::uint32_t f = 0; f < features; ++f) {
        if (random() % 3 < density) read[r].push_back(f);
      }
    }
  }
  /// Words that cross for one image: one for each feature and rank other than its owner that reads.
  [[nodiscard]] std::int64_t words() const {
    std::int64_t words = 0;
    for (std::size_t r = 0; r < read.size(); ++r) {
      for (const std::uint32_t f : read[r]) words += owners[f] == r ? 0 : 1;
    }
    return words;
  }
};

template <class T>
struct Matrix {
  std::vector<T> data;
  Panels<T> view;
  Matrix(std::int64_t features, std::int64_t batch, std::int64_t width) {
    view = {nullptr, features, batch, width, nullptr};
    data.assign(static_cast<std::size_t>(view.size()), T{-1});
    view.data = data.data();
  }
};

/// Small whole numbers, so that sums are exact in every order.
template <class T>
T value_of(std::uint32_t feature, std::int64_t image) {
  return static_cast<T>((feature * 31 + image * 7) % 1000 + 1);
}

template <class T>
void check_forward(HaloExchange<T>& exchange, const Table& table, std::size_t me,
                   std::span<const Range> chunks, const Panels<T>& own, const Panels<T>& inputs,
                   Stream& stream) {
  for (std::int64_t i = 0; i < own.features; ++i) {
    for (std::int64_t b = 0; b < own.batch; ++b) own.at(i, b) = value_of<T>(table.own[me][i], b);
  }
  for (const Range& chunk : chunks) exchange.start_forward(own, inputs, chunk, stream);
  for (const Range& chunk : chunks) exchange.finish_forward(inputs, chunk, stream);
  for (std::int64_t i = 0; i < inputs.features; ++i) {
    for (std::int64_t b = 0; b < inputs.batch; ++b) {
      ASSERT_EQ(inputs.at(i, b), value_of<T>(table.read[me][i], b));
    }
  }
}

/// Every reader hands back (its rank + 1) · value; the owner gets their sum.
template <class T>
void check_backward(HaloExchange<T>& exchange, const Table& table, std::size_t me,
                    std::span<const Range> chunks, const Panels<T>& own, const Panels<T>& inputs,
                    Stream& stream) {
  for (T* v = inputs.data; v != inputs.data + inputs.size(); ++v) *v *= static_cast<T>(me + 1);
  for (const Range& chunk : chunks) exchange.start_backward(inputs, own, chunk, stream);
  for (const Range& chunk : chunks) exchange.finish_backward(own, chunk, stream);
  std::vector<T> times(table.owners.size());
  for (std::size_t r = 0; r < table.read.size(); ++r) {
    for (const std::uint32_t f : table.read[r]) times[f] += static_cast<T>(r + 1);
  }
  for (std::int64_t i = 0; i < own.features; ++i) {
    const std::uint32_t f = table.own[me][i];
    for (std::int64_t b = 0; b < own.batch; ++b) {
      ASSERT_EQ(own.at(i, b), times[f] * value_of<T>(f, b)) << "feature " << f;
    }
  }
}

using Runner = void (*)(int ranks, const std::function<void(Communicator&)>& body);

template <class T>
void check(Runner run, int ranks, std::uint64_t seed) {
  const Table table(ranks, static_cast<std::uint32_t>(seed % 97), seed);
  std::vector<std::int64_t> sent(static_cast<std::size_t>(ranks));
  constexpr std::int64_t kMost = 100;
  run(ranks, [&](Communicator& comm) {
    const auto me = static_cast<std::size_t>(comm.rank());
    DeviceSpec spec;
    spec.threads = 1;
    const auto device = open_device(spec);
    const auto stream = device->make_stream();
    const Halo halo = make_halo(comm, table.owners, table.own[me], table.read[me]);
    for (const std::int64_t width : {1, 32}) {
      HaloExchange<T> exchange(halo, comm, *device, *stream, kMost);
      std::int64_t images = 0;
      for (const std::int64_t batch : {kMost, std::int64_t{1}, std::int64_t{33}}) {
        images += batch;
        Matrix<T> own(halo.own, batch, width);
        Matrix<T> inputs(halo.inputs, batch, width);
        const std::int64_t panels = own.view.count();
        const std::vector<Range> chunks = {{0, panels / 2}, {panels / 2, panels}};
        check_forward<T>(exchange, table, me, chunks, own.view, inputs.view, *stream);
        check_backward<T>(exchange, table, me, chunks, own.view, inputs.view, *stream);
      }
      const auto word = static_cast<std::int64_t>(sizeof(T));
      EXPECT_EQ(exchange.forward_bytes(), halo.words_sent() * images * word);
      EXPECT_EQ(exchange.backward_bytes(), halo.words_received() * images * word);
    }
    sent[me] = halo.words_sent();
  });
  EXPECT_EQ(std::accumulate(sent.begin(), sent.end(), std::int64_t{0}), table.words());
}

void in_process(int ranks, const std::function<void(Communicator&)>& body) {
  run_ranks(ranks, body);
}

void on_nccl(int ranks, const std::function<void(Communicator&)>& body) {
  test::reset_fake_nccl();
  test::run_nccl_ranks(ranks, body);
  EXPECT_EQ(test::aborted_nccl_groups(), 0);
}

class Halos : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Ranks, Halos, testing::Range(1, 9));

TEST_P(Halos, BringInputsAndHandSumsBack) {
  for (std::uint64_t seed = 0; seed < 12; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed * 13);
    check<float>(in_process, GetParam(), seed * 13);
    check<double>(in_process, GetParam(), seed * 13);
    check<float>(on_nccl, GetParam(), seed * 13);
    check<double>(on_nccl, GetParam(), seed * 13);
  }
}

TEST_P(Halos, CallsOfNcclAreThoseOfTheLists) {
  for (std::uint64_t seed = 1; seed < 8; ++seed) {
    const Table table(GetParam(), 61, seed);
    constexpr std::int64_t kImages = 40;
    on_nccl(GetParam(), [&](Communicator& comm) {
      const auto me = static_cast<std::size_t>(comm.rank());
      const auto device = open_device({});
      const auto stream = device->make_stream();
      const Halo halo = make_halo(comm, table.owners, table.own[me], table.read[me]);
      HaloExchange<float> exchange(halo, comm, *device, *stream, kImages);
      Matrix<float> own(halo.own, kImages, 32), inputs(halo.inputs, kImages, 32);
      const std::size_t before = test::nccl_calls(comm.rank()).size();
      const std::vector<Range> chunks = {{0, 1}, {1, 2}};  // 32 images and 8
      check_forward<float>(exchange, table, me, chunks, own.view, inputs.view, *stream);
      check_backward<float>(exchange, table, me, chunks, own.view, inputs.view, *stream);
      std::vector<std::string> expected;
      for (const std::int64_t images : {32, 8}) {
        test::add_exchange(expected, halo.sends, halo.receives, images);
      }
      for (const std::int64_t images : {32, 8}) {
        test::add_exchange(expected, halo.receives, halo.sends, images);
      }
      auto calls = test::nccl_calls(comm.rank());
      calls.erase(calls.begin(), calls.begin() + static_cast<std::ptrdiff_t>(before));
      EXPECT_EQ(calls, expected) << "rank " << comm.rank();
    });
  }
}

TEST(MessagePool, GivesOutAgainWhatCameBack) {
  std::shared_ptr<std::byte> last;
  {
    const MessagePool pool;
    std::shared_ptr<std::byte> first = pool.take(100);
    const std::byte* const place = first.get();
    const std::shared_ptr<std::byte> second = pool.take(100);
    EXPECT_NE(second.get(), place) << "somebody still has it";
    EXPECT_EQ(pool.bytes(), 200);
    first.reset();
    EXPECT_EQ(pool.take(60).get(), place);
    EXPECT_EQ(pool.bytes(), 200);
    last = pool.take(300);
    EXPECT_EQ(pool.bytes(), 500);
  }
  *last = std::byte{1};  // it outlives the pool
}

TEST(HaloOfOneRank, NeedsNoCopies) {
  run_ranks(1, [](Communicator& comm) {
    const std::vector<std::uint32_t> owners(5), all = {0, 1, 2, 3, 4}, some = {1, 3};
    EXPECT_TRUE(make_halo(comm, owners, all, all).in_place);
    EXPECT_FALSE(make_halo(comm, owners, all, some).in_place);
    EXPECT_FALSE(make_halo(comm, owners, std::vector<std::uint32_t>{1, 0, 2, 3, 4}, all).in_place);
  });
}

TEST(HaloOfDisagreeingRanks, IsAnError) {
  EXPECT_THROW(run_ranks(2,
                         [](Communicator& comm) {
                           // Each believes that the other owns feature 0.
                           const std::vector<std::uint32_t> owners = {
                               static_cast<std::uint32_t>(1 - comm.rank())};
                           static_cast<void>(make_halo(comm, owners, {}, {0}));
                         }),
               CommError);
}

}  // namespace
}  // namespace spdnn
