// The loop over epochs on one rank.
#include "rank_trainer.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "host_view.hpp"
#include "spdnn/plan.hpp"
#include "spdnn/random.hpp"
#include "step_cost.hpp"

namespace spdnn::train {
namespace {

/// Streams of random numbers of their own for each epoch.
constexpr std::uint64_t kShuffleStream = std::uint64_t{1} << 35U;

/// What training starts from: a checkpoint, the layers of another one, or drawn values.
std::vector<LayerRows<float>> first_rows(const Job& job) {
  const Beginning& begin = **job.beginning;
  return begin.resumed ? rows_of(*begin.resumed) : first_rows(*job.spec, begin.layers, begin.start);
}

}  // namespace

std::vector<std::uint32_t> shuffled(const std::vector<std::uint32_t>& ids, std::uint64_t seed,
                                    std::uint64_t stream) {
  const std::vector<std::uint32_t> order =
      random_permutation(static_cast<std::uint32_t>(ids.size()), Random(seed, stream));
  std::vector<std::uint32_t> mixed(ids.size());
  for (std::size_t i = 0; i < ids.size(); ++i) mixed[i] = ids[order[i]];
  return mixed;
}

RankTrainer::RankTrainer(const Job& job, Team& team, Device& device, const DeviceSpec& spec)
    : job_(job),
      spec_(*job.spec),
      team_(team),
      pace_(spec),
      comm_(*team.comm, pace_),
      data_(*team.data, pace_),
      model_(*team.model, pace_),
      device_(device),
      stream_(device.make_stream()),
      width_(panel_width(device.info())),
      most_images_(room_needed()),
      steps_per_epoch_((std::ssize(job.training) + job.spec->batch - 1) / job.spec->batch),
      worker_(*job.spec, *job.layers, kernels_for(device), model_, device, *stream_,
              steps_per_epoch_, team.splits),
      rewirer_(make_rewirer(*job.spec, worker_, data_)),
      loader_(job.train->features(), most_images_, width_, device, job.cores),
      predictions_(static_cast<std::size_t>(most_images_)) {
  worker_.make_room(most_images_);
  worker_.load_whole(team.partition, first_rows(job));
  const Beginning& begin = **job.beginning;
  if (!begin.resumed) return;
  state_ = begin.resumed->state;
  worker_.optimizer().set_progress(state_.progress);
  if (begin.best) best_ = worker_.own_rows(team.partition, rows_of(*begin.best));
}

/// This rank's share of every step over `images`.
std::vector<Range> RankTrainer::shares(std::int64_t images) const {
  return team_.shares.of_all(images, spec_.batch);
}

/// Seconds of work since this was last asked.
double RankTrainer::worked() {
  const double busy = pace_.busy();
  return busy - std::exchange(last_busy_, busy);
}

/// Tells the others how long this rank worked on its rows in a step over `images`. Where shares
/// change by that, rows move at once, with all that belongs to them.
void RankTrainer::follow_rows(std::int64_t images) {
  if (!team_.balancer) return;
  const double own = worked();
  const bool whole = images == spec_.batch && worker_.optimizer().steps() > 1;
  if (!whole) return;  // small steps and the first one, which warms up, tell little
  std::vector<double> seconds(team_.devices.size());
  comm_.all_gather(&own, seconds.data(), std::vector<std::int64_t>(seconds.size(), 1), DType::f64,
                   nullptr);
  if (!team_.balancer->observe(team_.shares.whole(), seconds)) return;
  std::vector<LayerPartition> next = split_by_counts(*job_.layers, team_.balancer->units());
  for (std::size_t l = 0; l < best_.size(); ++l) {
    if (best_[l].values.empty()) continue;  // a pooling
    best_[l] = move_rows(model_, worker_.partition()[l], next[l], std::move(best_[l]));
  }
  worker_.repartition(std::move(next));
  rows_moved_ = true;
  report_shares(worker_.optimizer().steps());
  last_busy_ = pace_.busy();  // moving rows is no part of a step
}

/// Tells the others how long this rank worked since it last did, on its `own` of a step over
/// `images`. Where shares change by that, so do those of all batches that are not being filled yet.
void RankTrainer::follow_times(std::int64_t images, std::int64_t own) {
  if (!team_.shares.follows()) return;
  const double seconds = worked();
  const bool whole = images == spec_.batch && worker_.optimizer().steps() > 0;
  if (!whole) return;  // small steps and the first one, which warms up, tell little
  pace_.begin_wait();
  const bool changed = team_.shares.observe(own, seconds);
  pace_.end_wait();
  if (!changed) return;
  if (room_needed() > most_images_) {
    most_images_ = room_needed();
    worker_.make_room(most_images_);
    predictions_.resize(static_cast<std::size_t>(most_images_));
  }
  loader_.change(epoch_step_ + 2, shares(std::ssize(job_.training)), most_images_, device_);
  report_shares(worker_.optimizer().steps() + 2);
  last_busy_ = pace_.busy();  // making room is no part of a step
}

void RankTrainer::report_shares(std::int64_t step) {
  if (comm_.rank() != 0) return;
  const std::size_t devices = job_.result->rank_images.size();
  const auto rows = static_cast<std::size_t>(model_.size());
  ShareReport report{step, std::vector<std::int64_t>(devices), {}, team_.shares.predicted()};
  if (team_.balancer) report.predicted_s = team_.balancer->predicted();
  if (rows > 1) report.rows.resize(devices);
  double connections = 0.0;
  for (const TrainLayer& layer : *job_.layers) {
    connections += static_cast<double>(layer.pattern.nnz());
  }
  for (std::size_t r = 0; r < team_.devices.size(); ++r) {
    report.images[team_.devices[r]] = team_.shares.whole()[r / rows];
    for (std::size_t l = 0; l < job_.layers->size() && rows > 1; ++l) {
      const TrainLayer& layer = (*job_.layers)[l];
      // Who owns the inputs of a layer that is split by them has the connections.
      const bool by_inputs = team_.splits[l] == LayerSplit::inputs;
      const std::size_t divided = by_inputs ? split_before(*job_.layers, l) : l;
      const auto own =
          std::ssize(part_of(worker_.partition()[divided], static_cast<int>(r % rows)));
      report.rows[team_.devices[r]] +=
          static_cast<double>(layer.pattern.nnz()) * static_cast<double>(own) /
          static_cast<double>((*job_.layers)[divided].units()) / connections;
    }
  }
  job_.result->shares.push_back(std::move(report));
}

void RankTrainer::report_step(std::int64_t step) {
  const double now = now_seconds();
  const double seconds = now - std::exchange(last_step_, now);
  if (comm_.rank() != 0 || !job_.hooks->step) return;
  const auto& changes = job_.result->shares;
  const auto current = std::find_if(changes.rbegin(), changes.rend(),
                                    [&](const ShareReport& s) { return s.step <= step; });
  job_.hooks->step({step, seconds, current->predicted_s, current->images});
}

/// Adds what a pass found.
void RankTrainer::finish_loss(const Batch& batch, Measure& measure) {
  measure.loss += worker_.pass().finish_loss(predictions_.data());
  measure.images += batch.x.batch;
  const std::int64_t classes = job_.layers->back().outputs();
  for (std::int64_t i = 0; i < batch.x.batch; ++i) {
    measure.correct += predictions_[i] == batch.labels[i] ? 1 : 0;
    if (!measure.confusion.empty()) {
      ++measure.confusion[batch.labels[i] * classes + predictions_[i]];
    }
  }
}

/// Over the ranks with the same rows.
void RankTrainer::sum_gradients() {
  if (data_.size() == 1) return;
  Network<float>& network = worker_.network();
  data_.all_reduce(network.gradient(), network.gradient(), network.parameter_count(), DType::f32,
                   Reduction::sum, shares_memory(device_) ? nullptr : stream_.get());
}

/// Sums over the ranks, and the mean of the loss, the same on all of them.
void RankTrainer::reduce(Measure& measure) {
  std::vector<std::int64_t> first(static_cast<std::size_t>(model_.size()));
  const auto sum = [&](void* data, std::int64_t count, DType type) {
    if (data_.size() > 1) data_.all_reduce(data, data, count, type, Reduction::sum, nullptr);
    // Those that share rows measure the same images; unlike devices do so with other bits.
    first[0] = count;
    if (model_.size() > 1) model_.all_gather(data, data, first, type, nullptr);
  };
  sum(&measure.images, 1, DType::i64);
  sum(&measure.correct, 1, DType::i64);
  sum(&measure.loss, 1, DType::f64);
  sum(measure.confusion.data(), std::ssize(measure.confusion), DType::i64);
  if (measure.images > 0) measure.loss /= static_cast<double>(measure.images);
}

/// Whether images of a step go from rank to rank while they compute: where shares follow times
/// anyway, and rewiring does not look at a rank's share as a whole.
bool RankTrainer::helps() const {
  return team_.shares.follows() && data_.size() > 1 && shares_memory(device_) &&
         spec_.rewire.method != RewireMethod::rigl;
}

/// Images that there is to be room for: this rank's share, and whole pieces of others'.
std::int64_t RankTrainer::room_needed() const {
  const std::int64_t own = team_.shares.most();
  if (!helps()) return own;
  return std::max(own, std::min(images_at_once(spec_, *job_.layers, device_.info()), spec_.batch));
}

/// Lets others take of this rank's images of a step.
void RankTrainer::begin_turn(std::optional<PieceQueue::Turn>& turn, const Batch& batch) {
  if (spare_.bytes() == 0) {
    spare_ =
        device_.allocate_host(static_cast<std::size_t>(batch.x.features * width_) * sizeof(float));
  }
  turn.emplace(*job_.pieces, team_.devices[static_cast<std::size_t>(comm_.rank())],
               worker_.optimizer().steps(), batch,
               std::min(worker_.pieces().at_once(), most_images_), spare_.as<float>(), pace_.due());
}

double RankTrainer::train_step(Batch& batch, std::int64_t images, Measure& measure,
                               std::int64_t& rewired) {
  const std::int64_t step = worker_.optimizer().steps();
  pace_.begin_step(step);
  const float scale = 1.0F / static_cast<float>(images);
  const auto after_piece = [&](const Batch& piece) { finish_loss(piece, measure); };
  const bool rewire = rewirer_->due(step, worker_.optimizer().total_steps());
  const double done =
      static_cast<double>(step) / static_cast<double>(worker_.optimizer().total_steps());
  AnyBatchPass<float>::Visit visit;
  if (rewire && rewirer_->needs_gradient()) {
    visit = [&](std::size_t layer, const AnyBatchPass<float>::GradientOn& gradient) {
      rewirer_->observe(layer, gradient, done);
    };
  }
  std::optional<PieceQueue::Turn> turn;
  if (helps() && !rewire) begin_turn(turn, batch);
  const PiecePass::Next next = turn ? PiecePass::Next([&] {
    if (!turn->works_ahead(now_seconds(), pace_.due())) pace_.hold();
    return turn->next(pace_.due());
  })
                                    : worker_.pieces().pieces_of(batch);
  const Batch last = worker_.pieces().run(next, spec_.loss, scale, after_piece, visit);
  if (rewire) {
    finish_loss(last, measure);
    rewired += rewirer_->apply(done);
    worker_.optimizer().skip_step();
    pace_.hold();
    last_busy_ = pace_.busy();  // a step of another kind, which tells nothing of the others
    report_step(step);
    return 0.0;
  }
  const bool alone = comm_.size() == 1;
  if (!alone) {
    stream_->synchronize();  // a GPU's work is this rank's, and no waiting for others
    finish_loss(last, measure);
  }
  pace_.hold();
  if (turn) {
    images_ += turn->images() - batch.x.batch;
    taken_over_ += turn->taken_over();
  }
  follow_times(images, turn ? turn->images() : batch.x.batch);
  sum_gradients();
  turn.reset();  // nobody reads others' images any more
  const double rate = worker_.optimizer().step();
  if (alone) finish_loss(last, measure);  // the device goes on with the step meanwhile
  follow_rows(images);
  report_step(step);
  return rate;
}

void RankTrainer::train_epoch(EpochReport& report) {
  const std::int64_t count = std::ssize(job_.training);
  loader_.start(*job_.train,
                shuffled(job_.training, spec_.seed,
                         kShuffleStream + static_cast<std::uint64_t>(report.epoch)),
                shares(count));
  last_step_ = now_seconds();
  for (std::int64_t step = 0; step < steps_per_epoch_; ++step) {
    if (job_.hooks->cancel != nullptr && *job_.hooks->cancel) {
      throw CommError(fmt::format(
          "the run was cancelled in step {} of {} of epoch {}; --resume goes on from the newest "
          "checkpoint",
          step + 1, steps_per_epoch_, report.epoch));
    }
    comm_.show("step", worker_.optimizer().steps());
    Batch batch = loader_.next();
    epoch_step_ = step;
    const std::int64_t images = std::min(spec_.batch, count - step * spec_.batch);
    const double rate = train_step(batch, images, report.train, report.rewired);
    if (rate > 0.0) report.rate = rate;
    images_ += batch.x.batch;
    if (job_.hooks->images_done != nullptr && model_.rank() == 0) {
      *job_.hooks->images_done += batch.x.batch;
    }
  }
  reduce(report.train);
  report.steps = worker_.optimizer().steps();
}

Measure RankTrainer::measure(const LabelledImages& data, const std::vector<std::uint32_t>& ids,
                             bool confusion) {
  Measure measure;
  if (confusion) {
    const std::int64_t classes = job_.layers->back().outputs();
    measure.confusion.resize(static_cast<std::size_t>(classes * classes));
  }
  std::vector<Range> mine = shares(std::ssize(ids));
  const std::size_t steps = mine.size();
  loader_.start(data, ids, std::move(mine));
  for (std::size_t step = 0; step < steps; ++step) {
    comm_.show("measuring", static_cast<std::int64_t>(step));
    worker_.pieces().measure(loader_.next(), spec_.loss,
                             [&](const Batch& piece) { finish_loss(piece, measure); });
  }
  comm_.show("writing", -1);
  reduce(measure);
  return measure;
}

/// Whether the best epoch is too long ago, also when the run goes on from a checkpoint.
bool RankTrainer::out_of_patience() const {
  return spec_.patience && state_.best_epoch > 0 &&
         state_.epoch - state_.best_epoch >= *spec_.patience;
}

/// Reports, early stopping and the checkpoint; returns whether training is to stop.
bool RankTrainer::finish_epoch(EpochReport& report) {
  state_.epoch = report.epoch;
  state_.progress = worker_.optimizer().progress();
  bool stop = false;
  if (report.validation) {
    if (state_.best_epoch == 0 || report.validation->loss < state_.best_loss) {
      state_.best_loss = report.validation->loss;
      state_.best_epoch = report.epoch;
      if (spec_.restore_best) keep_best();
    }
    stop = out_of_patience();
  }
  if (comm_.rank() == 0) {
    job_.result->epochs.push_back(report);
    if (job_.hooks->epoch) job_.hooks->epoch(report);
  }
  const bool last = stop || report.epoch == spec_.epochs;
  if (!spec_.checkpoint.folder.empty() && (last || report.epoch % spec_.checkpoint.every == 0)) {
    write(CheckpointKind::whole);
  }
  return stop;
}

void RankTrainer::keep_best() {
  best_.clear();
  for (std::size_t l = 0; l < job_.layers->size(); ++l) {
    best_.push_back(worker_.rows(l, 1));
  }
  if (!spec_.checkpoint.folder.empty()) write(CheckpointKind::best);
}

/// Goes back to the parameters of the best epoch, where that is not the last.
void RankTrainer::restore_best() {
  if (best_.empty() || state_.best_epoch == state_.epoch) return;
  worker_.load(worker_.partition(), std::move(best_));
  if (comm_.rank() == 0) job_.result->restored_epoch = state_.best_epoch;
}

void RankTrainer::run() {
  const double start = now_seconds();
  report_shares(worker_.optimizer().steps());
  bool stop = out_of_patience();
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
  restore_best();
  std::vector<std::uint32_t> all(static_cast<std::size_t>(job_.test->count));
  std::iota(all.begin(), all.end(), 0U);
  const Measure test = all.empty() ? Measure{} : measure(*job_.test, all, true);
  report_rows();
  finish();
  if (comm_.rank() != 0) return;
  job_.result->train_s = trained - start;
  job_.result->stopped_early = stop && state_.epoch < spec_.epochs;
  job_.result->test = test;
}

}  // namespace spdnn::train
