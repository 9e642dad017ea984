// `chain_resident` on the SIMT layer, with plain copies: every run of layers, tile and schedule,
// bit for bit; and the form of its weights.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <array>
#include <bit>

#include "cuda/chain_resident.cuh"
#include "cuda/dispatch.hpp"
#include "support/chains.hpp"

namespace spdnn {
namespace {

using test::ChainProblem;
using test::ChainSpec;
using test::Rows;

constexpr float kUntouched = -77.0F;

const std::array<simt::Schedule, 3> kSchedules = {simt::Schedule{simt::Order::forward, 0},
                                                  simt::Schedule{simt::Order::reversed, 0},
                                                  simt::Schedule{simt::Order::random, 23}};

struct Case {
  ChainSpec chain;
  int tile = 16;  ///< images
  std::int64_t panel_width = 64;
};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const bool shared : {false, true}) {
    for (const int tile : {4, 8, 16}) {
      for (const std::int64_t panel : {32, 64}) {
        all.push_back({{{30, 50, 21, 40}, 12, Rows::grouped, shared, 37, -1}, tile, panel});
      }
      all.push_back({{{70, 600}, 9, Rows::grouped, shared, 9, -1}, tile, 64});
    }
    for (const std::int64_t batch : {0, 1, 15, 16, 17, 65}) {
      all.push_back({{{20, 33, 20}, 7, Rows::irregular, shared, batch, -1}, 16, 64});
    }
    for (const std::int64_t live : {0, 1, 16, 33, 64}) {
      all.push_back({{{24, 24, 24}, 8, Rows::equal, shared, 70, live}, 8, 64});
    }
    // Several chunks a layer, and rows that end inside eight columns or at them.
    for (const std::int64_t row_nnz : {15, 16, 17}) {
      all.push_back({{{300, 200, 300}, row_nnz, Rows::irregular, shared, 5, -1}, 4, 64});
    }
    all.push_back({{{900, 40, 900, 3}, 800, Rows::grouped, shared, 3, -1}, 4, 64});
    all.push_back({{{5, 1, 5}, 1, Rows::one_dense, shared, 12, -1}, 16, 64});
  }
  all.push_back({{{17, 9, 4}, 0, Rows::empty, false, 20, -1}, 16, 64});
  return all;
}

/// The chain in the host's memory, as the kernel takes it.
struct HostChain {
  cuda::ChainFormat format;
  std::vector<cuda::ChainLayerView> layers;
  cuda::ChainView view;

  HostChain(const ChainProblem& problem, const std::vector<std::int64_t>& widths, int tile,
            bool shared) {
    std::vector<CsrView> matrices;
    for (const Csr& w : problem.weights) matrices.push_back(w.view());
    format = cuda::build_chain(matrices, cuda::ChainTraits::block / tile, shared);
    for (std::int64_t l = 0; l < problem.layers(); ++l) {
      const ChainLayer<float> layer = problem.layer(l, problem.bias[l].data());
      layers.push_back(
          {format.layers[l].chunk_end, layer.bias, layer.epilogue, format.layers[l].shared_weight});
    }
    view.stream = reinterpret_cast<const uint4*>(format.stream.data());
    view.chunks = format.chunks.data();
    view.layers = layers.data();
    view.chunk_count = std::ssize(format.chunks);
    view.layer_count = static_cast<std::int32_t>(layers.size());
    for (std::size_t l = 0; l < widths.size(); ++l) {
      std::int32_t& room = l % 2 == 0 ? view.even_features : view.odd_features;
      room = std::max(room, static_cast<std::int32_t>(widths[l]));
    }
  }
};

void run_case(const Case& c, const simt::Schedule& schedule, std::uint64_t seed) {
  const ChainProblem problem(c.chain, c.panel_width, seed);
  const bool shared = c.chain.shared_values;
  const HostChain chain(problem, c.chain.widths, c.tile, shared);
  const std::int64_t features = c.chain.widths.back();
  std::vector<float> y(static_cast<std::size_t>(problem.panels(features)), kUntouched);
  std::vector<std::uint8_t> alive(static_cast<std::size_t>(c.chain.batch), 0);
  const std::int32_t* live = c.chain.live < 0 ? nullptr : &problem.live;
  const cuda::ChainKernelArgs args{
      chain.view,
      {problem.x.data(), c.chain.widths.front(), c.chain.batch, c.panel_width, live},
      {y.data(), features, c.chain.batch, c.panel_width, live},
      alive.data()};
  const std::size_t bytes =
      2 * cuda::kChainChunkBytes +
      static_cast<std::size_t>((chain.view.even_features + chain.view.odd_features) * c.tile) *
          sizeof(float);
  const simt::Launch launch{1 + static_cast<unsigned>(seed % 3), cuda::ChainTraits::block, bytes,
                            schedule};
  cuda::with_bool(shared, [&](auto one_value) {
    constexpr bool kShared = decltype(one_value)::value;
    using Loader = cuda::PlainLoader;
    auto* code = c.tile == 16  ? &cuda::chain_resident_kernel<16, kShared, Loader>
                 : c.tile == 8 ? &cuda::chain_resident_kernel<8, kShared, Loader>
                               : &cuda::chain_resident_kernel<4, kShared, Loader>;
    ASSERT_NO_THROW(simt::launch(launch, code, args));
  });
  ASSERT_NO_FATAL_FAILURE(problem.check(y, alive, kUntouched));
  for (std::int64_t i = problem.images(); i < c.chain.batch; ++i) ASSERT_EQ(alive[i], 0) << i;
}

TEST(CudaSimtChain, EveryRunGivesCanonicalOutputs) {
  ASSERT_GE(cases().size(), 40U);
  std::uint64_t seed = 1;
  for (const Case& c : cases()) {
    ++seed;
    for (const simt::Schedule& schedule : kSchedules) {
      SCOPED_TRACE(fmt::format("seed {} (run {}), tile {}, schedule {}", seed, seed - 2, c.tile,
                               static_cast<int>(schedule.order)));
      ASSERT_NO_FATAL_FAILURE(run_case(c, schedule, seed));
    }
  }
}

TEST(CudaChainFormat, HoldsEveryRowOnceInChunksThatFit) {
  std::mt19937_64 random(5);
  for (const std::int64_t row_nnz : {0, 3, 300, 2720}) {
    const Csr w = test::random_csr({150, 2800, row_nnz, Rows::grouped, false}, random);
    const std::vector<CsrView> layers = {w.view()};
    for (const std::int64_t workers : {1, 32, 128}) {
      const cuda::ChainFormat format = cuda::build_chain(layers, workers, false);
      std::vector<int> seen(150);
      for (const cuda::ChainChunk& chunk : format.chunks) {
        ASSERT_LE(chunk.units * cuda::kChainUnit, cuda::kChainChunkBytes);
        for (std::int64_t j = 0; j < chunk.jobs; ++j) {
          const auto job = std::bit_cast<cuda::ChainJob>(format.stream[chunk.begin + j]);
          ASSERT_TRUE(job.rows * workers <= 150 || job.rows == 1);
          const auto* rows = format.stream[chunk.begin + job.rows_at].words;
          for (int r = 0; r < job.rows; ++r) ++seen[rows[r]];
        }
      }
      ASSERT_EQ(std::count(seen.begin(), seen.end(), 1), 150) << workers;
    }
  }
}

TEST(CudaChainFormat, TheLongestRowFitsAndOneMoreDoesNot) {
  for (const bool shared : {false, true}) {
    const std::int64_t most = cuda::most_chain_entries(shared);
    for (const std::int64_t entries : {most, most + 1}) {
      std::vector<std::uint32_t> cols(static_cast<std::size_t>(entries), 1);
      std::vector<float> values(cols.size(), 0.5F);
      values[0] = shared ? 0.5F : 0.25F;
      const Csr w = make_csr(1, 2, {0, entries}, cols, values);
      const std::vector<CsrView> layers = {w.view()};
      if (entries == most) {
        EXPECT_EQ(cuda::build_chain(layers, 32, shared).chunks.size(), 1U);
      } else {
        EXPECT_THROW((void)cuda::build_chain(layers, 32, shared), DeviceError);
      }
    }
  }
}

}  // namespace
}  // namespace spdnn
