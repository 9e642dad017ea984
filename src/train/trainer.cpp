// Training on several ranks: the network and its data made ready, and what the ranks found.
#include <fmt/format.h>

#include <numeric>

#include "export.hpp"
#include "rank_trainer.hpp"
#include "row_owners.hpp"
#include "step_cost.hpp"

namespace spdnn {
namespace {

using namespace train;  // NOLINT(google-build-using-namespace): this file is its face

/// Streams of random numbers of their own for what is drawn once.
constexpr std::uint64_t kSplitStream = std::uint64_t{1} << 34U;

/// The ranks that share images by speed: those that are worth it, each with all rows.
void train_by_images(const Job& job, Communicator& all, Device& device,
                     const std::vector<DeviceSpec>& devices) {
  StepPlan plan = plan_steps(*job.spec, *job.layers, devices, all, device);
  if (all.rank() == 0) {
    job.result->notes.insert(job.result->notes.end(), plan.notes.begin(), plan.notes.end());
  }
  std::vector<std::size_t> members;
  std::vector<std::int64_t> images;
  std::vector<RankCost> costs;
  for (std::size_t r = 0; r < devices.size(); ++r) {
    if (!plan.shares.takes_part[r]) continue;
    members.push_back(r);
    images.push_back(plan.shares.shares[r]);
    if (plan.follow) costs.push_back(plan.costs[r]);
  }
  const bool takes_part = plan.shares.takes_part[static_cast<std::size_t>(all.rank())];
  const std::unique_ptr<Communicator> data = all.split(takes_part ? 0 : 1, all.rank());
  if (!takes_part) return;
  const std::unique_ptr<Communicator> alone = data->split(data->rank(), 0);
  std::optional<Balancer> balancer;
  if (plan.follow) balancer.emplace(job.spec->batch, plan.grain, std::move(costs));
  Team team = {data.get(),
               data.get(),
               alone.get(),
               split_units(*job.layers, {1.0}),
               BatchShares(*data, std::move(images), plan.grain, std::move(balancer)),
               std::move(members)};
  RankTrainer(job, team, device, devices[all.rank()]).run();
}

/// Groups of `model_ranks` ranks share the rows of a network each, and with the other groups the
/// images of each batch, evenly.
void train_by_rows(const Job& job, Communicator& all, Device& device, const DeviceSpec& spec) {
  const int rows = job.spec->model_ranks;
  const std::unique_ptr<Communicator> model = all.split(all.rank() / rows, all.rank());
  const std::unique_ptr<Communicator> data = all.split(all.rank() % rows, all.rank());
  std::vector<std::size_t> members(static_cast<std::size_t>(all.size()));
  std::iota(members.begin(), members.end(), std::size_t{0});
  RowOwners owners = choose_owners(*job.spec, *job.begun, all);
  const std::int64_t width = panel_width(device.info());
  std::vector<std::int64_t> images;
  for (const Range& range : split_in_proportion(
           job.spec->batch, std::vector<double>(static_cast<std::size_t>(data->size()), 1.0),
           width)) {
    images.push_back(range.size());
  }
  Team team = {&all,
               data.get(),
               model.get(),
               std::move(owners.layers),
               BatchShares(*data, std::move(images), width, std::nullopt),
               std::move(members),
               std::move(owners.traffic)};
  RankTrainer(job, team, device, spec).run();
}

void train_rank(const Job& job, Communicator& all, const std::vector<DeviceSpec>& devices) {
  const DeviceSpec& spec = devices[all.rank()];
  const std::unique_ptr<Device> device = open_device(spec);
  all.show_device(device->info().name);
  all.show("measuring", -1);
  if (job.spec->model_ranks == 1) {
    train_by_images(job, all, *device, devices);
  } else {
    train_by_rows(job, all, *device, spec);
  }
}

void check_ranks(const TrainSpec& spec, const std::vector<DeviceSpec>& devices) {
  const std::int64_t ranks = std::ssize(devices);
  if (spec.model_ranks < 1 || ranks % spec.model_ranks != 0) {
    throw InputError(
        fmt::format("/train/model_ranks: {} devices are no whole number of groups of {}; list as "
                    "many devices, or let another number share the rows",
                    ranks, spec.model_ranks));
  }
  if (!spec.row_shares.empty() && std::ssize(spec.row_shares) != spec.model_ranks) {
    throw InputError(fmt::format("/split: {} ratios for {} ranks that share rows; give one each",
                                 spec.row_shares.size(), spec.model_ranks));
  }
  if (spec.model_ranks == 1) return;
  for (const DeviceSpec& device : devices) {
    if (device.kind != DeviceKind::cpu) {
      throw InputError(
          "/strategy: rows are shared between CPU devices in this version; name CPU "
          "devices, or use strategy 'data'");
    }
  }
}

void check_outputs(const std::vector<TrainLayer>& layers, const LabelledImages& train) {
  const std::int64_t outputs = layers.empty() ? 0 : layers.back().outputs();
  if (outputs == train.classes) return;
  throw InputError(
      fmt::format("the last layer has {} outputs, but the images {} classes; give "
                  "it one output for each",
                  outputs, train.classes));
}

/// Layers of which every row can have an owner of its own.
void check_partition(const TrainSpec& spec, const std::vector<TrainLayer>& layers) {
  if (!spec.partition.chosen()) return;
  if (spec.model_ranks == 1) {
    throw InputError(
        "/partition: no ranks share rows that it could divide; set strategy 'model', or 'grid' "
        "with /train/model_ranks above 1");
  }
  for (std::size_t l = 0; l < layers.size(); ++l) {
    if (std::holds_alternative<LinearForm>(layers[l].form)) continue;
    throw InputError(
        fmt::format("/partition: layer {} is no linear one, and '{}' divides the rows of linear "
                    "layers; leave it at 'auto'",
                    l + 1, spec.partition.model));
  }
}

void check_data(const TrainSpec& spec, const LabelledImages& train, const LabelledImages& test) {
  if (test.count > 0 && (test.features() != train.features() || test.classes > train.classes)) {
    throw InputError(
        fmt::format("test images have {} features and {} classes, training images {} "
                    "and {}",
                    test.features(), test.classes, train.features(), train.classes));
  }
  if (spec.validation >= train.count) {
    throw InputError(
        fmt::format("{} validation images of {} leave none to train on; hold fewer "
                    "back",
                    spec.validation, train.count));
  }
}

/// The layers of the checkpoint that training starts from; none where it draws its values.
std::vector<StartLayer> start_layers(const TrainSpec& spec) {
  if (spec.start_from.empty()) return {};
  return read_checkpoint(spec.start_from).layers;
}

}  // namespace

TrainingPlan plan_training(const TrainSpec& spec, const LabelledImages& train,
                           const std::vector<DeviceSpec>& devices) {
  const Planes planes(train.channels, train.height, train.width);
  const std::vector<TrainLayer> layers = make_layers(spec, planes, {});
  TrainingPlan plan;
  for (const TrainLayer& layer : layers) {
    plan.edges_per_image += static_cast<double>(layer.pattern.nnz() * layer.features_per_unit());
  }
  run_ranks(static_cast<int>(devices.size()), [&](Communicator& comm) {
    const std::unique_ptr<Device> device = open_device(devices[comm.rank()]);
    StepPlan found = plan_measured(spec, layers, devices, comm, *device);
    if (comm.rank() != 0) return;
    plan.costs = std::move(found.costs);
    plan.shares = std::move(found.shares);
    plan.notes = std::move(found.notes);
  });
  return plan;
}

Model initial_network(const TrainSpec& spec, const LabelledImages& train) {
  const std::vector<StartLayer> start = start_layers(spec);
  const std::vector<TrainLayer> layers =
      make_layers(spec, Planes(train.channels, train.height, train.width), start);
  check_widths(layers);
  return trained_model(layers, first_rows(spec, layers, start),
                       fmt::format("drawn, seed {}", spec.seed));
}

TrainResult train_network(const TrainSpec& spec, const LabelledImages& train,
                          const LabelledImages& test, const std::vector<DeviceSpec>& devices,
                          const TrainHooks& hooks) {
  check_data(spec, train, test);
  check_ranks(spec, devices);
  TrainResult result;
  std::optional<Checkpoint> resumed;
  std::optional<Checkpoint> best;
  std::vector<StartLayer> start;
  if (spec.checkpoint.resume) resumed = newest_checkpoint(spec, result.notes);
  if (!resumed) start = start_layers(spec);
  const Planes planes(train.channels, train.height, train.width);
  std::vector<TrainLayer> layers;
  if (resumed) {
    layers = restore_layers(spec, planes, resumed->layers);
    result.resumed_epochs = resumed->state.epoch;
    if (spec.restore_best && resumed->state.best_epoch > 0) {
      best = best_checkpoint(spec, resumed->state);
    }
  } else {
    if (spec.checkpoint.resume) result.notes.emplace_back("no checkpoint to resume: started anew");
    layers = make_layers(spec, planes, start);
  }
  check_widths(layers);
  check_outputs(layers, train);
  check_partition(spec, layers);
  // A partition is of the network as it began, whatever rewiring has made of it since.
  std::vector<TrainLayer> begun;
  if (resumed && spec.partition.chosen()) begun = make_layers(spec, planes, start_layers(spec));
  if (!start.empty() && start.size() != layers.size()) {
    throw InputError(spec.start_from, fmt::format("has {} layers, and the configuration {}",
                                                  start.size(), layers.size()));
  }
  std::vector<std::uint32_t> ids(static_cast<std::size_t>(train.count));
  std::iota(ids.begin(), ids.end(), 0U);
  if (spec.validation > 0) ids = shuffled(ids, spec.seed, kSplitStream);
  const auto held = ids.begin() + spec.validation;
  const Job job = {&spec,
                   &train,
                   &test,
                   {held, ids.end()},
                   {ids.begin(), held},
                   &layers,
                   begun.empty() ? &layers : &begun,
                   &start,
                   &resumed,
                   &best,
                   &hooks,
                   &result};
  result.rank_images.resize(devices.size());
  result.rank_seconds.resize(devices.size());
  const auto body = [&](Communicator& comm) { train_rank(job, comm, devices); };
  if (hooks.run_ranks) {
    hooks.run_ranks(body);
  } else {
    run_ranks(static_cast<int>(devices.size()), body, spec.link);
  }
  return result;
}

}  // namespace spdnn
