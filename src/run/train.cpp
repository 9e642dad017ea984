// From a configuration that trains to its result: data, devices, metrics of each epoch.
#include "train.hpp"

#include <fmt/format.h>

#include <fstream>

#include "agreement.hpp"
#include "devices.hpp"
#include "job.hpp"
#include "join.hpp"
#include "labelled.hpp"
#include "memory.hpp"
#include "shared_files.hpp"
#include "verify.hpp"

namespace spdnn {
namespace {

namespace fs = std::filesystem;

std::int64_t bytes_of(const LabelledImages& images) {
  return std::ssize(images.pixels) + images.sparse.view().bytes() +
         std::ssize(images.labels) * static_cast<std::int64_t>(sizeof(std::int32_t));
}

std::string line_of(const EpochReport& epoch) {
  std::string validation;
  if (epoch.validation) {
    validation = fmt::format(R"(, "validation_loss": {:.9g}, "validation_accuracy": {:.6f})",
                             epoch.validation->loss, epoch.validation->accuracy());
  }
  return fmt::format(
      R"({{"epoch": {}, "steps": {}, "rate": {:.9g}, "train_loss": {:.9g}, "train_accuracy": {:.6f}{}, "rewired": {}, "seconds": {:.6f}}})"
      "\n",
      epoch.epoch, epoch.steps, epoch.rate, epoch.train.loss, epoch.train.accuracy(), validation,
      epoch.rewired, epoch.seconds);
}

/// `metrics.jsonl`, one line an epoch. Written whole each time: a run that is killed leaves whole
/// lines, and one that is resumed replaces those of epochs that it repeats.
class Metrics {
 public:
  explicit Metrics(fs::path file, bool resume) : file_(std::move(file)) {
    if (!resume) return;
    std::ifstream old(file_);
    for (std::string line; std::getline(old, line);) lines_.push_back(line + '\n');
  }
  void add(const EpochReport& epoch) {
    // Line i is of epoch i + 1.
    lines_.resize(std::min(lines_.size(), static_cast<std::size_t>(epoch.epoch - 1)));
    lines_.push_back(line_of(epoch));
    std::string text;
    for (const std::string& line : lines_) text += line;
    write_file_atomically(file_, text);
  }

 private:
  fs::path file_;
  std::vector<std::string> lines_;
};

void describe_devices(const std::vector<RankDevice>& devices, RunResult& result) {
  const TrainResult& train = *result.train;
  for (std::size_t rank = 0; rank < devices.size(); ++rank) {
    DeviceResult device = {devices[rank]};
    device.busy_s = train.rank_seconds[rank];
    device.idle_s = std::max(train.train_s - device.busy_s, 0.0);
    device.images = train.rank_images[rank];
    device.images_taken_over = train.rank_taken_over[rank];
    device.replayed_segments = train.rank_replays[rank];
    result.devices.push_back(std::move(device));
  }
}

/// How the ranks share rows and images.
void set_strategy(const RunConfig& config, std::size_t ranks, TrainSpec& spec) {
  const Split& split = config.plan.split;
  switch (config.plan.strategy) {
    case Strategy::automatic: spec.model_ranks = split.kind == SplitKind::profiled ? 0 : 1; break;
    case Strategy::data: spec.model_ranks = 1; break;
    case Strategy::model: spec.model_ranks = static_cast<int>(ranks); break;
    case Strategy::grid: break;
    case Strategy::data_then_model:
    case Strategy::task_manager:
    case Strategy::task_stealing:
      throw InputError(
          fmt::format("/strategy: '{}' does not go with job 'train'; use 'data', 'model' or 'grid'",
                      to_string(config.plan.strategy)));
  }
}

}  // namespace

RunResult run_training(const RunConfig& config, Progress& progress, World& world) {
  RunResult result;
  result.job = config.job;
  const std::int64_t program_bytes = host_bytes_now();
  progress.phase = "reading";
  const double start = now_seconds();
  const NamedSets input = load_labelled(config.input);
  const LabelledSets& sets = input.sets;
  agree_on_images(world, sets);
  result.seconds.load = now_seconds() - start;

  TrainSpec spec = *config.train;
  agree_on_file(world, spec.start_from);
  for (const LayerSpec& layer : spec.layers) agree_on_file(world, layer.mask);
  if (world.processes().rank() == 0) fs::create_directories(config.output);
  spec.checkpoint.folder = config.output / "checkpoints";
  std::optional<SharedFolder> checkpoints;
  if (spec.checkpoint.resume) {
    checkpoints.emplace(world, spec.checkpoint.folder);
    spec.checkpoint.folder = checkpoints->path();  // the first process alone writes any
  }
  const Job job = make_job(config, world);
  spec.split = config.plan.split;
  spec.partition = config.partition;
  spec.memory_limit = config.memory_limit;
  spec.profile_cache = profile_cache_file();
  spec.cuda_graphs = config.cuda_graphs;
  set_strategy(config, job.specs.size(), spec);
  Metrics metrics(config.output / "metrics.jsonl", spec.checkpoint.resume);
  progress.phase = "training";
  progress.unit = "images/s";
  progress.total = spec.epochs * (sets.train.count - spec.validation);
  TrainHooks hooks = {[&](const EpochReport& epoch) { metrics.add(epoch); }, &progress.done,
                      &progress.cancel,
                      [&](const auto& body) { run_joined(config, job, body, result.notes); }};
  if (spec.link != Link{}) {
    if (world.processes().size() > 1) {
      throw InputError(
          "/train/link: is declared between ranks of one process; leave it out where "
          "a launcher starts several");
    }
    hooks.run_ranks = nullptr;
  }
  TrainResult trained = train_network(spec, sets.train, sets.test, job.specs, hooks);
  if (!job.leads()) return {};
  progress.phase = "writing";
  progress.total = 0;
  trained.memory.push_back({"data set", bytes_of(sets.train) + bytes_of(sets.test), 0});
  trained.memory.push_back({"program", program_bytes, 0});
  result.status = "done";
  result.images = sets.train.count;
  result.layers = std::ssize(trained.layers);
  result.neurons = sets.train.features();
  result.model_origin = trained.model.origin;
  result.input_origin = input.name;
  result.notes.insert(result.notes.end(), trained.notes.begin(), trained.notes.end());
  result.rows = std::move(trained.rows);
  result.train = std::move(trained);
  if (result.train->test.images > 0) result.labelled = result.train->test;
  describe_devices(job.devices, result);
  result.peak_host_bytes = peak_host_bytes();
  result.peak_device_bytes = result.train->peak_device_bytes;
  check_bars(config.require, result);
  return result;
}

}  // namespace spdnn
