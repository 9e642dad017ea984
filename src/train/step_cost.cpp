// Measuring whole steps: forward, loss, backward and update, as the run will do them.
#include "step_cost.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>

#include "optimizer.hpp"

namespace spdnn::train {
namespace {

/// Raised whenever kernels or the way they are timed change enough that older times mislead.
constexpr int kVersion = 2;
/// Steps are measured over 0, 1, 2, 4, … panels of images up to a whole batch, so that larger ones
/// are seen to leave the caches; as far as a step takes no longer than this, and on from there by
/// the last two.
constexpr double kLongestStep = 0.5;
constexpr std::size_t kPoints = 12;
constexpr int kRuns = 4;
/// A run that takes so long is trusted at once.
constexpr double kLongRun = 0.3;
/// Touched between two runs, a line at a time, so that they begin with cold caches as steps of
/// training do, between which others use them: small shares take a third longer that way.
constexpr std::size_t kEvictedBytes = std::size_t{32} << 20U;
constexpr std::size_t kLine = 64;
/// Part of a device's free memory that activations may take.
constexpr double kMemoryShare = 0.8;

/// What one rank tells the others of its device, as numbers that travel in one message.
struct Told {
  double images[kPoints] = {};  ///< of each point, ascending from 0; after the last one 0
  double seconds[kPoints] = {};
  double most = 0.0;   ///< images that fit
  double width = 0.0;  ///< of a panel
};
constexpr std::size_t kTold = sizeof(Told) / sizeof(double);

/// Identifies what was measured: another network, optimiser or batch is measured anew.
std::string key_of(const TrainSpec& spec, const std::vector<TrainLayer>& layers,
                   const DeviceInfo& device, std::int64_t twins, std::int64_t images) {
  std::string key = fmt::format("{}|step {}|{} x{}|{} at once|{}", kVersion,
                                static_cast<int>(spec.optimizer.kind), device.name, device.threads,
                                twins, images);
  for (const TrainLayer& layer : layers) {
    key += fmt::format("|{} to {}:{}", layer.inputs(), layer.outputs(), layer.pattern.nnz());
  }
  return key;
}

/// A step's work on made-up images, on a network of its own.
class Trial {
 public:
  Trial(const TrainSpec& spec, const std::vector<TrainLayer>& layers, Device& device)
      : spec_(spec),
        device_(device),
        width_(panel_width(device.info())),
        stream_(device.make_stream()),
        network_(layers, kernels_for(device), device, *stream_),
        optimizer_(spec, network_, 1),
        evicting_(device.info().kind == DeviceKind::cpu ? kEvictedBytes : 0),
        by_thread_(device.info().kind == DeviceKind::cpu && device.info().threads == 1) {
    const auto bytes = static_cast<std::size_t>(network_.parameter_count()) * sizeof(float);
    stream_->zero(network_.parameters(), bytes);
    stream_->zero(network_.gradient(), bytes);
  }

  /// Seconds of a step over `images`: the fastest of a few, since noise only ever adds. Of a rank
  /// that is one thread it is time on a core, as that is what its clock goes by (`Pace`).
  double measure(std::int64_t images) {
    const auto room = static_cast<std::size_t>(std::max<std::int64_t>(images, 1));
    labels_.resize(room);
    predictions_.resize(room);
    pass_.emplace(network_, std::ssize(labels_));
    const Panels<float> panels = {nullptr, network_.inputs(), std::ssize(labels_), width_, nullptr};
    x_ = device_.allocate_host(static_cast<std::size_t>(panels.size()) * sizeof(float));
    std::memset(x_.data(), 0, x_.bytes());
    double best = 0.0;
    for (int run = 0; run <= kRuns; ++run) {
      evict();
      const double start = clock();
      step(images);
      const double seconds = clock() - start;
      if (run > 0 && seconds > kLongRun) return seconds;
      if (run > 0 && (best == 0.0 || seconds < best)) best = seconds;
    }
    return best;
  }

  /// Bytes of activations and deltas of the last measurement.
  [[nodiscard]] std::int64_t bytes() const {
    return pass_->activation_bytes() + pass_->delta_bytes();
  }

 private:
  void step(std::int64_t images) {
    if (images > 0) {
      static_cast<void>(
          pass_->forward({x_.as<const float>(), network_.inputs(), images, width_, nullptr}));
      pass_->start_loss(spec_.loss, labels_.data(), 1.0F);
      pass_->backward();
    }
    static_cast<void>(optimizer_.step());
    if (images > 0) static_cast<void>(pass_->finish_loss(predictions_.data()));
    stream_->synchronize();
  }
  [[nodiscard]] double clock() const { return by_thread_ ? thread_cpu_seconds() : now_seconds(); }
  void evict() {
    for (std::size_t i = 0; i < evicting_.size(); i += kLine) ++evicting_[i];
  }

  const TrainSpec& spec_;
  Device& device_;
  std::int64_t width_;
  std::unique_ptr<Stream> stream_;
  Network<float> network_;
  Optimizer optimizer_;
  std::optional<BatchPass<float>> pass_;
  std::vector<std::int32_t> labels_, predictions_;
  std::vector<unsigned char> evicting_;
  bool by_thread_;
  Buffer x_;
};

/// Who else is there while a device is measured.
struct Company {
  std::int64_t cpu_ranks;  ///< that share the host's memory
  std::int64_t twins;      ///< measured at the same time
};

/// This rank's device, measured or remembered.
Told measure_device(const TrainSpec& spec, const std::vector<TrainLayer>& layers, Device& device,
                    const Company& company) {
  Measurements known(spec.profile_cache, false);
  Told told;
  const std::int64_t width = panel_width(device.info());
  told.width = static_cast<double>(width);
  const auto limit = [&] {
    if (device.info().kind == DeviceKind::cuda) {
      return kMemoryShare * static_cast<double>(device.free_bytes());
    }
    return spec.memory_limit
               ? static_cast<double>(*spec.memory_limit) / static_cast<double>(company.cpu_ranks)
               : kMemoryShare * static_cast<double>(device.info().memory_bytes) /
                     static_cast<double>(company.cpu_ranks);
  };
  const std::int64_t most = (spec.batch + width - 1) / width * width;
  double& each = known[key_of(spec, layers, device.info(), company.twins, 0) + "|bytes"];
  std::optional<Trial> trial;
  std::int64_t images = 0;
  for (std::size_t i = 0; i < kPoints; ++i) {
    double& seconds = known[key_of(spec, layers, device.info(), company.twins, images)];
    if (seconds == 0.0) {
      if (!trial) trial.emplace(spec, layers, device);
      seconds = trial->measure(images);
      if (images > 0) each = static_cast<double>(trial->bytes()) / static_cast<double>(images);
    }
    told.images[i] = static_cast<double>(images);
    told.seconds[i] = seconds;
    if (images == most) break;
    images = std::min(std::max(2 * images, width), most);
    const bool fits = static_cast<double>(images) * each <= limit();
    if (i >= 2 && (!fits || 2.0 * seconds > kLongestStep)) break;
  }
  trial.reset();
  told.most = std::floor(limit() / std::max(each, 1.0));
  known.store();
  return told;
}

/// What summing gradients costs this group, from a short and a full sum.
CollectiveCost measure_sums(Communicator& comm, std::int64_t parameters) {
  if (comm.size() == 1) return {};
  std::vector<float> numbers(static_cast<std::size_t>(parameters));
  const auto fastest = [&](std::int64_t count) {
    double best = 0.0;
    for (int run = 0; run <= kRuns; ++run) {
      comm.barrier();
      const double start = now_seconds();
      comm.all_reduce(numbers.data(), numbers.data(), count, DType::f32, Reduction::sum, nullptr);
      double seconds = now_seconds() - start;
      comm.all_reduce(&seconds, &seconds, 1, DType::f64, Reduction::max, nullptr);
      if (run > 0 && (best == 0.0 || seconds < best)) best = seconds;
    }
    return best;
  };
  const double shortest = fastest(1);
  const double full = std::max(fastest(parameters), shortest);
  const auto k = static_cast<double>(comm.size());
  CollectiveCost cost;
  cost.latency_s = shortest / 2.0 / std::ceil(std::log2(k));
  cost.seconds_per_byte =
      (full - shortest) / (2.0 * (k - 1.0) / k * 4.0 * static_cast<double>(parameters));
  return cost;
}

std::int64_t parameters_of(const std::vector<TrainLayer>& layers) {
  std::int64_t count = 0;
  for (const TrainLayer& layer : layers) count += layer.pattern.nnz() + layer.pattern.rows();
  return count;
}

/// By rank, the first one whose device is alike: it measures for all of them.
std::vector<std::size_t> first_twins(Communicator& comm, const Device& device) {
  const DeviceInfo& info = device.info();
  const auto own = static_cast<std::int64_t>(std::hash<std::string>()(
      fmt::format("{} {} x{}", to_string(info.kind), info.name, info.threads)));
  std::vector<std::int64_t> kinds(static_cast<std::size_t>(comm.size()));
  const std::vector<std::int64_t> ones(kinds.size(), 1);
  comm.all_gather(&own, kinds.data(), ones, DType::i64, nullptr);
  std::vector<std::size_t> first;
  for (const std::int64_t kind : kinds) {
    first.push_back(
        static_cast<std::size_t>(std::find(kinds.begin(), kinds.end(), kind) - kinds.begin()));
  }
  return first;
}

/// Everybody's device. Those that are alike are measured at once, since in training they share
/// caches and memory too, and the first one's times count for all of them.
std::vector<Told> tell_all(const TrainSpec& spec, const std::vector<TrainLayer>& layers,
                           const std::vector<DeviceSpec>& devices, Communicator& comm,
                           Device& device) {
  const auto cpu_ranks = std::count_if(devices.begin(), devices.end(), [](const DeviceSpec& d) {
    return d.kind == DeviceKind::cpu;
  });
  const std::vector<std::size_t> first = first_twins(comm, device);
  const std::size_t own_kind = first[static_cast<std::size_t>(comm.rank())];
  const auto twins = std::count(first.begin(), first.end(), own_kind);
  Told own;
  for (std::size_t turn = 0; turn < first.size(); ++turn) {
    comm.barrier();
    if (turn == own_kind) own = measure_device(spec, layers, device, {cpu_ranks, twins});
  }
  std::vector<Told> all(static_cast<std::size_t>(comm.size()));
  const std::vector<std::int64_t> counts(all.size(), kTold);
  comm.all_gather(&own, all.data(), counts, DType::f64, nullptr);
  for (std::size_t r = 0; r < all.size(); ++r) all[r] = all[first[r]];
  return all;
}

/// Shares that were asked for, whatever the devices.
StepPlan given_shares(const TrainSpec& spec, Communicator& comm, std::int64_t width) {
  StepPlan plan;
  std::vector<double> weights(static_cast<std::size_t>(comm.size()), 1.0);
  if (spec.split.kind == SplitKind::ratios) weights = spec.split.ratios;
  if (std::ssize(weights) != comm.size()) {
    throw InputError(fmt::format("/split: {} ratios for {} devices; give one for each",
                                 weights.size(), comm.size()));
  }
  comm.all_reduce(&width, &width, 1, DType::i64, Reduction::max, nullptr);
  plan.grain = width;
  for (const Range& range : split_in_proportion(spec.batch, weights, width)) {
    plan.shares.shares.push_back(range.size());
  }
  for (const double weight : weights) plan.shares.takes_part.push_back(weight > 0.0);
  plan.shares.takes_part[0] = true;
  return plan;
}

bool all_alike(const std::vector<DeviceSpec>& devices) {
  return std::all_of(devices.begin(), devices.end(), [&](const DeviceSpec& d) {
    const DeviceSpec& first = devices.front();
    return d.kind == first.kind && d.threads == first.threads && d.slowdown == first.slowdown &&
           d.slowdown_changes.empty() && (d.kind == DeviceKind::cpu || d.index == first.index);
  });
}

}  // namespace

const TrainKernels<float>& kernels_for(const Device& device) {
  const DeviceKind kind = device.info().kind;
  for (const TrainKernels<float>& kernels : train_kernels<float>()) {
    if (kernels.device == kind) return kernels;
  }
  throw DeviceError(
      fmt::format("this build has no kernels that train on {} devices; name CPU "
                  "devices (`\"devices\": [{{\"cpu\": {{}}}}]`)",
                  to_string(kind)));
}

StepPlan plan_steps(const TrainSpec& spec, const std::vector<TrainLayer>& layers,
                    const std::vector<DeviceSpec>& devices, Communicator& comm, Device& device) {
  const bool alike = all_alike(devices);
  const bool follow = spec.rebalance.value_or(!alike) && comm.size() > 1;
  if (spec.split.kind != SplitKind::profiled || (alike && !follow)) {
    return given_shares(spec, comm, panel_width(device.info()));
  }
  StepPlan plan = plan_measured(spec, layers, devices, comm, device);
  plan.follow = follow;
  return plan;
}

StepPlan plan_measured(const TrainSpec& spec, const std::vector<TrainLayer>& layers,
                       const std::vector<DeviceSpec>& devices, Communicator& comm, Device& device) {
  const std::vector<Told> all = tell_all(spec, layers, devices, comm, device);
  const CollectiveCost link = measure_sums(comm, parameters_of(layers));
  StepPlan plan;
  double width = 1.0;
  for (std::size_t r = 0; r < all.size(); ++r) {
    std::vector<CostCurve::Point> points;
    for (std::size_t i = 0; i < kPoints && (i == 0 || all[r].images[i] > 0.0); ++i) {
      points.push_back({static_cast<std::int64_t>(all[r].images[i]), all[r].seconds[i]});
    }
    plan.costs.push_back({CostCurve(std::move(points)), devices[r].slowdown,
                          static_cast<std::int64_t>(all[r].most)});
    width = std::max(width, all[r].width);
  }
  const auto bytes = 4.0 * static_cast<double>(parameters_of(layers));
  plan.grain = static_cast<std::int64_t>(width);
  plan.shares = choose_ranks(spec.batch, plan.grain, plan.costs,
                             [&](std::int64_t k) { return link.all_reduce(k, bytes); });
  // The first rank keeps what all have learned, so that it stays, if without images.
  plan.shares.takes_part[0] = true;
  for (std::size_t r = 0; r < devices.size(); ++r) {
    if (plan.shares.shares[r] > 0) continue;
    plan.notes.push_back(fmt::format(
        "rank {} is left out: {} images take it {:.3g} s, and a step of the others takes {:.3g} s",
        r, plan.grain, plan.costs[r].at(plan.grain), plan.shares.seconds()));
  }
  return plan;
}

}  // namespace spdnn::train
