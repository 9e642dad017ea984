// The loop over epochs: every rank takes its share of each batch, gradients are summed over the
// ranks, and all ranks take the same step, so that their parameters stay equal bit for bit.
#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "batch_pass.hpp"
#include "checkpoint.hpp"
#include "export.hpp"
#include "loader.hpp"
#include "rewire.hpp"
#include "spdnn/random.hpp"

namespace spdnn {
namespace {

using namespace train;  // NOLINT(google-build-using-namespace): this file is its face

/// Streams of random numbers of their own for what is drawn once and for each epoch.
constexpr std::uint64_t kSplitStream = std::uint64_t{1} << 34U;
constexpr std::uint64_t kShuffleStream = std::uint64_t{1} << 35U;

/// What all ranks share, read only but for the result, which rank 0 writes.
struct Job {
  const TrainSpec* spec;
  const LabelledImages* train;
  const LabelledImages* test;
  std::vector<std::uint32_t> training, validation;  ///< ids in `train`
  const std::vector<TrainLayer>* layers;
  const std::vector<StartLayer>* start;
  const std::optional<Checkpoint>* resumed;
  const TrainHooks* hooks;
  TrainResult* result;
};

/// Each rank's part of `images`, whole panels but for the last.
std::vector<Range> split_batch(std::int64_t images, int ranks, std::int64_t width) {
  return split_in_proportion(images, std::vector<double>(static_cast<std::size_t>(ranks), 1.0),
                             width);
}

/// Images in a random order that depends on the seed and the epoch alone.
std::vector<std::uint32_t> shuffled(const std::vector<std::uint32_t>& ids, std::uint64_t seed,
                                    std::uint64_t stream) {
  const std::vector<std::uint32_t> order =
      random_permutation(static_cast<std::uint32_t>(ids.size()), Random(seed, stream));
  std::vector<std::uint32_t> mixed(ids.size());
  for (std::size_t i = 0; i < ids.size(); ++i) mixed[i] = ids[order[i]];
  return mixed;
}

/// One rank's work in all epochs.
class RankTrainer {
 public:
  RankTrainer(const Job& job, Communicator& comm, Device& device);
  void run();

 private:
  [[nodiscard]] std::vector<Range> shares(std::int64_t images) const;
  void train_epoch(EpochReport& report);
  double train_step(Batch& batch, std::int64_t images, Measure& measure, std::int64_t& rewired);
  [[nodiscard]] Measure measure(const LabelledImages& data, const std::vector<std::uint32_t>& ids,
                                bool confusion);
  void add_loss(const Batch& batch, float scale, Measure& measure);
  void reduce(Measure& measure);
  [[nodiscard]] bool finish_epoch(EpochReport& report);
  void report_memory();
  void report_share();

  const Job& job_;
  const TrainSpec& spec_;
  Communicator& comm_;
  std::unique_ptr<Stream> stream_;
  Network<float> network_;
  std::int64_t width_, most_images_;
  BatchPass<float> pass_;
  std::int64_t steps_per_epoch_;
  Optimizer optimizer_;
  Rewirer rewirer_;
  Loader loader_;
  TrainState state_;
  std::vector<std::int32_t> predictions_;
  std::int64_t images_ = 0;
  double busy_ = 0.0;
};

const TrainKernels<float>& kernels_for(const Device& device) {
  for (const TrainKernels<float>& kernels : train_kernels<float>()) {
    if (kernels.device == device.info().kind) return kernels;
  }
  throw DeviceError(fmt::format("this build can't train on {} devices; name CPU devices",
                                to_string(device.info().kind)));
}

std::int64_t most_images(const Job& job, const Communicator& comm, std::int64_t width) {
  return split_batch(job.spec->batch, comm.size(), width)[0].size();
}

RankTrainer::RankTrainer(const Job& job, Communicator& comm, Device& device)
    : job_(job),
      spec_(*job.spec),
      comm_(comm),
      stream_(device.make_stream()),
      network_(*job.layers, kernels_for(device), device, *stream_),
      width_(panel_width(device.info())),
      most_images_(most_images(job, comm, width_)),
      pass_(network_, most_images_),
      steps_per_epoch_((std::ssize(job.training) + job.spec->batch - 1) / job.spec->batch),
      optimizer_(*job.spec, network_, steps_per_epoch_),
      rewirer_(*job.spec, network_, comm),
      loader_(*job.train, most_images_, width_, device),
      predictions_(static_cast<std::size_t>(most_images_)) {
  if (*job.resumed) {
    restore(**job.resumed, network_, optimizer_);
    state_ = (*job.resumed)->state;
    return;
  }
  network_.initialize(spec_.seed);
  for (std::size_t l = 0; l < job.start->size(); ++l) {
    const StartLayer& from = (*job.start)[l];
    const std::vector<float> values = values_on(network_.layers()[l].pattern, from);
    std::copy(values.begin(), values.end(), network_.parameters() + network_.values_of(l).begin);
    std::copy(from.bias.begin(), from.bias.end(),
              network_.parameters() + network_.biases_of(l).begin);
  }
}

/// This rank's share of every step over `images`.
std::vector<Range> RankTrainer::shares(std::int64_t images) const {
  std::vector<Range> shares;
  for (std::int64_t begin = 0; begin < images; begin += spec_.batch) {
    const std::int64_t count = std::min(spec_.batch, images - begin);
    const Range own = split_batch(count, comm_.size(), width_)[comm_.rank()];
    shares.push_back({begin + own.begin, begin + own.end});
  }
  return shares;
}

void RankTrainer::add_loss(const Batch& batch, float scale, Measure& measure) {
  static_cast<void>(pass_.forward(batch.x));
  measure.loss += pass_.loss(spec_.loss, batch.labels, scale, predictions_.data());
  measure.images += batch.x.batch;
  const auto classes = network_.outputs();
  for (std::int64_t i = 0; i < batch.x.batch; ++i) {
    measure.correct += predictions_[i] == batch.labels[i] ? 1 : 0;
    if (!measure.confusion.empty()) {
      ++measure.confusion[batch.labels[i] * classes + predictions_[i]];
    }
  }
}

/// Sums over the ranks, and the mean of the loss.
void RankTrainer::reduce(Measure& measure) {
  const auto sum = [&](void* data, std::int64_t count, DType type) {
    if (comm_.size() > 1) comm_.all_reduce(data, data, count, type, Reduction::sum, nullptr);
  };
  sum(&measure.images, 1, DType::i64);
  sum(&measure.correct, 1, DType::i64);
  sum(&measure.loss, 1, DType::f64);
  sum(measure.confusion.data(), std::ssize(measure.confusion), DType::i64);
  if (measure.images > 0) measure.loss /= static_cast<double>(measure.images);
}

double RankTrainer::train_step(Batch& batch, std::int64_t images, Measure& measure,
                               std::int64_t& rewired) {
  const double start = now_seconds();
  add_loss(batch, 1.0F / static_cast<float>(images), measure);
  const std::int64_t step = optimizer_.steps();
  const bool rewire = rewirer_.due(step, optimizer_.total_steps());
  const double done = static_cast<double>(step) / static_cast<double>(optimizer_.total_steps());
  if (rewire && rewirer_.needs_gradient()) {
    pass_.backward([&](std::size_t layer, const Panels<const float>& dz,
                       const Panels<const float>& x) { rewirer_.observe(layer, dz, x, done); });
  } else {
    pass_.backward();
  }
  busy_ += now_seconds() - start;
  if (rewire) {
    rewired += rewirer_.apply(optimizer_, done);
    optimizer_.skip_step();
    return 0.0;
  }
  if (comm_.size() > 1) {
    comm_.all_reduce(network_.gradient(), network_.gradient(), network_.parameter_count(),
                     DType::f32, Reduction::sum, nullptr);
  }
  return optimizer_.step();
}

void RankTrainer::train_epoch(EpochReport& report) {
  const std::int64_t count = std::ssize(job_.training);
  loader_.start(shuffled(job_.training, spec_.seed,
                         kShuffleStream + static_cast<std::uint64_t>(report.epoch)),
                shares(count));
  for (std::int64_t step = 0; step < steps_per_epoch_; ++step) {
    if (job_.hooks->cancel != nullptr && *job_.hooks->cancel) {
      throw CommError("the run was cancelled");
    }
    comm_.show("step", optimizer_.steps());
    Batch batch = loader_.next();
    const std::int64_t images = std::min(spec_.batch, count - step * spec_.batch);
    const double rate = train_step(batch, images, report.train, report.rewired);
    if (rate > 0.0) report.rate = rate;
    images_ += batch.x.batch;
    if (job_.hooks->images_done != nullptr) *job_.hooks->images_done += batch.x.batch;
  }
  reduce(report.train);
  report.steps = optimizer_.steps();
}

Measure RankTrainer::measure(const LabelledImages& data, const std::vector<std::uint32_t>& ids,
                             bool confusion) {
  Measure measure;
  if (confusion) {
    measure.confusion.resize(static_cast<std::size_t>(network_.outputs() * network_.outputs()));
  }
  std::vector<Range> mine = shares(std::ssize(ids));
  const std::size_t steps = mine.size();
  std::optional<Loader> other;
  if (&data != job_.train) other.emplace(data, most_images_, width_, network_.device());
  Loader& loader = other ? *other : loader_;
  loader.start(ids, std::move(mine));
  for (std::size_t step = 0; step < steps; ++step) {
    comm_.show("measuring", static_cast<std::int64_t>(step));
    add_loss(loader.next(), 1.0F, measure);
  }
  comm_.show("writing", -1);
  reduce(measure);
  return measure;
}

/// Reports, early stopping and the checkpoint; returns whether training is to stop.
bool RankTrainer::finish_epoch(EpochReport& report) {
  state_.epoch = report.epoch;
  state_.steps = report.steps;
  bool stop = false;
  if (report.validation) {
    if (state_.best_epoch == 0 || report.validation->loss < state_.best_loss) {
      state_.best_loss = report.validation->loss;
      state_.best_epoch = report.epoch;
    }
    stop = spec_.patience && report.epoch - state_.best_epoch >= *spec_.patience;
  }
  if (comm_.rank() == 0) {
    job_.result->epochs.push_back(report);
    if (job_.hooks->epoch) job_.hooks->epoch(report);
    const bool last = stop || report.epoch == spec_.epochs;
    if (!spec_.checkpoint.folder.empty() && (last || report.epoch % spec_.checkpoint.every == 0)) {
      write_checkpoint(spec_, state_, network_, optimizer_);
    }
  }
  return stop;
}

/// Bytes of this rank, summed over all of them.
void RankTrainer::report_memory() {
  std::int64_t csr = 0;
  std::int64_t csc = 0;
  for (const TrainLayer& layer : network_.layers()) {
    csr += layer.pattern.csr_bytes();
    csc += layer.pattern.csc_bytes();
  }
  const std::int64_t parameters = network_.parameter_count() * std::int64_t{sizeof(float)};
  std::vector<MemoryItem> items{{"values and biases", parameters},
                                {"gradient", parameters},
                                {"optimizer state", optimizer_.bytes()},
                                {"CSR indices", csr},
                                {"CSC indices", csc},
                                {"activations", pass_.activation_bytes()},
                                {"deltas", pass_.delta_bytes()},
                                {"values by columns", pass_.workspace_bytes()},
                                {"rewiring", rewirer_.bytes()},
                                {"batches", loader_.bytes()}};
  for (MemoryItem& item : items) {
    if (comm_.size() > 1) {
      comm_.all_reduce(&item.bytes, &item.bytes, 1, DType::i64, Reduction::sum, nullptr);
    }
  }
  if (comm_.rank() == 0) job_.result->memory = std::move(items);
}

/// What each rank did, to rank 0.
void RankTrainer::report_share() {
  const std::vector<std::int64_t> ones(static_cast<std::size_t>(comm_.size()), 1);
  std::vector<std::int64_t> images(ones.size());
  std::vector<double> seconds(ones.size());
  comm_.all_gather(&images_, images.data(), ones, DType::i64, nullptr);
  comm_.all_gather(&busy_, seconds.data(), ones, DType::f64, nullptr);
  if (comm_.rank() != 0) return;
  job_.result->rank_images = std::move(images);
  job_.result->rank_seconds = std::move(seconds);
}

void RankTrainer::run() {
  const double start = now_seconds();
  bool stop = false;
  while (!stop && state_.epoch < spec_.epochs) {
    const double epoch_start = now_seconds();
    EpochReport report;
    report.epoch = state_.epoch + 1;
    train_epoch(report);
    if (!job_.validation.empty()) report.validation = measure(*job_.train, job_.validation, false);
    report.seconds = now_seconds() - epoch_start;
    stop = finish_epoch(report);
  }
  report_memory();
  report_share();
  const double trained = now_seconds();
  std::vector<std::uint32_t> all(static_cast<std::size_t>(job_.test->count));
  std::iota(all.begin(), all.end(), 0U);
  const Measure test = all.empty() ? Measure{} : measure(*job_.test, all, true);
  if (comm_.rank() != 0) return;
  job_.result->train_s = trained - start;
  job_.result->stopped_early = stop && state_.epoch < spec_.epochs;
  job_.result->test = test;
  job_.result->model = trained_model(
      network_, fmt::format("trained for {} epochs, seed {}", state_.epoch, spec_.seed));
  for (const TrainLayer& layer : network_.layers()) {
    job_.result->layers.push_back({layer.inputs(), layer.outputs(), layer.pattern.nnz()});
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

}  // namespace

TrainResult train_network(const TrainSpec& spec, const LabelledImages& train,
                          const LabelledImages& test, const std::vector<DeviceSpec>& devices,
                          const TrainHooks& hooks) {
  check_data(spec, train, test);
  TrainResult result;
  std::optional<Checkpoint> resumed;
  std::vector<StartLayer> start;
  if (spec.checkpoint.resume) resumed = newest_checkpoint(spec, result.notes);
  if (!resumed && !spec.start_from.empty()) start = read_checkpoint(spec.start_from).layers;
  const Planes planes(train.channels, train.height, train.width);
  std::vector<TrainLayer> layers;
  if (resumed) {
    layers = restore_layers(spec, planes, resumed->layers);
    result.resumed_epochs = resumed->state.epoch;
  } else {
    if (spec.checkpoint.resume) result.notes.emplace_back("no checkpoint to resume: started anew");
    layers = make_layers(spec, planes, start);
  }
  check_widths(layers);
  check_outputs(layers, train);
  if (!start.empty() && start.size() != layers.size()) {
    throw InputError(spec.start_from, fmt::format("has {} layers, and the configuration {}",
                                                  start.size(), layers.size()));
  }
  std::vector<std::uint32_t> ids(static_cast<std::size_t>(train.count));
  std::iota(ids.begin(), ids.end(), 0U);
  if (spec.validation > 0) ids = shuffled(ids, spec.seed, kSplitStream);
  const auto held = ids.begin() + spec.validation;
  const Job job = {
      &spec,    &train, &test,  {held, ids.end()}, {ids.begin(), held}, &layers, &start,
      &resumed, &hooks, &result};
  const auto body = [&](Communicator& comm) {
    const std::unique_ptr<Device> device = open_device(devices[comm.rank()]);
    comm.show_device(device->info().name);
    RankTrainer(job, comm, *device).run();
  };
  if (hooks.run_ranks) {
    hooks.run_ranks(body);
  } else {
    run_ranks(static_cast<int>(devices.size()), body);
  }
  return result;
}

}  // namespace spdnn
