// Which layers are split by inputs: as asked for, or open to the plan.
#include "layer_splits.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

namespace spdnn::train {
namespace {

bool on_cpus(const std::vector<DeviceSpec>& devices) {
  return std::all_of(devices.begin(), devices.end(),
                     [](const DeviceSpec& d) { return d.kind == DeviceKind::cpu; });
}

/// Why no layer is split by inputs, of ranks that share rows.
std::string reason_for_none(const TrainSpec& spec, const std::vector<DeviceSpec>& devices) {
  if (spec.input_split != InputSplit::automatic) return {};
  if (!on_cpus(devices)) return "GPUs add up no parts of sums";
  // A partition that was searched for makes few inputs cross, and knows nothing of sums.
  if (spec.partition.chosen()) return "the chosen partition is of inputs that cross";
  return {};
}

}  // namespace

void check_input_split(const TrainSpec& spec, const std::vector<DeviceSpec>& devices) {
  if (spec.input_split != InputSplit::every_second) return;
  if (spec.model_ranks != 1 && on_cpus(devices)) return;
  throw InputError(
      "/train/input_split: 'every_second' is for CPU devices that share rows; set strategy "
      "'model' or 'grid', name CPU devices, or leave it at 'auto'");
}

std::vector<LayerSplit> given_splits(const TrainSpec& spec, const std::vector<TrainLayer>& layers,
                                     const std::vector<DeviceSpec>& devices) {
  if (spec.input_split == InputSplit::automatic && reason_for_none(spec, devices).empty()) {
    return {};
  }
  std::vector<LayerSplit> splits(layers.size(), LayerSplit::outputs);
  bool second = false;
  for (std::size_t l = 0; l < layers.size() && spec.input_split == InputSplit::every_second; ++l) {
    if (std::holds_alternative<PoolForm>(layers[l].form)) continue;
    if (second) splits[l] = LayerSplit::inputs;
    second = !second;
  }
  return splits;
}

void add_split_note(const TrainSpec& spec, const std::vector<DeviceSpec>& devices,
                    const TrainProblem& problem, const TrainLayout& layout,
                    std::vector<std::string>& notes) {
  const auto numbers_of = [](const std::vector<LayerSplit>& splits) {
    std::vector<std::size_t> numbers;
    for (std::size_t l = 0; l < splits.size(); ++l) {
      if (splits[l] == LayerSplit::inputs) numbers.push_back(l + 1);
    }
    return numbers;
  };
  if (layout.rows == 1) {
    if (spec.input_split != InputSplit::every_second) return;
    notes.emplace_back("no layer is split by inputs: the ranks share images, and no rows");
    return;
  }
  const std::vector<std::size_t> numbers = numbers_of(layout.splits);
  if (numbers.empty()) {
    const std::string reason = reason_for_none(spec, devices);
    const std::vector<std::size_t> fewer = numbers_of(splits_by_bytes(problem));
    if (reason.empty() || fewer.empty()) return;
    notes.push_back(
        fmt::format("no layer is split by inputs, though the sums of layers {} are fewer bytes "
                    "than what they read: {}",
                    fmt::join(fewer, ", "), reason));
    return;
  }
  double sums = 0.0;
  double inputs = 0.0;
  for (const std::size_t number : numbers) {
    sums += problem.sum_bytes[number - 1];
    inputs += problem.halo_bytes[number - 1];
  }
  notes.push_back(fmt::format(
      "layers {} of {} are split by inputs: the sums that their ranks add up are {:.4g} bytes of "
      "an image, the inputs that they need not gather {:.4g}",
      fmt::join(numbers, ", "), layout.splits.size(), sums, inputs));
}

}  // namespace spdnn::train
