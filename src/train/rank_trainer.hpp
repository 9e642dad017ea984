// One rank's work in all epochs: its share of each batch, sums over the ranks, and the step that
// all of them take alike, so that ranks with the same rows keep equal parameters bit for bit.
#pragma once

#include <optional>

#include "batch_shares.hpp"
#include "checkpoint.hpp"
#include "loader.hpp"
#include "paced.hpp"
#include "piece_queue.hpp"
#include "rewire.hpp"
#include "spdnn/train_plan.hpp"

namespace spdnn::train {

/// What training begins with.
struct Beginning {
  std::vector<TrainLayer> layers;
  std::vector<TrainLayer> first;  ///< as they were before any rewiring; none: as they are
  std::vector<StartLayer> start;
  std::optional<Checkpoint> resumed;
  std::optional<Checkpoint> best;  ///< of the epochs before the resumed one

  [[nodiscard]] const std::vector<TrainLayer>& first_layers() const {
    return first.empty() ? layers : first;
  }
};

/// What all ranks share, read only but for the result, which the leading rank writes: the one with
/// the first place (`choose_leader`).
struct Job {
  const TrainSpec* spec;
  const LabelledImages* train;
  const LabelledImages* test;
  std::vector<std::uint32_t> training, validation;  ///< ids in `train`
  const std::vector<TrainLayer>* layers;            ///< without their connections, which ranks have
  /// There until all ranks of this process have taken their parts of it, which `beginners` counts.
  std::optional<Beginning>* beginning;
  std::atomic<int>* beginners;
  const TrainHooks* hooks;
  std::atomic<bool>* has_first;  ///< set where the first rank runs in this process
  TrainResult* result;
  PieceQueue* pieces;      ///< of the ranks of this process
  std::vector<int> cores;  ///< of this process
};

/// A rank's place among the others: a grid of those that share images and those that share rows.
struct Team {
  Communicator* comm;                     ///< all of them
  Communicator* data;                     ///< those with the same rows and other images
  Communicator* model;                    ///< those with the same images and other rows
  std::vector<LayerPartition> partition;  ///< of the rows
  std::vector<LayerSplit> splits;         ///< of the layers
  BatchShares shares;                     ///< of the images, between the ranks of `data`
  std::optional<RowBalancer> balancer;    ///< of the rows, where they follow measured times
  std::vector<std::size_t> devices;       ///< by rank of `comm`, which one it is
  RowTraffic rows = {};                   ///< rank 0: what crosses for one image, predicted
};

/// Images in a random order that depends on the seed and the stream alone.
[[nodiscard]] std::vector<std::uint32_t> shuffled(const std::vector<std::uint32_t>& ids,
                                                  std::uint64_t seed, std::uint64_t stream);

/// One rank's work in all epochs.
class RankTrainer {
 public:
  RankTrainer(const Job& job, Team& team, Device& device, const DeviceSpec& spec);
  void run();

 private:
  [[nodiscard]] std::vector<Range> shares(std::int64_t images) const;
  [[nodiscard]] double worked();
  void follow_times(std::int64_t images, std::int64_t own);
  void follow_rows(std::int64_t images);
  void report_step(std::int64_t step);
  void report_shares(std::int64_t step);
  void train_epoch(EpochReport& report);
  [[nodiscard]] bool helps() const;
  [[nodiscard]] std::int64_t room_needed() const;
  void begin_turn(std::optional<PieceQueue::Turn>& turn, const Batch& batch);
  double train_step(Batch& batch, std::int64_t images, Measure& measure, std::int64_t& rewired);
  [[nodiscard]] Measure measure(const LabelledImages& data, const std::vector<std::uint32_t>& ids,
                                bool confusion);
  void finish_loss(const Batch& batch, Measure& measure);
  void sum_gradients();
  void reduce(Measure& measure);
  [[nodiscard]] bool out_of_patience() const;
  [[nodiscard]] bool finish_epoch(EpochReport& report);
  void keep_best();
  void restore_best();
  void report_memory();
  [[nodiscard]] std::vector<MemoryItem> own_memory();
  void report_share();
  void report_rows();
  void write(CheckpointKind kind);
  void finish();

  const Job& job_;
  const TrainSpec& spec_;
  Team& team_;
  Pace pace_;
  PacedCommunicator comm_, data_, model_;  ///< those of the team
  Device& device_;
  std::unique_ptr<Stream> stream_;
  std::int64_t width_, most_images_;
  std::int64_t steps_per_epoch_;
  Worker worker_;
  std::unique_ptr<Rewirer> rewirer_;
  Loader loader_;
  Buffer spare_;  ///< a panel of images for pieces of others' that begin within one
  TrainState state_;
  std::vector<LayerRows<float>> best_;  ///< this rank's rows after the best epoch, to restore
  std::vector<std::int32_t> predictions_;
  std::int64_t images_ = 0, taken_over_ = 0;
  std::int64_t epoch_step_ = 0;  ///< batches of this epoch that were taken before the current one
  bool rows_moved_ = false;
  double last_busy_ = 0.0;  ///< of the pace, when times were told last
  double last_step_ = 0.0;  ///< when a step ended last
};

}  // namespace spdnn::train
