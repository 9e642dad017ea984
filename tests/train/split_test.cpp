// Networks whose rows are divided between ranks against the same network on one rank: the bits of
// the way forward, the losses of a hundred steps, and every word that crosses. Between CPU ranks,
// or where tests are built for the SIMT layer, between GPUs as that plays them.
#include "train/split_runs.hpp"

namespace spdnn::test {
namespace {

/// The way forward bit for bit, and the losses.
template <class T>
void expect_alike(const Outcome<T>& one, const Outcome<T>& split, double bound) {
  EXPECT_EQ(one.outputs, split.outputs) << "forward differs in a bit";
  expect_near_losses(one, split, bound);
}

template <class T>
void check(const std::vector<TrainLayer>& layers, std::int64_t batch, int steps, double bound,
           const std::vector<int>& ranks) {
  std::mt19937_64 random(7);
  const Problem<T> problem(layers, batch, random);
  const Outcome<T> one = run(problem, Division{train::split_units(layers, {1.0})}, 1, steps);
  EXPECT_LT(one.losses.back(), one.losses.front());
  for (const int size : ranks) {
    SCOPED_TRACE(testing::Message() << size << " ranks");
    std::vector<double> shares;
    for (int r = 0; r < size; ++r) shares.push_back(1.0 + 2.0 * r);
    for (const Division& division : {Division{train::split_units(layers, shares)},
                                     Division{random_partition(layers, size, random)}}) {
      expect_alike(one, run(problem, division, size, steps), bound);
    }
  }
}

/// The SIMT layer is slow.
#if defined(SPDNN_ON_SIMT)
constexpr int kSteps = 4;
const std::vector<std::int64_t> kBatches = {65};
#else
constexpr int kSteps = 100;
const std::vector<std::int64_t> kBatches = {1, 31, 33, 129};
#endif

TEST(SplitRows, ManyStepsInDouble) {
  std::mt19937_64 random(1);
  check<double>(sparse_layers(random, 0.25), 70, kSteps, 1e-10, {1, 2, 3, 4});
  check<double>(mixed_layers(random), 33, kSteps, 1e-10, {2, 3, 4});
  check<double>(convolutional_layers(random, 0.4), 5, kSteps, 1e-10, {2, 4});
  check<double>(convolutional_layers(random, 1.0), 5, kSteps, 1e-10, {3});
}

TEST(SplitRows, ManyStepsInFloat) {
  std::mt19937_64 random(2);
  check<float>(sparse_layers(random, 0.25), 70, kSteps, 1e-4, {2, 3, 4});
  check<float>(mixed_layers(random), 33, kSteps, 1e-4, {2, 3, 4});
  check<float>(convolutional_layers(random, 0.4), 5, kSteps, 1e-4, {3});
}

TEST(SplitRows, UpToEightRanksAndBatchesOfAnySize) {
  std::mt19937_64 random(3);
  for (const std::int64_t batch : kBatches) {
    check<double>(sparse_layers(random, 0.1), batch, 5, 1e-10, {1, 2, 3, 4, 5, 6, 7, 8});
  }
  check<double>(convolutional_layers(random, 0.3), 3, 5, 1e-10, {5, 6, 7, 8});
}

#if defined(SPDNN_ON_SIMT)
/// GPUs and CPUs have panels of unlike widths, and send each other the same messages.
TEST(SplitRows, BetweenUnlikeDevices) {
  std::mt19937_64 random(5);
  for (const std::int64_t batch : {1, 40, 130, 200}) {
    const std::vector<TrainLayer> layers =
        batch == 130 ? convolutional_layers(random, 0.4) : mixed_layers(random);
    const Problem<double> problem(layers, batch, random);
    const Outcome<double> one = run(problem, Division{train::split_units(layers, {1.0})}, 1, 4);
    for (const int size : {2, 3, 5}) {
      const Outcome<double> split =
          run(problem, Division{random_partition(layers, size, random)}, size, 4,
              [](int rank) { return rank % 2 == 0 ? first_device(rank) : DeviceSpec{}; });
      SCOPED_TRACE(testing::Message() << size << " ranks, batch " << batch);
      expect_near_losses(one, split, 1e-10);
    }
  }
}
#endif

/// A model of the same matrices, for the count of the partition's own module.
Model model_of(const std::vector<TrainLayer>& layers) {
  Model model;
  for (const TrainLayer& layer : layers) {
    const Pattern& p = layer.pattern;
    const auto nnz = static_cast<std::size_t>(p.nnz());
    model.layers.push_back(SparseLinear{make_csr(p.rows(), p.cols(), p.row_offsets(),
                                                 p.col_indices(), std::vector<float>(nnz, 1.0F)),
                                        {0.0F},
                                        layer.activation});
  }
  return model;
}

TEST(SplitRows, BytesAreThoseThePartitionPredicts) {
  std::mt19937_64 random(4);
  for (int ranks = 1; ranks <= 8; ++ranks) {
    for (const std::int64_t batch : {1, 45}) {
      const std::vector<TrainLayer> layers = sparse_layers(random, 0.15);
      const Problem<float> problem(layers, batch, random);
      Partition partition;
      partition.layers = random_partition(layers, ranks, random);
      const Model model = model_of(layers);
      partition.model_key = model_key(model);
      const Traffic traffic = count_traffic(model, partition);
      constexpr int kFew = 3;
      const Outcome<float> outcome = run(problem, Division{partition.layers}, ranks, kFew);
      // Of the loss: what each rank's outputs say to every other, and nothing back.
      const std::int64_t loss = LossPart::words * ranks * (ranks - 1);
      EXPECT_EQ(outcome.forward_words.back(), loss);
      EXPECT_EQ(outcome.backward_words.back(), 0);
      std::int64_t words = loss;
      for (std::size_t l = 0; l < layers.size(); ++l) {
        EXPECT_EQ(outcome.forward_words[l], traffic.layers[l].words) << "layer " << l;
        EXPECT_EQ(outcome.backward_words[l], traffic.layers[l].words) << "layer " << l;
        words += 2 * traffic.layers[l].words;
      }
      EXPECT_EQ(outcome.bytes, words * batch * kFew * 4);
    }
  }
}

}  // namespace
}  // namespace spdnn::test
