// Layers split by inputs, alone and in turn with layers split by outputs, against one rank: losses
// of a hundred steps, first outputs, and every word that crosses.
#include "crossing_words.hpp"
#include "train/split_runs.hpp"

namespace spdnn::test {
namespace {

/// Every second layer that has weights, or all of them but the first.
std::vector<LayerSplit> alternating(const std::vector<TrainLayer>& layers, int every) {
  std::vector<LayerSplit> splits;
  int weighted = 0;
  for (const TrainLayer& layer : layers) {
    const bool pools = std::holds_alternative<train::PoolForm>(layer.form);
    splits.push_back(!pools && weighted > 0 && weighted % every == every - 1 ? LayerSplit::inputs
                                                                             : LayerSplit::outputs);
    weighted += pools ? 0 : 1;
  }
  return splits;
}

/// Every word that crossed, layer by layer, as counted from the connections.
template <class T>
void expect_words(const std::vector<TrainLayer>& layers, const Division& division, int ranks,
                  const Outcome<T>& outcome) {
  for (std::size_t l = 0; l < layers.size(); ++l) {
    const std::int64_t words =
        train::crossing_words(layers, division.partition, l, division.splits[l]);
    EXPECT_EQ(outcome.forward_words[l], words) << "layer " << l;
    EXPECT_EQ(outcome.backward_words[l], words) << "layer " << l;
  }
  EXPECT_EQ(outcome.forward_words.back(), LossPart::words * ranks * (ranks - 1));
  EXPECT_EQ(outcome.backward_words.back(), 0);
}

template <class T>
void check(const std::vector<TrainLayer>& layers, std::int64_t batch, int steps, double bound,
           const std::vector<int>& ranks) {
  std::mt19937_64 random(7);
  const Problem<T> problem(layers, batch, random);
  const Outcome<T> one = run(problem, Division{train::split_units(layers, {1.0})}, 1, steps);
  EXPECT_LT(one.losses.back(), one.losses.front());
  for (const int size : ranks) {
    std::vector<double> shares;
    for (int r = 0; r < size; ++r) shares.push_back(1.0 + 2.0 * r);
    for (const int every : {1, 2}) {
      SCOPED_TRACE(testing::Message() << size << " ranks, one in " << every << " by inputs");
      const std::vector<LayerSplit> splits = alternating(layers, every);
      for (const Division& division : {Division{train::split_units(layers, shares), splits},
                                       Division{random_partition(layers, size, random), splits}}) {
        const Outcome<T> split = run(problem, division, size, steps);
        expect_words(layers, division, size, split);
        expect_near_losses(one, split, bound);
        ASSERT_EQ(one.outputs.size(), split.outputs.size());
        for (std::size_t i = 0; i < one.outputs.size(); ++i) {
          ASSERT_NEAR(split.outputs[i], one.outputs[i], bound) << "output " << i;
        }
      }
    }
  }
}

TEST(InputSplit, HundredStepsInDouble) {
  std::mt19937_64 random(1);
  check<double>(sparse_layers(random, 0.25), 70, 100, 1e-10, {1, 3});
  check<double>(mixed_layers(random), 33, 100, 1e-10, {2});
  check<double>(convolutional_layers(random, 0.4), 5, 100, 1e-10, {4});
  check<double>(convolutional_layers(random, 1.0), 5, 20, 1e-10, {3});
}

TEST(InputSplit, HundredStepsInFloat) {
  std::mt19937_64 random(2);
  check<float>(mixed_layers(random), 33, 100, 1e-4, {4});
  check<float>(convolutional_layers(random, 0.4), 5, 100, 1e-4, {3});
}

TEST(InputSplit, UpToEightRanksAndBatchesOfAnySize) {
  std::mt19937_64 random(3);
  for (const std::int64_t batch : {1, 31, 129}) {
    check<double>(sparse_layers(random, 0.1), batch, 5, 1e-10, {1, 2, 4, 5, 6, 7, 8});
  }
  check<double>(convolutional_layers(random, 0.3), 3, 5, 1e-10, {2, 5, 8});
}

}  // namespace
}  // namespace spdnn::test
