// Training through `train_network`, whose hook tells of every step, and inference through `run`.
#include "uneven/runs.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>

#include "spdnn/limits.hpp"
#include "spdnn/run.hpp"
#include "support/record.hpp"

namespace spdnn::bench {
namespace {

/// Steps at the start that are left out of every median: memory is touched, and shares settle.
constexpr std::size_t kWarmUp = 4;

/// Ranks on a core each where there are as many, as `spdnn-gpu run` places them.
std::vector<DeviceSpec> slowed(const std::vector<double>& slowdowns) {
  const std::vector<int>& cores = limits::process_cores();
  std::vector<DeviceSpec> devices(slowdowns.size());
  for (std::size_t r = 0; r < devices.size(); ++r) {
    devices[r].slowdown = slowdowns[r];
    if (devices.size() <= cores.size()) devices[r].cores = {cores[r]};
  }
  return devices;
}

/// What is trained, of all kinds of layers: the numbers of one gradient.
std::vector<float> parameters_of(const Model& model) {
  std::vector<float> all;
  for (const Layer& layer : model.layers) {
    const CsrView w = layer_weights(layer).view();
    for (std::int64_t k = 0; k < w.nnz; ++k) all.push_back(static_cast<float>(w.value(k)));
    const std::vector<float>& bias = layer_bias(layer);
    all.insert(all.end(), bias.begin(), bias.end());
  }
  return all;
}

double relative_difference(const std::vector<float>& a, const std::vector<float>& b) {
  double most = 0.0;
  double largest = 0.0;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    most = std::max(most, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
    largest = std::max(largest, std::abs(static_cast<double>(a[i])));
  }
  return a.size() == b.size() && largest > 0.0 ? most / largest : INFINITY;
}

class Training final : public Workload {
 public:
  Training(const RunConfig& config, std::int64_t steps)
      : spec_(*config.train), strategy_(config.plan.strategy) {
    if (!std::holds_alternative<LabelledInput>(config.input.source)) {
      throw InputError("/input: the benchmark trains on mnist or cifar10");
    }
    const auto& input = std::get<LabelledInput>(config.input.source);
    images_ = input.format == LabelledInput::Format::mnist ? read_mnist(input.folder).train
                                                           : read_cifar10(input.folder).train;
    const std::int64_t wanted = steps * spec_.batch;
    while (images_.count < wanted) repeat();
    images_.count = wanted;
    spec_.epochs = 1;
    spec_.validation = 0;
    spec_.checkpoint = {};
  }

  [[nodiscard]] Timing time(const std::vector<double>& slowdowns, SplitKind split) const override {
    std::vector<StepReport> steps;
    static_cast<void>(train(spec_, images_, slowed(slowdowns), split, steps));
    Timing timing;
    timing.seconds = typical(steps);
    timing.predicted_s = steps.front().predicted_s;
    timing.first_shares = steps.front().images;
    timing.shares = steps.back().images;
    timing.rows = rows_;
    return timing;
  }

  [[nodiscard]] std::optional<double> alone_s(double slowdown, std::int64_t images) const override {
    if (images == 0) return 0.0;
    TrainSpec spec = spec_;
    spec.batch = images;
    LabelledImages some = images_;
    some.count = images_.count / spec_.batch * images;
    std::vector<StepReport> steps;
    static_cast<void>(train(spec, some, slowed({slowdown}), SplitKind::even, steps));
    return typical(steps);
  }

  [[nodiscard]] Change change(const std::vector<double>& slowdowns,
                              std::int64_t at_step) const override {
    std::vector<DeviceSpec> devices = slowed(slowdowns);
    devices.back().slowdown_changes = {
        {static_cast<double>(at_step), kChangeFactor * slowdowns.back()}};
    std::vector<StepReport> steps;
    const std::vector<float> weights = train(spec_, images_, devices, SplitKind::profiled, steps);
    Change change;
    std::vector<double> after;
    for (const StepReport& step : steps) {
      change.step_s.push_back(step.seconds);
      change.images.push_back(step.images);
      if (step.step >= at_step + kSettled) after.push_back(step.seconds);
    }
    change.after_s = median_of(after);
    std::vector<StepReport> ignored;
    change.weight_difference = relative_difference(
        weights, train(spec_, images_, slowed({1.0}), SplitKind::even, ignored));
    return change;
  }

  [[nodiscard]] double communication_s(std::size_t ranks) const override {
    std::vector<double> seconds;
    run_ranks(static_cast<int>(ranks), [&](Communicator& comm) {
      std::vector<float> gradient(static_cast<std::size_t>(parameters_));
      for (int run = 0; run < 9; ++run) {
        comm.barrier();
        const double start = now_seconds();
        comm.all_reduce(gradient.data(), gradient.data(), parameters_, DType::f32, Reduction::sum,
                        nullptr);
        if (comm.rank() == 0) seconds.push_back(now_seconds() - start);
      }
    });
    return median_of(seconds);
  }

 private:
  void repeat() {
    images_.labels.insert(images_.labels.end(), images_.labels.begin(), images_.labels.end());
    images_.pixels.insert(images_.pixels.end(), images_.pixels.begin(), images_.pixels.end());
    images_.count *= 2;
  }

  static double typical(const std::vector<StepReport>& steps) {
    std::vector<double> seconds;
    for (std::size_t i = kWarmUp; i < steps.size(); ++i) seconds.push_back(steps[i].seconds);
    return median_of(seconds);
  }

  std::vector<float> train(TrainSpec spec, const LabelledImages& images,
                           const std::vector<DeviceSpec>& devices, SplitKind split,
                           std::vector<StepReport>& steps) const {
    spec.split.kind = split;
    spec.model_ranks = 1;
    if (split == SplitKind::profiled && strategy_ == Strategy::automatic) spec.model_ranks = 0;
    if (split == SplitKind::profiled && strategy_ == Strategy::model) {
      spec.model_ranks = static_cast<int>(devices.size());
    }
    TrainHooks hooks;
    hooks.step = [&](const StepReport& step) { steps.push_back(step); };
    const TrainResult result = train_network(spec, images, {}, devices, hooks);
    if (!result.shares.empty()) rows_ = result.shares.back().rows;
    std::vector<float> parameters = parameters_of(result.model);
    parameters_ = std::ssize(parameters);
    return parameters;
  }

  TrainSpec spec_;
  Strategy strategy_;  ///< of shares by speed; even ones are of images
  LabelledImages images_;
  mutable std::int64_t parameters_ = 0;
  mutable std::vector<double> rows_;  ///< of the last run
};

class Inference final : public Workload {
 public:
  explicit Inference(const RunConfig& config) : config_(config) {
    config_.output = std::filesystem::temp_directory_path() / fmt::format("uneven-{}", getpid());
  }
  Inference(const Inference&) = delete;
  Inference& operator=(const Inference&) = delete;
  ~Inference() override {
    std::error_code ignored;
    std::filesystem::remove_all(config_.output, ignored);
  }

  [[nodiscard]] Timing time(const std::vector<double>& slowdowns, SplitKind split) const override {
    RunConfig config = config_;
    config.devices = slowed(slowdowns);
    config.plan.split.kind = split;
    config.plan.strategy = split == SplitKind::even ? Strategy::data : Strategy::automatic;
    Progress progress;
    const RunResult result = run(config, progress);
    if (result.status == "wrong") throw InputError("an inference was wrong");
    Timing timing;
    timing.seconds = result.seconds.infer;
    for (const DeviceResult& device : result.devices) timing.shares.push_back(device.images);
    return timing;
  }

  [[nodiscard]] std::optional<double> alone_s(double, std::int64_t) const override { return {}; }

  [[nodiscard]] Change change(const std::vector<double>&, std::int64_t) const override {
    throw InputError("--change-at goes with a configuration that trains");
  }

  /// Ranks exchange images under way, whose copies are part of their work, and the list of ids.
  [[nodiscard]] double communication_s(std::size_t) const override { return 0.0; }

 private:
  RunConfig config_;
};

}  // namespace

std::unique_ptr<Workload> make_workload(const RunConfig& config, std::int64_t steps) {
  if (config.job == "train") return std::make_unique<Training>(config, steps);
  return std::make_unique<Inference>(config);
}

}  // namespace spdnn::bench
