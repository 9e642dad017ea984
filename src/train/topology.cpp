// Patterns of layers: random, RadiX-Net, from a file, and the largest weights of a dense layer.
#include "topology.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "spdnn/model.hpp"
#include "spdnn/random.hpp"

namespace spdnn::train {
namespace {

/// Streams of random numbers for patterns lie apart from those of initial values.
constexpr std::uint64_t kPatternStream = std::uint64_t{1} << 32U;

/// A layer's place in the network: what it takes, and the size of its weights.
struct Frame {
  Window2d window;  ///< of convolutions and poolings
  std::int64_t rows = 0, cols = 0;
};

bool has_weights(const LayerSpec& layer) {
  return layer.kind == LayerKind::linear || layer.kind == LayerKind::conv2d;
}

void check_groups(const LayerSpec& layer, std::size_t l, const Planes& in) {
  if (layer.groups == 1) return;
  if (layer.outputs % layer.groups != 0 || in.channels % layer.groups != 0) {
    throw InputError(fmt::format("layer {}: {} groups must divide its {} filters and {} channels",
                                 l + 1, layer.groups, layer.outputs, in.channels));
  }
  if (layer.topology != Topology::dense && layer.topology != Topology::random) {
    throw InputError(
        fmt::format("layer {}: groups go with the topologies 'dense' and 'random'", l + 1));
  }
}

/// Every layer's place, from the first on.
std::vector<Frame> frames_of(const TrainSpec& spec, Planes in) {
  std::vector<Frame> frames;
  for (std::size_t l = 0; l < spec.layers.size(); ++l) {
    const LayerSpec& layer = spec.layers[l];
    if (layer.kind == LayerKind::linear) {
      frames.push_back({{}, layer.outputs, in.features()});
      in = Planes(layer.outputs);
      continue;
    }
    check_groups(layer, l, in);
    Frame frame;
    try {
      frame.window =
          make_window(in.channels, in.height, in.width, layer.kernel, layer.stride, layer.padding);
    } catch (const InputError& error) {
      throw InputError(fmt::format("layer {}: {}", l + 1, error.what()));
    }
    if (layer.kind == LayerKind::conv2d) {
      frame.rows = layer.outputs;
      frame.cols = in.channels * frame.window.taps();
    }
    in = {layer.kind == LayerKind::conv2d ? layer.outputs : in.channels, frame.window.out_height,
          frame.window.out_width};
    frames.push_back(frame);
  }
  return frames;
}

TrainLayer layer_in(const Frame& frame, const LayerSpec& layer, Pattern pattern) {
  switch (layer.kind) {
    case LayerKind::linear: return linear_layer(std::move(pattern), layer.activation);
    case LayerKind::conv2d: return conv_layer(frame.window, std::move(pattern), layer.activation);
    case LayerKind::max_pool:
    case LayerKind::average_pool: break;
  }
  return pool_layer(frame.window, layer.kind);
}

/// The pattern of filters that see their own group's channels alone, from one whose columns are
/// those of a single group.
Pattern spread_groups(const Pattern& narrow, std::int64_t groups) {
  std::vector<std::uint32_t> indices = narrow.col_indices();
  const std::int64_t rows = narrow.rows() / groups;
  for (std::int64_t row = 0; row < narrow.rows(); ++row) {
    const auto shift = static_cast<std::uint32_t>(row / rows * narrow.cols());
    for (std::int64_t k = narrow.row_offsets()[row]; k < narrow.row_offsets()[row + 1]; ++k) {
      indices[k] += shift;
    }
  }
  return {narrow.rows(), narrow.cols() * groups, narrow.row_offsets(), std::move(indices)};
}

/// Connections of a layer of a density: at least one.
std::int64_t connections(double density, std::int64_t rows, std::int64_t cols) {
  const double all = static_cast<double>(rows) * static_cast<double>(cols);
  return std::clamp<std::int64_t>(std::llround(density * all), 1, rows * cols);
}

/// Goes through all places in order and takes each with the probability that leaves every set of
/// `count` equally likely (Knuth, The Art of Computer Programming 2, algorithm S).
Pattern random_pattern(std::int64_t rows, std::int64_t cols, std::int64_t count, Random random) {
  std::vector<std::int64_t> offsets = {0};
  std::vector<std::uint32_t> indices;
  indices.reserve(static_cast<std::size_t>(count));
  std::int64_t left = rows * cols;
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::int64_t col = 0; col < cols; ++col, --left) {
      const auto wanted = static_cast<double>(count - std::ssize(indices));
      if (random.between(0.0, static_cast<double>(left)) < wanted) {
        indices.push_back(static_cast<std::uint32_t>(col));
      }
    }
    offsets.push_back(std::ssize(indices));
  }
  return {rows, cols, std::move(offsets), std::move(indices)};
}

/// The pattern of a matrix; its columns may come in any order.
Pattern pattern_of(const CsrView& w) {
  std::vector<std::int64_t> offsets = {0};
  std::vector<std::uint32_t> indices;
  indices.reserve(static_cast<std::size_t>(w.nnz));
  for (std::int64_t row = 0; row < w.rows; ++row) {
    for (std::int64_t k = w.row_begin(row); k < w.row_begin(row + 1); ++k) {
      indices.push_back(static_cast<std::uint32_t>(w.col(k)));
    }
    std::sort(indices.begin() + offsets.back(), indices.end());
    offsets.push_back(std::ssize(indices));
  }
  return {w.rows, w.cols, std::move(offsets), std::move(indices)};
}

Pattern radixnet_pattern(const TrainSpec& spec, std::size_t l, std::int64_t inputs) {
  const LayerSpec& layer = spec.layers[l];
  if (layer.kind != LayerKind::linear) {
    throw InputError(fmt::format("layer {}: topology 'radixnet' goes with linear layers", l + 1));
  }
  if (inputs != layer.outputs) {
    throw InputError(
        fmt::format("layer {}: a RadiX-Net layer has as many outputs as inputs, not "
                    "{} and {}",
                    l + 1, layer.outputs, inputs));
  }
  const RadixNetSpec radix = {inputs, std::ssize(spec.layers), layer.fold, 1.0F, spec.seed};
  return pattern_of(radixnet_layer(radix, static_cast<std::int64_t>(l)).view());
}

Pattern mask_pattern(const LayerSpec& layer, std::int64_t inputs) {
  const std::vector<Csr> matrices = read_cache(layer.mask);
  if (matrices.size() != 1 || matrices.front().rows() != layer.outputs ||
      matrices.front().cols() != inputs) {
    throw InputError(
        layer.mask,
        fmt::format("a mask is one matrix [{} outputs × {} inputs]; here "
                    "are {} matrices{}",
                    layer.outputs, inputs, matrices.size(),
                    matrices.empty() ? ""
                                     : fmt::format(", the first {} × {}", matrices.front().rows(),
                                                   matrices.front().cols())));
  }
  return pattern_of(matrices.front().view());
}

/// The largest values by magnitude, the first of equal ones.
Pattern largest_values(const StartLayer& from, std::int64_t count) {
  const std::vector<float>& values = from.values;
  std::vector<float> magnitudes(values.size());
  std::transform(values.begin(), values.end(), magnitudes.begin(),
                 [](float v) { return std::abs(v); });
  const auto bar = magnitudes.end() - count;
  std::nth_element(magnitudes.begin(), bar, magnitudes.end());
  const float least = *bar;
  std::int64_t equal = std::count(bar, magnitudes.end(), least);
  std::vector<std::int64_t> offsets = {0};
  std::vector<std::uint32_t> indices;
  for (std::int64_t row = 0; row < from.pattern.rows(); ++row) {
    for (std::int64_t col = 0; col < from.pattern.cols(); ++col) {
      const float magnitude = std::abs(values[row * from.pattern.cols() + col]);
      if (magnitude > least || (magnitude == least && equal-- > 0)) {
        indices.push_back(static_cast<std::uint32_t>(col));
      }
    }
    offsets.push_back(std::ssize(indices));
  }
  return {from.pattern.rows(), from.pattern.cols(), std::move(offsets), std::move(indices)};
}

Pattern magnitude_pattern(const LayerSpec& layer, std::size_t l, std::int64_t inputs,
                          const std::vector<StartLayer>& start) {
  if (l >= start.size() || !start[l].pattern.is_dense()) {
    throw InputError(
        fmt::format("layer {}: its connections are to be the largest of a trained "
                    "dense layer; name a checkpoint that has one under start_from",
                    l + 1));
  }
  return largest_values(start[l], connections(layer.density, layer.outputs, inputs));
}

}  // namespace

std::vector<double> layer_densities(const TrainSpec& spec, const Planes& input) {
  const std::vector<Frame> frames = frames_of(spec, input);
  std::vector<double> densities;
  std::vector<std::size_t> open;  // layers whose share is not yet known
  std::vector<double> sizes, weights;
  double total = 0.0;
  for (std::size_t l = 0; l < spec.layers.size(); ++l) {
    const LayerSpec& layer = spec.layers[l];
    const auto cols = static_cast<double>(frames[l].cols / layer.groups);
    densities.push_back(layer.topology == Topology::dense ? 1.0 : layer.density);
    sizes.push_back(cols * static_cast<double>(frames[l].rows));
    weights.push_back(cols + static_cast<double>(frames[l].rows));
    if (layer.topology == Topology::random && has_weights(layer)) {
      open.push_back(l);
      total += layer.density * sizes[l];
    }
  }
  if (spec.density_rule == DensityRule::as_given) return densities;
  // Layers that ε would overfill are full, and the others share what is left.
  while (!open.empty()) {
    double weight = 0.0;
    for (const std::size_t l : open) weight += weights[l];
    const double epsilon = total / weight;
    const auto full = std::find_if(open.begin(), open.end(),
                                   [&](std::size_t l) { return epsilon * weights[l] > sizes[l]; });
    if (full == open.end()) {
      for (const std::size_t l : open) densities[l] = epsilon * weights[l] / sizes[l];
      break;
    }
    densities[*full] = 1.0;
    total -= sizes[*full];
    open.erase(full);
  }
  return densities;
}

std::vector<TrainLayer> make_layers(const TrainSpec& spec, const Planes& input,
                                    const std::vector<StartLayer>& start) {
  const std::vector<Frame> frames = frames_of(spec, input);
  const std::vector<double> densities = layer_densities(spec, input);
  std::vector<TrainLayer> layers;
  for (std::size_t l = 0; l < spec.layers.size(); ++l) {
    const LayerSpec& layer = spec.layers[l];
    const Frame& frame = frames[l];
    const bool grouped = layer.groups > 1;
    const auto random = [&](double density) {
      const std::int64_t cols = frame.cols / layer.groups;
      return random_pattern(frame.rows, cols, connections(density, frame.rows, cols),
                            Random(spec.seed, kPatternStream + l));
    };
    Pattern pattern;
    if (has_weights(layer)) {
      switch (layer.topology) {
        case Topology::dense:
          pattern = grouped ? random(1.0) : Pattern::dense(frame.rows, frame.cols);
          break;
        case Topology::random: pattern = random(densities[l]); break;
        case Topology::radixnet: pattern = radixnet_pattern(spec, l, frame.cols); break;
        case Topology::mask: pattern = mask_pattern(layer, frame.cols); break;
        case Topology::magnitude: pattern = magnitude_pattern(layer, l, frame.cols, start); break;
      }
      if (grouped) pattern = spread_groups(pattern, layer.groups);
    }
    layers.push_back(layer_in(frame, layer, std::move(pattern)));
  }
  return layers;
}

std::vector<LayerRows<float>> first_rows(const TrainSpec& spec,
                                         const std::vector<TrainLayer>& layers,
                                         const std::vector<StartLayer>& start) {
  std::vector<LayerRows<float>> rows;
  for (std::size_t l = 0; l < layers.size(); ++l) {
    const TrainLayer& layer = layers[l];
    LayerRows<float>& first = rows.emplace_back();
    first.pattern = layer.pattern;
    if (start.empty()) {
      first.values = {draw_values<float>(layer, spec.seed, l)};
      first.biases.emplace_back(static_cast<std::size_t>(layer.pattern.rows()));
    } else {
      first.values = {values_on(layer.pattern, start[l])};
      first.biases = {start[l].bias};
    }
  }
  return rows;
}

std::vector<TrainLayer> restore_layers(const TrainSpec& spec, const Planes& input,
                                       const std::vector<StartLayer>& saved) {
  const std::vector<Frame> frames = frames_of(spec, input);
  std::vector<TrainLayer> layers;
  for (std::size_t l = 0; l < spec.layers.size(); ++l) {
    layers.push_back(layer_in(frames[l], spec.layers[l], saved[l].pattern));
  }
  return layers;
}

std::vector<float> values_on(const Pattern& pattern, const StartLayer& from) {
  if (pattern.rows() != from.pattern.rows() || pattern.cols() != from.pattern.cols()) {
    throw InputError(fmt::format("start_from: a layer there is {} × {}, but here {} × {}",
                                 from.pattern.rows(), from.pattern.cols(), pattern.rows(),
                                 pattern.cols()));
  }
  if (pattern.is_dense() && from.pattern.is_dense()) return from.values;
  std::vector<float> values(static_cast<std::size_t>(pattern.nnz()));
  std::vector<float> row_values(static_cast<std::size_t>(pattern.cols()));
  const auto column = [](const Pattern& p, std::int64_t row, std::int64_t k) {
    return p.is_dense() ? k : std::int64_t{p.col_indices()[p.row_offsets()[row] + k]};
  };
  auto to = values.begin();
  auto value = from.values.begin();
  for (std::int64_t row = 0; row < pattern.rows(); ++row) {
    std::fill(row_values.begin(), row_values.end(), 0.0F);
    for (std::int64_t k = 0; k < from.pattern.fan_in(row); ++k) {
      row_values[column(from.pattern, row, k)] = *value++;
    }
    for (std::int64_t k = 0; k < pattern.fan_in(row); ++k) {
      *to++ = row_values[column(pattern, row, k)];
    }
  }
  return values;
}

}  // namespace spdnn::train
