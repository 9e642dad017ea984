// One rank's part of a network in training: its rows, the optimiser's state of them, and a batch's
// way. Rows come and go whole, so that the same three calls start a run, resume one, rewire a
// network, write a checkpoint and give rows to other ranks.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "any_pass.hpp"
#include "optimizer.hpp"
#include "pieces.hpp"
#include "rows.hpp"

namespace spdnn::train {

/// What one rank sent to those that share its rows: bytes before each layer, and at the end before
/// the loss, and for how many images.
struct Crossed {
  std::vector<std::int64_t> forward, backward;
  std::int64_t images_forward = 0, images_backward = 0;
};

class Worker {
 public:
  /// Of a network with these layers, whose patterns are not looked at but for whether they are
  /// dense. `model` joins the ranks that share its rows; `splits` says how each layer is split
  /// between them, all by outputs where it is empty. All arguments but these must live as long;
  /// nothing is there before `load`.
  Worker(const TrainSpec& spec, const std::vector<TrainLayer>& layers,
         const TrainKernels<float>& kernels, Communicator& model, Device& device, Stream& stream,
         std::int64_t steps_per_epoch, std::vector<LayerSplit> splits = {});

  /// Takes this rank's rows of all layers under `partition`, in its order, with one array or with
  /// those of the optimiser's state as well. All ranks call it. Steps taken so far are kept.
  void load(std::vector<LayerPartition> partition, std::vector<LayerRows<float>> rows);
  /// This rank's rows under `partition` out of those of the whole network.
  [[nodiscard]] std::vector<LayerRows<float>> own_rows(const std::vector<LayerPartition>& partition,
                                                       std::vector<LayerRows<float>> all) const;
  /// Takes this rank's rows out of those of the whole network.
  void load_whole(std::vector<LayerPartition> partition, std::vector<LayerRows<float>> all);
  /// The parameters, and the optimiser's state behind them.
  [[nodiscard]] std::size_t arrays() const { return 1 + optimizer_->state().size(); }
  /// This rank's rows of a layer in the order of the partition, with the first `arrays` arrays. All
  /// ranks call it, since of a layer split by inputs each has some columns.
  [[nodiscard]] LayerRows<float> rows(std::size_t layer, std::size_t arrays) const;
  /// Rank 0 gets all rows of a layer in their original order, the others none. All ranks call it.
  [[nodiscard]] LayerRows<float> gather(std::size_t layer, std::size_t arrays) const;
  /// Shows rank 0 what `gather` returns; where all of it is here, without a copy. All ranks call
  /// it.
  void show(std::size_t layer, std::size_t arrays,
            const std::function<void(const RowsView<float>&)>& see) const;
  /// Gives rows to other ranks, with all that belongs to them. All ranks call it.
  void repartition(std::vector<LayerPartition> next);
  /// Makes room for batches of up to so many images.
  void make_room(std::int64_t most_images);
  /// Gives back all memory but that of the parameters, which can be gathered from now on, and
  /// nothing else.
  void keep_parameters_alone();

  [[nodiscard]] const std::vector<TrainLayer>& layers() const noexcept { return layers_; }
  [[nodiscard]] const std::vector<LayerPartition>& partition() const noexcept { return partition_; }
  [[nodiscard]] Communicator& model() const noexcept { return model_; }
  [[nodiscard]] Device& device() const noexcept { return device_; }
  [[nodiscard]] const Shard& shard() const noexcept { return *shard_; }
  [[nodiscard]] Network<float>& network() { return *network_; }
  [[nodiscard]] AnyBatchPass<float>& pass() { return *pass_; }
  /// Takes whole batches through `pass`, which has room for a piece of one.
  [[nodiscard]] PiecePass& pieces() { return *pieces_; }
  [[nodiscard]] const PiecePass& pieces() const { return *pieces_; }
  [[nodiscard]] Optimizer& optimizer() { return *optimizer_; }
  [[nodiscard]] const Network<float>& network() const { return *network_; }
  [[nodiscard]] const Optimizer& optimizer() const { return *optimizer_; }
  /// Since the beginning.
  [[nodiscard]] Crossed crossed() const;
  /// Row i of this rank's order is row `places(layer)[i]` in the order of the partition.
  [[nodiscard]] std::vector<std::size_t> places(std::size_t layer) const;

 private:
  void make_pass();
  [[nodiscard]] bool by_inputs(std::size_t layer) const {
    return model_.size() > 1 && !splits_.empty() && splits_[layer] == LayerSplit::inputs;
  }
  /// Row i of this rank's order is row `sources(layer)[i]` of those that it was given.
  [[nodiscard]] std::vector<std::size_t> sources(std::size_t layer) const;
  [[nodiscard]] std::vector<const float*> held_arrays(std::size_t arrays) const;
  [[nodiscard]] LayerRows<float> held_rows(std::size_t layer, std::size_t arrays) const;
  [[nodiscard]] bool has_weights(std::size_t layer) const {
    return !std::holds_alternative<PoolForm>(layers_[layer].form);
  }

  const TrainSpec& spec_;
  const std::vector<TrainLayer>& layers_;
  const TrainKernels<float>& kernels_;
  Communicator& model_;
  Device& device_;
  Stream& stream_;
  std::int64_t steps_per_epoch_;
  std::vector<LayerSplit> splits_;
  std::int64_t most_images_ = 1;
  std::vector<LayerPartition> partition_;
  std::optional<Shard> shard_;
  std::optional<Network<float>> network_;
  std::optional<Optimizer> optimizer_;
  std::unique_ptr<AnyBatchPass<float>> pass_;
  std::optional<PiecePass> pieces_;
  Crossed crossed_;  ///< by passes that are no more
};

}  // namespace spdnn::train
