// Measuring whole steps (forward, loss, backward and update) and single layers, as the run will do
// them.
#include "device_cost.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>

#include "any_pass.hpp"
#include "optimizer.hpp"
#include "pieces.hpp"
#include "row_cost.hpp"
#include "step_clock.hpp"
#include "step_cost.hpp"

namespace spdnn::train {
namespace {

/// Raised whenever kernels or the way they are timed change enough that older times mislead.
constexpr int kVersion = 6;
/// Steps are measured over the grains of a panel and over 1, 2, 4, … panels of images up to a whole
/// batch; beyond two panels as far as a step takes no longer than this, and on from there by the
/// last two.
constexpr double kLongestStep = 0.5;
constexpr std::size_t kPoints = 16;
/// Part of a device's free memory that activations may take.
constexpr double kMemoryShare = 0.8;

/// Identifies what was measured: another network, optimiser or batch is measured anew.
std::string key_of(const TrainSpec& spec, const std::vector<TrainLayer>& layers,
                   const DeviceInfo& device, std::int64_t twins, std::int64_t images) {
  std::string key =
      fmt::format("{}|step {} {}|{}|{} at once|{}", kVersion, static_cast<int>(spec.optimizer.kind),
                  to_string(spec.precision), name_of_kind(device), twins, images);
  for (const TrainLayer& layer : layers) {
    key += fmt::format("|{} to {}:{}", layer.inputs(), layer.outputs(), layer.pattern.nnz());
  }
  return key;
}

/// A step's work on made-up images, on a network of its own.
class Trial {
 public:
  Trial(const TrainSpec& spec, const std::vector<TrainLayer>& layers, Device& device,
        StepClock& clock)
      : spec_(spec),
        device_(device),
        width_(panel_width(device.info())),
        stream_(device.make_stream()),
        network_(layers, kernels_for(device), device, *stream_),
        optimizer_(spec, network_, 1),
        clock_(clock) {
    const auto bytes = static_cast<std::size_t>(network_.parameter_count()) * sizeof(float);
    stream_->zero(network_.parameters(), bytes);
    stream_->zero(network_.gradient(), bytes);
  }

  /// Seconds of a step over `images`.
  double measure(std::int64_t images) {
    const auto room = static_cast<std::size_t>(std::max<std::int64_t>(images, 1));
    labels_.resize(room);
    predictions_.resize(room);
    const std::int64_t at_once = images_at_once(spec_, network_.layers(), device_.info());
    pieces_.reset();
    pass_ = make_pass(spec_.precision, network_, std::min(std::ssize(labels_), at_once));
    pass_->keep_work(spec_.cuda_graphs);
    pass_->scale_losses(optimizer_.loss_scale());
    pieces_.emplace(*pass_, at_once);
    const Panels<float> panels = {nullptr, network_.inputs(), std::ssize(labels_), width_, nullptr};
    x_ = device_.allocate_host(static_cast<std::size_t>(panels.size()) * sizeof(float));
    std::memset(x_.data(), 0, x_.bytes());
    return clock_.fastest([&] { step(images); });
  }

  /// Bytes of activations and deltas of the last measurement.
  [[nodiscard]] std::int64_t bytes() const {
    return pass_->activation_bytes() + pass_->delta_bytes();
  }

 private:
  void step(std::int64_t images) {
    const auto finish = [&](const Batch&) {
      static_cast<void>(pass_->finish_loss(predictions_.data()));
    };
    Batch last;
    if (images > 0) {
      const Batch batch = {{x_.as<const float>(), network_.inputs(), images, width_, nullptr},
                           labels_.data()};
      last = pieces_->run(pieces_->pieces_of(batch), spec_.loss, 1.0F, finish);
    }
    static_cast<void>(optimizer_.step());
    if (images > 0) finish(last);
    stream_->synchronize();
  }

  const TrainSpec& spec_;
  Device& device_;
  std::int64_t width_;
  std::unique_ptr<Stream> stream_;
  Network<float> network_;
  Optimizer optimizer_;
  std::unique_ptr<AnyBatchPass<float>> pass_;
  std::optional<PiecePass> pieces_;
  std::vector<std::int32_t> labels_, predictions_;
  StepClock& clock_;
  Buffer x_;
};

/// Bytes that a rank's activations may take.
double memory_of(const TrainSpec& spec, const Device& device, const Company& company) {
  if (device.info().kind == DeviceKind::cuda) {
    return kMemoryShare * static_cast<double>(device.free_bytes());
  }
  const double all = spec.memory_limit
                         ? static_cast<double>(*spec.memory_limit)
                         : kMemoryShare * static_cast<double>(device.info().memory_bytes);
  return all / static_cast<double>(company.cpu_ranks);
}

void measure_steps(const TrainSpec& spec, const std::vector<TrainLayer>& layers, Device& device,
                   StepClock& clock, const Company& company, Measurements& known,
                   DeviceCost& cost) {
  const std::int64_t width = panel_width(device.info());
  const std::int64_t grain = grain_of(device.info());
  const double memory = memory_of(spec, device, company);
  const std::int64_t most = (spec.batch + width - 1) / width * width;
  double& each = known[key_of(spec, layers, device.info(), company.twins, 0) + "|bytes"];
  std::optional<Trial> trial;
  std::int64_t images = 0;
  for (std::size_t i = 0; i < kPoints; ++i) {
    double& seconds = known[key_of(spec, layers, device.info(), company.twins, images)];
    if (seconds == 0.0) {
      if (!trial) trial.emplace(spec, layers, device, clock);
      seconds = trial->measure(images);
      const std::int64_t lanes = (images + width - 1) / width * width;
      if (images > 0) each = static_cast<double>(trial->bytes()) / static_cast<double>(lanes);
    }
    cost.steps.push_back({images, seconds});
    if (images == most) break;
    const bool enough = images >= 2 * width;
    images = std::min(images < width ? images + grain : 2 * images, most);
    const bool fits = static_cast<double>(images) * each <= memory;
    if (enough && (!fits || 2.0 * seconds > kLongestStep)) break;
  }
  cost.most = static_cast<std::int64_t>(memory / std::max(each, 1.0));
}

/// Layers that are alike are measured once.
void measure_rows(const TrainSpec& spec, const std::vector<TrainLayer>& layers, Device& device,
                  StepClock& clock, const Company& company, Measurements& known, DeviceCost& cost) {
  for (const TrainLayer& layer : layers) {
    std::vector<CostCurve::Point>& points = cost.rows.emplace_back();
    const std::int64_t images = trial_images(layer, spec.batch, device.info());
    for (const std::int64_t units : measured_units(layer)) {
      double& seconds = known[fmt::format(
          "{}|rows|{}|{}|{} at once|{} to {} of {}:{}|{} by {}", kVersion,
          to_string(spec.precision), name_of_kind(device.info()), company.twins, layer.inputs(),
          layer.outputs(), layer.units(), layer.pattern.nnz(), units, images)];
      if (seconds == 0.0)
        seconds =
            measure_units(layer, units, images, kernels_for(device), spec.precision, device, clock);
      points.push_back({units, seconds});
    }
  }
}

}  // namespace

std::int64_t grain_of(const DeviceInfo& device) {
  constexpr std::int64_t kCpuGrain = 8;
  return device.kind == DeviceKind::cpu ? kCpuGrain : panel_width(device);
}

DeviceCost measure_device(const TrainSpec& spec, const std::vector<TrainLayer>& layers,
                          Device& device, const Company& company, bool rows) {
  Measurements known(spec.profile_cache, false);
  DeviceCost cost;
  StepClock clock(device);
  measure_steps(spec, layers, device, clock, company, known, cost);
  if (rows) measure_rows(spec, layers, device, clock, company, known, cost);
  known.store();
  return cost;
}

std::vector<double> to_numbers(const DeviceCost& cost) {
  std::vector<double> numbers = {static_cast<double>(cost.most)};
  const auto add = [&](const std::vector<CostCurve::Point>& points) {
    numbers.push_back(static_cast<double>(points.size()));
    for (const CostCurve::Point& point : points) {
      numbers.push_back(static_cast<double>(point.count));
      numbers.push_back(point.seconds);
    }
  };
  add(cost.steps);
  for (const auto& layer : cost.rows) add(layer);
  return numbers;
}

DeviceCost from_numbers(std::span<const double> numbers) {
  DeviceCost cost;
  cost.most = static_cast<std::int64_t>(numbers[0]);
  std::size_t at = 1;
  const auto take = [&] {
    std::vector<CostCurve::Point> points(static_cast<std::size_t>(numbers[at++]));
    for (CostCurve::Point& point : points) {
      point.count = static_cast<std::int64_t>(numbers[at++]);
      point.seconds = numbers[at++];
    }
    return points;
  };
  cost.steps = take();
  while (at < numbers.size()) cost.rows.push_back(take());
  return cost;
}

}  // namespace spdnn::train
