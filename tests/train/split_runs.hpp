// Networks whose layers are divided between ranks against the same network on one rank.
#pragma once

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

namespace spdnn::test {

using train::BatchPass;
using train::Network;
using train::Pattern;
using train::Shard;
using train::TrainLayer;

inline constexpr float kInfinity = std::numeric_limits<float>::infinity();
inline constexpr Epilogue kRelu = {0.0F, kInfinity};
inline constexpr Epilogue kIdentity = {-kInfinity, kInfinity};

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
      values.push_back(random_values<T>(layer.pattern.nnz(), random));
      const double fan = static_cast<double>(layer.pattern.nnz() + 1) / static_cast<double>(rows);
      for (T& value : values.back()) value *= static_cast<T>(std::sqrt(1.5 / fan));
      biases.push_back(random_values<T>(layer.pattern.rows(), random));
      for (T& bias : biases.back()) bias *= static_cast<T>(0.1);
    }
    x = random_values<T>(layers.front().inputs() * batch, random);
    for (std::int64_t i = 0; i < batch; ++i) {
      labels.push_back(static_cast<std::int32_t>(
          random() % static_cast<std::uint64_t>(layers.back().outputs())));
    }
  }
};

inline std::vector<TrainLayer> sparse_layers(std::mt19937_64& random, double density) {
  const std::vector<std::int64_t> widths = {23, 41, 37, 29, 6};
  std::vector<TrainLayer> layers;
  for (std::size_t l = 0; l + 1 < widths.size(); ++l) {
    layers.push_back(train::linear_layer(random_pattern(widths[l + 1], widths[l], density, random),
                                         l + 2 == widths.size() ? kIdentity : kRelu));
  }
  return layers;
}

inline std::vector<TrainLayer> mixed_layers(std::mt19937_64& random) {
  std::vector<TrainLayer> layers = sparse_layers(random, 0.3);
  layers.pop_back();
  layers.push_back(train::linear_layer(Pattern::dense(17, 29), kRelu));
  layers.push_back(train::linear_layer(Pattern::dense(5, 17), kIdentity));
  return layers;
}

/// Convolution, pooling, convolution, convolution, pooling, and a sparse and a dense linear layer.
inline std::vector<TrainLayer> convolutional_layers(std::mt19937_64& random, double density) {
  std::vector<TrainLayer> layers;
  const auto filters = [&](std::int64_t rows, const Window2d& w) {
    return layer_pattern(rows, w.channels * w.taps(), density, random);
  };
  const Window2d first = make_window(2, 7, 6, 3, 1, {});
  layers.push_back(train::conv_layer(first, filters(7, first), kRelu));
  layers.push_back(train::pool_layer(make_window(7, 7, 6, 2, 2, 0), LayerKind::max_pool));
  const Window2d second = make_window(7, 3, 3, 3, 1, {});
  layers.push_back(train::conv_layer(second, filters(9, second), kRelu));
  const Window2d third = make_window(9, 3, 3, 3, 1, {});
  layers.push_back(train::conv_layer(third, filters(8, third), kRelu));
  layers.push_back(train::pool_layer(make_window(8, 3, 3, 3, 3, 0), LayerKind::average_pool));
  layers.push_back(train::linear_layer(layer_pattern(11, 8, density, random), kRelu));
  layers.push_back(train::linear_layer(Pattern::dense(4, 11), kIdentity));
  return layers;
}

/// Rows dealt out at random, so that parts are uneven, and some may be empty.
inline std::vector<LayerPartition> random_partition(const std::vector<TrainLayer>& layers,
                                                    int parts, std::mt19937_64& random) {
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

/// The entries of a pattern in the columns that a rank owns, as `rows_to_columns` has them.
template <class T>
void cut_columns(const Pattern& pattern, const std::vector<std::uint32_t>& owners, int rank,
                 const std::vector<T>& values, Pattern& cut, std::vector<T>& kept) {
  std::vector<std::int64_t> offsets = {0};
  std::vector<std::uint32_t> indices;
  for (std::int64_t row = 0; row < pattern.rows(); ++row) {
    for (std::int64_t i = 0; i < pattern.fan_in(row); ++i) {
      const std::int64_t k =
          pattern.is_dense() ? row * pattern.cols() + i : pattern.row_offsets()[row] + i;
      const auto col =
          pattern.is_dense() ? static_cast<std::uint32_t>(i) : pattern.col_indices()[k];
      if (static_cast<int>(owners[col]) != rank) continue;
      indices.push_back(col);
      kept.push_back(values[k]);
    }
    offsets.push_back(std::ssize(indices));
  }
  cut = pattern.is_dense()
            ? Pattern::dense(pattern.rows(), std::count(owners.begin(), owners.end(),
                                                        static_cast<std::uint32_t>(rank)))
            : Pattern(pattern.rows(), pattern.cols(), offsets, indices);
}

/// How the layers of a network are divided.
struct Division {
  std::vector<LayerPartition> partition;
  std::vector<LayerSplit> splits = {};  ///< empty: all by outputs
  [[nodiscard]] bool by_inputs(std::size_t layer) const {
    return !splits.empty() && splits[layer] == LayerSplit::inputs;
  }
};

template <class T>
struct Outcome {
  std::vector<T> outputs;      ///< of the first step, [image][output]
  std::vector<double> losses;  ///< of all steps
  /// By layer, and last of the loss: words sent for an image and step, all ranks together.
  std::vector<std::int64_t> forward_words, backward_words;
  std::int64_t bytes = 0;  ///< that the communicators counted
};

/// Which device a rank is: the first one, or a CPU.
using DeviceOf = DeviceSpec (*)(int rank);
inline DeviceSpec first_device(int /*rank*/) { return tested_devices().front(); }

template <class T>
const TrainKernels<T>& kernels_of(DeviceKind kind) {
  const auto table = train_kernels<T>();
  return *std::find_if(table.begin(), table.end(),
                       [&](const TrainKernels<T>& kernels) { return kernels.device == kind; });
}

/// The patterns of what a rank has, for `make_shard`, and the values in the same order.
template <class T>
void cut_layers(const Problem<T>& problem, const Division& division, int rank,
                std::vector<Pattern>& patterns, std::vector<std::vector<T>>& values) {
  patterns.resize(problem.layers.size());
  values.resize(problem.layers.size());
  for (std::size_t l = 0; l < patterns.size(); ++l) {
    const Pattern& whole = problem.layers[l].pattern;
    if (whole.rows() == 0) continue;
    if (division.by_inputs(l)) {
      cut_columns(whole, train::column_owners(problem.layers, division.partition, l), rank,
                  problem.values[l], patterns[l], values[l]);
    } else {
      cut_rows(whole, part_of(division.partition[l], rank), problem.values[l], patterns[l],
               values[l]);
    }
  }
}

/// Puts a rank's parameters where its network wants them.
template <class T>
void load(const Problem<T>& problem, const Shard& shard, const std::vector<Pattern>& patterns,
          const std::vector<std::vector<T>>& cut, Network<T>& network, Stream& stream) {
  const auto put = [&](const std::vector<T>& from, Range to) {
    stream.copy(network.parameters() + to.begin, from.data(), from.size() * sizeof(T));
    stream.synchronize();
  };
  for (std::size_t l = 0; l < patterns.size(); ++l) {
    if (problem.layers[l].pattern.rows() == 0) continue;
    Pattern pattern;
    std::vector<T> values;
    const bool by_inputs = shard.sums[l].has_value();
    const std::vector<std::uint32_t>& rows = by_inputs ? shard.sums[l]->rows : shard.units[l];
    if (by_inputs) {
      cut_rows(patterns[l], rows, cut[l], pattern, values);
    } else {
      cut_rows(problem.layers[l].pattern, rows, problem.values[l], pattern, values);
    }
    put(values, network.values_of(l));
    std::vector<T> biases;
    for (const std::uint32_t unit : shard.units[l]) biases.push_back(problem.biases[l][unit]);
    biases.resize(static_cast<std::size_t>(network.biases_of(l).size()));  // 0 for units of others
    put(biases, network.biases_of(l));
  }
}

/// Puts a rank's outputs where they belong among all of them.
template <class T>
void keep_outputs(const Panels<const T>& own, const Shard& shard, std::vector<T>& all) {
  all.resize(static_cast<std::size_t>(own.batch * shard.all_outputs));
  for (std::int64_t i = 0; i < own.batch; ++i) {
    for (std::int64_t f = 0; f < own.features; ++f) {
      all[i * shard.all_outputs + shard.outputs[f]] = own.at(f, i);
    }
  }
}

/// One rank's steps of plain gradient descent.
template <class T>
void descend(const Problem<T>& problem, const Division& division, int steps, DeviceOf device_of,
             Communicator& comm, std::mutex& mutex, Outcome<T>& outcome) {
  const std::unique_ptr<Device> device = open_device(device_of(comm.rank()));
  const auto stream = device->make_stream();
  const std::int64_t width = panel_width(device->info());
  std::vector<Pattern> rows;
  std::vector<std::vector<T>> values;
  cut_layers(problem, division, comm.rank(), rows, values);
  Shard shard = train::make_shard(comm, problem.layers, division.partition, rows, division.splits);
  const TrainKernels<T>& kernels = kernels_of<T>(device->info().kind);
  Network<T> network(std::move(shard.layers), kernels, *device, *stream);
  load(problem, shard, rows, values, network, *stream);
  BatchPass<T> pass(network, shard, comm, problem.batch);
  OwnedPanels<T> x(problem.layers.front().inputs(), problem.batch, width);
  for (std::int64_t i = 0; i < problem.batch; ++i) {
    for (std::int64_t f = 0; f < x.view.features; ++f) {
      x.view.at(f, i) = problem.x[i * x.view.features + f];
    }
  }
  const std::int64_t bytes_before = comm.bytes_sent();
  std::vector<double> losses;
  for (int step = 0; step < steps; ++step) {
    pass.start(x.view, Loss::cross_entropy, problem.labels.data(),
               T{1} / static_cast<T>(problem.batch));
    losses.push_back(pass.finish_loss(nullptr));
    if (step == 0) {
      Panels<const T> y = pass.output(problem.layers.size() - 1);
      const train::HostView<T> there(y.data, y.size(), *device, *stream);
      y.data = there.data();
      const std::lock_guard lock(mutex);
      keep_outputs(y, shard, outcome.outputs);
    }
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
    const std::int64_t per = problem.batch * steps * static_cast<std::int64_t>(sizeof(T));
    EXPECT_EQ(pass.forward_bytes(l) % per, 0);
    outcome.forward_words[l] += pass.forward_bytes(l) / per;
    outcome.backward_words[l] += pass.backward_bytes(l) / per;
  }
  outcome.bytes += comm.bytes_sent() - bytes_before;
  if (outcome.losses.empty()) {
    outcome.losses = std::move(losses);
  } else if (device_of == first_device) {  // unlike devices compute the loss with other bits
    EXPECT_EQ(outcome.losses, losses) << "rank " << comm.rank();
  }
}

template <class T>
Outcome<T> run(const Problem<T>& problem, const Division& division, int ranks, int steps,
               DeviceOf device_of = first_device) {
  Outcome<T> outcome;
  std::mutex mutex;
  run_ranks(ranks, [&](Communicator& comm) {
    descend(problem, division, steps, device_of, comm, mutex, outcome);
  });
  return outcome;
}

/// Losses within `bound`, relative.
template <class T>
void expect_near_losses(const Outcome<T>& one, const Outcome<T>& split, double bound) {
  ASSERT_EQ(one.losses.size(), split.losses.size());
  for (std::size_t i = 0; i < one.losses.size(); ++i) {
    ASSERT_NEAR(split.losses[i], one.losses[i], bound * std::abs(one.losses[i])) << "step " << i;
  }
}

}  // namespace spdnn::test
