// Networks whose rows are divided between ranks against the same network on one rank: the bits of
// the way forward, the losses of a hundred steps, and every word that crosses. Between CPU ranks,
// or where tests are built for the SIMT layer, between GPUs as that plays them.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <mutex>
#include <numeric>

#include "host_view.hpp"
#include "spdnn/model.hpp"
#include "support/devices.hpp"
#include "train/problems.hpp"

namespace spdnn {
namespace {

using test::OwnedPanels;
using train::BatchPass;
using train::Network;
using train::Pattern;
using train::Shard;
using train::TrainLayer;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr Epilogue kRelu = {0.0F, kInfinity};
constexpr Epilogue kIdentity = {-kInfinity, kInfinity};

/// A network with its first parameters, which are those of one rank.
template <class T>
struct Problem {
  std::vector<TrainLayer> layers;
  std::vector<std::vector<T>> values, biases;  ///< by layer
  std::int64_t batch = 0;
  std::vector<T> x;  ///< [image][feature]
  std::vector<std::int32_t> labels;

  Problem(std::vector<TrainLayer> of, std::int64_t images, std::mt19937_64& random)
      : layers(std::move(of)), batch(images) {
    for (const TrainLayer& layer : layers) {
      const auto rows = std::max<std::int64_t>(layer.pattern.rows(), 1);
      values.push_back(test::random_values<T>(layer.pattern.nnz(), random));
      const double fan = static_cast<double>(layer.pattern.nnz() + 1) / static_cast<double>(rows);
      for (T& value : values.back()) value *= static_cast<T>(std::sqrt(1.5 / fan));
      biases.push_back(test::random_values<T>(layer.pattern.rows(), random));
      for (T& bias : biases.back()) bias *= static_cast<T>(0.1);
    }
    x = test::random_values<T>(layers.front().inputs() * batch, random);
    for (std::int64_t i = 0; i < batch; ++i) {
      labels.push_back(static_cast<std::int32_t>(
          random() % static_cast<std::uint64_t>(layers.back().outputs())));
    }
  }
};

std::vector<TrainLayer> sparse_layers(std::mt19937_64& random, double density) {
  const std::vector<std::int64_t> widths = {23, 41, 37, 29, 6};
  std::vector<TrainLayer> layers;
  for (std::size_t l = 0; l + 1 < widths.size(); ++l) {
    layers.push_back(
        train::linear_layer(test::random_pattern(widths[l + 1], widths[l], density, random),
                            l + 2 == widths.size() ? kIdentity : kRelu));
  }
  return layers;
}

std::vector<TrainLayer> mixed_layers(std::mt19937_64& random) {
  std::vector<TrainLayer> layers = sparse_layers(random, 0.3);
  layers.pop_back();
  layers.push_back(train::linear_layer(Pattern::dense(17, 29), kRelu));
  layers.push_back(train::linear_layer(Pattern::dense(5, 17), kIdentity));
  return layers;
}

/// Convolution, pooling, convolution, convolution, pooling, and a sparse and a dense linear layer.
std::vector<TrainLayer> convolutional_layers(std::mt19937_64& random, double density) {
  std::vector<TrainLayer> layers;
  const auto filters = [&](std::int64_t rows, const Window2d& w) {
    return test::layer_pattern(rows, w.channels * w.taps(), density, random);
  };
  const Window2d first = make_window(2, 7, 6, 3, 1, {});
  layers.push_back(train::conv_layer(first, filters(7, first), kRelu));
  layers.push_back(train::pool_layer(make_window(7, 7, 6, 2, 2, 0), LayerKind::max_pool));
  const Window2d second = make_window(7, 3, 3, 3, 1, {});
  layers.push_back(train::conv_layer(second, filters(9, second), kRelu));
  const Window2d third = make_window(9, 3, 3, 3, 1, {});
  layers.push_back(train::conv_layer(third, filters(8, third), kRelu));
  layers.push_back(train::pool_layer(make_window(8, 3, 3, 3, 3, 0), LayerKind::average_pool));
  layers.push_back(train::linear_layer(test::layer_pattern(11, 8, density, random), kRelu));
  layers.push_back(train::linear_layer(Pattern::dense(4, 11), kIdentity));
  return layers;
}

/// Rows dealt out at random, so that parts are uneven, and some may be empty.
std::vector<LayerPartition> random_partition(const std::vector<TrainLayer>& layers, int parts,
                                             std::mt19937_64& random) {
  std::vector<LayerPartition> partition;
  for (const TrainLayer& layer : layers) {
    std::vector<std::uint32_t> owners;
    for (std::int64_t unit = 0; unit < layer.units(); ++unit) {
      const auto part = random() % static_cast<std::uint64_t>(parts);
      owners.push_back(static_cast<std::uint32_t>(std::min(part, random() % 8)));
    }
    partition.push_back(partition_by_owners(owners, parts));
  }
  return partition;
}

/// The rows `units` of a pattern, and of the values that go with it.
template <class T>
void cut_rows(const Pattern& pattern, std::span<const std::uint32_t> units,
              const std::vector<T>& values, Pattern& cut, std::vector<T>& kept) {
  std::vector<std::int64_t> offsets = {0};
  std::vector<std::uint32_t> indices;
  for (const std::uint32_t unit : units) {
    const std::int64_t begin =
        pattern.is_dense() ? unit * pattern.cols() : pattern.row_offsets()[unit];
    const std::int64_t end = begin + pattern.fan_in(unit);
    kept.insert(kept.end(), values.begin() + begin, values.begin() + end);
    if (pattern.is_dense()) continue;
    indices.insert(indices.end(), pattern.col_indices().begin() + begin,
                   pattern.col_indices().begin() + end);
    offsets.push_back(std::ssize(indices));
  }
  cut = pattern.is_dense() ? Pattern::dense(std::ssize(units), pattern.cols())
                           : Pattern(std::ssize(units), pattern.cols(), offsets, indices);
}

template <class T>
struct Outcome {
  std::vector<T> outputs;      ///< of the first step
  std::vector<double> losses;  ///< of all steps
  /// By layer, and last of the loss: words sent for an image and step, all ranks together.
  std::vector<std::int64_t> forward_words, backward_words;
  std::int64_t bytes = 0;  ///< that the communicators counted
};

/// Which device a rank is: the first one, or a CPU.
using DeviceOf = DeviceSpec (*)(int rank);
DeviceSpec first_device(int /*rank*/) { return test::tested_devices().front(); }

template <class T>
const TrainKernels<T>& kernels_of(DeviceKind kind) {
  const auto table = train_kernels<T>();
  return *std::find_if(table.begin(), table.end(),
                       [&](const TrainKernels<T>& kernels) { return kernels.device == kind; });
}

/// One rank's steps of plain gradient descent.
template <class T>
void descend(const Problem<T>& problem, const std::vector<LayerPartition>& partition, int steps,
             DeviceOf device_of, Communicator& comm, std::mutex& mutex, Outcome<T>& outcome) {
  const std::unique_ptr<Device> device = open_device(device_of(comm.rank()));
  const auto stream = device->make_stream();
  const std::int64_t width = panel_width(device->info());
  std::vector<Pattern> rows(problem.layers.size());
  for (std::size_t l = 0; l < rows.size(); ++l) {
    std::vector<T> unused;
    if (problem.layers[l].pattern.rows() > 0) {
      cut_rows(problem.layers[l].pattern, part_of(partition[l], comm.rank()), problem.values[l],
               rows[l], unused);
    }
  }
  Shard shard = train::make_shard(comm, problem.layers, partition, rows);
  const TrainKernels<T>& kernels = kernels_of<T>(device->info().kind);
  Network<T> network(std::move(shard.layers), kernels, *device, *stream);
  for (std::size_t l = 0; l < rows.size(); ++l) {
    if (rows[l].rows() == 0) continue;
    Pattern pattern;
    std::vector<T> values;
    cut_rows(problem.layers[l].pattern, shard.units[l], problem.values[l], pattern, values);
    const auto put = [&](const std::vector<T>& from, Range to) {
      stream->copy(network.parameters() + to.begin, from.data(), from.size() * sizeof(T));
      stream->synchronize();
    };
    put(values, network.values_of(l));
    values.clear();
    for (const std::uint32_t unit : shard.units[l]) values.push_back(problem.biases[l][unit]);
    put(values, network.biases_of(l));
  }
  BatchPass<T> pass(network, shard, comm, problem.batch);
  OwnedPanels<T> x(problem.layers.front().inputs(), problem.batch, width);
  for (std::int64_t i = 0; i < problem.batch; ++i) {
    for (std::int64_t f = 0; f < x.view.features; ++f) {
      x.view.at(f, i) = problem.x[i * x.view.features + f];
    }
  }
  const std::int64_t bytes_before = comm.bytes_sent();
  std::vector<double> losses;
  std::vector<T> outputs;
  for (int step = 0; step < steps; ++step) {
    Panels<const T> y = pass.forward(x.view);
    const train::HostView<T> there(y.data, y.size(), *device, *stream);
    y.data = there.data();
    for (std::int64_t i = 0; step == 0 && i < y.batch; ++i) {
      for (std::int64_t f = 0; f < y.features; ++f) outputs.push_back(y.at(f, i));
    }
    losses.push_back(pass.loss(Loss::cross_entropy, problem.labels.data(),
                               T{1} / static_cast<T>(problem.batch), nullptr));
    pass.backward();
    UpdateArgs<T> update;
    update.count = network.parameter_count();
    update.parameters = network.parameters();
    update.gradient = network.gradient();
    update.rate = static_cast<T>(0.02);
    kernels.update(update, *stream);
  }
  const std::lock_guard lock(mutex);
  outcome.forward_words.resize(rows.size() + 1);
  outcome.backward_words.resize(rows.size() + 1);
  for (std::size_t l = 0; l <= rows.size(); ++l) {
    if (pass.exchange(l) == nullptr) continue;
    const std::int64_t per = problem.batch * steps * static_cast<std::int64_t>(sizeof(T));
    EXPECT_EQ(pass.exchange(l)->forward_bytes() % per, 0);
    outcome.forward_words[l] += pass.exchange(l)->forward_bytes() / per;
    outcome.backward_words[l] += pass.exchange(l)->backward_bytes() / per;
  }
  outcome.bytes += comm.bytes_sent() - bytes_before;
  if (outcome.losses.empty()) {
    outcome.outputs = std::move(outputs);
    outcome.losses = std::move(losses);
  } else if (device_of == first_device) {  // unlike devices compute the loss with other bits
    EXPECT_EQ(outcome.outputs, outputs) << "rank " << comm.rank();
    EXPECT_EQ(outcome.losses, losses) << "rank " << comm.rank();
  }
}

template <class T>
Outcome<T> run(const Problem<T>& problem, const std::vector<LayerPartition>& partition, int ranks,
               int steps, DeviceOf device_of = first_device) {
  Outcome<T> outcome;
  std::mutex mutex;
  run_ranks(ranks, [&](Communicator& comm) {
    descend(problem, partition, steps, device_of, comm, mutex, outcome);
  });
  return outcome;
}

template <class T>
void expect_alike(const Outcome<T>& one, const Outcome<T>& split, double bound) {
  EXPECT_EQ(one.outputs, split.outputs) << "forward differs in a bit";
  ASSERT_EQ(one.losses.size(), split.losses.size());
  for (std::size_t i = 0; i < one.losses.size(); ++i) {
    ASSERT_NEAR(split.losses[i], one.losses[i], bound * std::abs(one.losses[i])) << "step " << i;
  }
}

template <class T>
void check(const std::vector<TrainLayer>& layers, std::int64_t batch, int steps, double bound,
           const std::vector<int>& ranks) {
  std::mt19937_64 random(7);
  const Problem<T> problem(layers, batch, random);
  const Outcome<T> one = run(problem, train::split_units(layers, {1.0}), 1, steps);
  EXPECT_LT(one.losses.back(), one.losses.front());
  for (const int size : ranks) {
    SCOPED_TRACE(testing::Message() << size << " ranks");
    std::vector<double> shares;
    for (int r = 0; r < size; ++r) shares.push_back(1.0 + 2.0 * r);
    expect_alike(one, run(problem, train::split_units(layers, shares), size, steps), bound);
    expect_alike(one, run(problem, random_partition(layers, size, random), size, steps), bound);
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
    const Outcome<double> one = run(problem, train::split_units(layers, {1.0}), 1, 4);
    for (const int size : {2, 3, 5}) {
      const Outcome<double> split =
          run(problem, random_partition(layers, size, random), size, 4,
              [](int rank) { return rank % 2 == 0 ? first_device(rank) : DeviceSpec{}; });
      for (std::size_t i = 0; i < one.losses.size(); ++i) {
        ASSERT_NEAR(split.losses[i], one.losses[i], 1e-10 * std::abs(one.losses[i]))
            << size << " ranks, batch " << batch << ", step " << i;
      }
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
      const Outcome<float> outcome = run(problem, partition.layers, ranks, kFew);
      // Of the loss: all outputs to all ranks, and nothing back.
      const std::int64_t outputs = layers.back().units() * (ranks - 1);
      EXPECT_EQ(outcome.forward_words.back(), outputs);
      EXPECT_EQ(outcome.backward_words.back(), 0);
      std::int64_t words = outputs;
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
}  // namespace spdnn
