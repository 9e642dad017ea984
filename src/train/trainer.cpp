// Training on several ranks: the network and its data made ready, and what the ranks found.
#include <fmt/format.h>
#include <malloc.h>

#include <numeric>

#include "export.hpp"
#include "layer_splits.hpp"
#include "rank_trainer.hpp"
#include "row_owners.hpp"
#include "step_cost.hpp"

namespace spdnn {
namespace {

using namespace train;  // NOLINT(google-build-using-namespace): this file is its face

/// Streams of random numbers of their own for what is drawn once.
constexpr std::uint64_t kSplitStream = std::uint64_t{1} << 34U;

/// What follows measured times: images where every rank has all rows, else rows.
struct Followers {
  std::optional<Balancer> images;
  std::optional<RowBalancer> rows;
};

Followers followers_of(const StepPlan& plan) {
  Followers followers;
  if (!plan.follow) return followers;
  std::vector<TrainDevice> by_place(plan.devices.size());
  std::size_t places = 0;
  for (std::size_t r = 0; r < plan.devices.size(); ++r) {
    if (plan.layout.places[r] < 0) continue;
    by_place[static_cast<std::size_t>(plan.layout.places[r])] = plan.devices[r];
    ++places;
  }
  by_place.resize(places);
  if (plan.layout.rows > 1) {
    followers.rows.emplace(plan.problem, std::move(by_place), plan.layout);
    return followers;
  }
  std::vector<RankCost> costs;
  for (TrainDevice& device : by_place) costs.push_back(std::move(device.images));
  followers.images.emplace(plan.problem.batch, plan.problem.grain, std::move(costs));
  return followers;
}

/// Whether each rank runs in the process of the first one.
std::vector<bool> beside_first(const Job& job, Communicator& all) {
  if (all.rank() == 0) *job.has_first = true;
  all.barrier();
  const std::int64_t own = *job.has_first ? 1 : 0;
  std::vector<std::int64_t> flags(static_cast<std::size_t>(all.size()));
  all.all_gather(&own, flags.data(), std::vector<std::int64_t>(flags.size(), 1), DType::i64,
                 nullptr);
  return {flags.begin(), flags.end()};
}

/// The last rank of this process that has what it needs of the beginning gives its memory back,
/// and what else the allocator holds of memory that was freed.
void leave_beginning(const Job& job) {
  if (--*job.beginners > 0) return;
  job.beginning->reset();
#ifdef __GLIBC__
  malloc_trim(0);
#endif
}

void train_rank(const Job& job, Communicator& all, const std::vector<DeviceSpec>& devices) {
  const DeviceSpec& spec = devices[all.rank()];
  const std::unique_ptr<Device> device = open_device(spec);
  all.show_device(device->info().name);
  all.show("measuring", -1);
  StepPlan plan =
      plan_steps(*job.spec, (*job.beginning)->layers, devices, all, *device, job.hooks->costs);
  ++*job.beginners;  // before all ranks meet, so that nobody leaves first
  const std::string leads = choose_leader(plan.layout, beside_first(job, all));
  if (!leads.empty()) plan.notes.push_back(leads);
  const TrainLayout& layout = plan.layout;
  if (all.rank() == 0) {
    std::vector<std::string>& notes = job.result->notes;
    notes.insert(notes.end(), plan.notes.begin(), plan.notes.end());
  }
  std::vector<std::size_t> members(devices.size());
  std::size_t places = 0;
  for (std::size_t r = 0; r < devices.size(); ++r) {
    if (layout.places[r] < 0) continue;
    members[static_cast<std::size_t>(layout.places[r])] = r;
    ++places;
  }
  members.resize(places);
  const auto place = static_cast<int>(layout.places[static_cast<std::size_t>(all.rank())]);
  const auto rows = static_cast<int>(layout.rows);
  const std::unique_ptr<Communicator> team = all.split(place < 0 ? 1 : 0, place);
  if (place < 0) return leave_beginning(job);
  const std::unique_ptr<Communicator> model = team->split(place / rows, place);
  const std::unique_ptr<Communicator> data = team->split(place % rows, place);
  RowOwners owners;
  if (rows > 1) {
    owners = choose_owners(*job.spec, (*job.beginning)->first_layers(), layout.units, layout.splits,
                           *team);
  } else {
    owners.layers = split_units(*job.layers, {1.0});
  }
  Followers followers = followers_of(plan);
  Team place_in = {
      team.get(),
      data.get(),
      model.get(),
      std::move(owners.layers),
      layout.splits,
      BatchShares(*data, layout.images, plan.problem.grain, std::move(followers.images)),
      std::move(followers.rows),
      std::move(members),
      std::move(owners.traffic)};
  RankTrainer trainer(job, place_in, *device, spec);
  leave_beginning(job);
  trainer.run();
}

void check_ranks(const TrainSpec& spec, const std::vector<DeviceSpec>& devices) {
  const std::int64_t ranks = std::ssize(devices);
  if (spec.model_ranks == 0) return;  // chosen so that it fits
  if (spec.split.kind == SplitKind::ratios && spec.model_ranks > 0) return;  // not all take part
  if (spec.model_ranks < 0 || ranks % spec.model_ranks != 0) {
    throw InputError(
        fmt::format("/model_ranks: {} devices are no whole number of groups of {}; list as "
                    "many devices, or let another number share the rows",
                    ranks, spec.model_ranks));
  }
}

void check_precision(const TrainSpec& spec, const std::vector<DeviceSpec>& devices) {
  if (spec.precision == Precision::fp32) return;
  const std::string_view name = to_string(spec.precision);
  if (spec.precision == Precision::tf32) {
    throw InputError("/precision: training stores 'fp32', 'bf16' or 'fp16', and no 'tf32'");
  }
  for (std::size_t d = 0; d < devices.size(); ++d) {
    if (devices[d].kind == DeviceKind::cuda) continue;
    throw InputError(
        fmt::format("/precision: '{}' is stored on GPUs, and device {} is a CPU; use 'fp32', or "
                    "list GPUs alone (`\"devices\": [{{\"cuda\": 0}}]`)",
                    name, d));
  }
}

/// ", such as 12 of training image 3": where a label stands that `outputs` have no place for.
std::string example_above(std::int64_t outputs, const LabelledImages& images, const char* name) {
  const auto at = std::find_if(images.labels.begin(), images.labels.end(),
                               [&](std::int32_t label) { return label >= outputs; });
  if (at == images.labels.end()) return "";
  return fmt::format(", such as {} of {} image {}", *at, name, at - images.labels.begin() + 1);
}

void check_outputs(const std::vector<TrainLayer>& layers, const LabelledImages& train,
                   const LabelledImages& test) {
  const std::int64_t outputs = layers.empty() ? 0 : layers.back().outputs();
  if (outputs == train.classes) return;
  std::string example = example_above(outputs, train, "training");
  if (example.empty()) example = example_above(outputs, test, "test");
  throw InputError(
      fmt::format("the last layer has {} outputs, but the labels of the images ask for {}, one for "
                  "each class up to the largest label{}; give it as many, or mend the labels",
                  outputs, train.classes, example));
}

/// Layers of which every row can have an owner of its own.
void check_partition(const TrainSpec& spec, const std::vector<TrainLayer>& layers) {
  if (!spec.partition.chosen()) return;
  if (spec.model_ranks == 1) {
    throw InputError(
        "/partition: no ranks share rows that it could divide; set strategy 'model', or 'grid' "
        "with /model_ranks above 1");
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

/// The network and its values, drawn or read, in the shape that the images ask for.
Beginning begin_training(const TrainSpec& spec, const LabelledImages& train,
                         const LabelledImages& test, TrainResult& result) {
  const Planes planes(train.channels, train.height, train.width);
  Beginning begin;
  if (spec.checkpoint.resume) begin.resumed = newest_checkpoint(spec, result.notes);
  if (begin.resumed) {
    begin.layers = restore_layers(spec, planes, begin.resumed->layers);
    result.resumed_epochs = begin.resumed->state.epoch;
    if (spec.restore_best && begin.resumed->state.best_epoch > 0) {
      begin.best = best_checkpoint(spec, begin.resumed->state);
    }
  } else {
    begin.start = start_layers(spec);
    if (spec.checkpoint.resume) {
      result.notes.emplace_back("no checkpoint to resume: started anew");
    } else if (std::string note = note_of_replaced(spec); !note.empty()) {
      result.notes.push_back(std::move(note));
    }
    begin.layers = make_layers(spec, planes, begin.start);
  }
  check_widths(begin.layers);
  check_outputs(begin.layers, train, test);
  check_partition(spec, begin.layers);
  // A partition is of the network as it began, whatever rewiring has made of it since.
  if (begin.resumed && spec.partition.chosen()) {
    begin.first = make_layers(spec, planes, start_layers(spec));
  }
  if (!begin.start.empty() && begin.start.size() != begin.layers.size()) {
    throw InputError(spec.start_from, fmt::format("has {} layers, and the configuration {}",
                                                  begin.start.size(), begin.layers.size()));
  }
  return begin;
}

}  // namespace

TrainingPlan plan_training(const TrainSpec& spec, const LabelledImages& train,
                           const std::vector<DeviceSpec>& devices, const RunRanks& run_ranks) {
  check_precision(spec, devices);
  const Planes planes(train.channels, train.height, train.width);
  const std::vector<TrainLayer> layers = make_layers(spec, planes, {});
  TrainingPlan plan;
  for (const TrainLayer& layer : layers) {
    plan.edges_per_image += static_cast<double>(layer.pattern.nnz() * layer.features_per_unit());
  }
  run_ranks([&](Communicator& comm) {
    const std::unique_ptr<Device> device = open_device(devices[comm.rank()]);
    StepPlan found = plan_measured(spec, layers, devices, comm, *device, Strategy::data);
    if (comm.rank() != 0) return;
    for (std::size_t r = 0; r < devices.size(); ++r) {
      const std::int64_t group = found.layout.places[r];
      plan.costs.push_back(std::move(found.devices[r].images));
      plan.shares.shares.push_back(group < 0 ? 0 : found.layout.images[group]);
      plan.shares.takes_part.push_back(group >= 0);
    }
    plan.shares.work_s = found.layout.work_s;
    plan.shares.communication_s = found.layout.communication_s;
    plan.notes = std::move(found.notes);
  });
  return plan;
}

Model initial_network(const TrainSpec& spec, const LabelledImages& train) {
  const std::vector<StartLayer> start = start_layers(spec);
  const std::vector<TrainLayer> layers =
      make_layers(spec, Planes(train.channels, train.height, train.width), start);
  check_widths(layers);
  const std::vector<LayerRows<float>> rows = first_rows(spec, layers, start);
  Model model = trained_model(fmt::format("drawn, seed {}", spec.seed));
  for (std::size_t l = 0; l < layers.size(); ++l) {
    model.layers.push_back(trained_layer(layers[l], view_of(rows[l])));
  }
  return model;
}

TrainResult train_network(const TrainSpec& spec, const LabelledImages& train,
                          const LabelledImages& test, const std::vector<DeviceSpec>& devices,
                          const TrainHooks& hooks) {
  check_data(spec, train, test);
  check_ranks(spec, devices);
  check_precision(spec, devices);
  check_input_split(spec, devices);
  TrainResult result;
  std::optional<Beginning> beginning(begin_training(spec, train, test, result));
  std::vector<TrainLayer> shapes;
  for (const TrainLayer& layer : beginning->layers) {
    shapes.push_back({layer.pattern.shape(), layer.activation, layer.form});
  }
  std::vector<std::uint32_t> ids(static_cast<std::size_t>(train.count));
  std::iota(ids.begin(), ids.end(), 0U);
  if (spec.validation > 0) ids = shuffled(ids, spec.seed, kSplitStream);
  const auto held = ids.begin() + spec.validation;
  std::atomic<bool> has_first = false;
  std::atomic<int> beginners = 0;
  PieceQueue pieces(devices.size());
  const Job job = {&spec,
                   &train,
                   &test,
                   {held, ids.end()},
                   {ids.begin(), held},
                   &shapes,
                   &beginning,
                   &beginners,
                   &hooks,
                   &has_first,
                   &result,
                   &pieces,
                   usable_cores()};
  result.rank_images.resize(devices.size());
  result.rank_taken_over.resize(devices.size());
  result.rank_seconds.resize(devices.size());
  result.rank_replays.resize(devices.size());
  const auto body = [&](Communicator& comm) { train_rank(job, comm, devices); };
  if (hooks.run_ranks) {
    hooks.run_ranks(body);
  } else {
    run_ranks(static_cast<int>(devices.size()), body, spec.link);
  }
  return result;
}

}  // namespace spdnn
