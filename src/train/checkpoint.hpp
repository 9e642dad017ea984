// Training's state in safetensors files: what is written after an epoch and read to go on from it.
//
// Layer l has `layers.l.values`, `layers.l.row_offsets` and `layers.l.col_indices` (CSR, outputs ×
// inputs), or `layers.l.weight` where it is dense, `layers.l.bias`, and for each array of the
// optimiser's state `optimizer.i.layers.l.values` and `.bias`. Texts hold the rest. Rows and
// neurons are numbered as in the configuration, so that a checkpoint loads on any number of ranks.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "optimizer.hpp"
#include "rows.hpp"
#include "spdnn/io.hpp"
#include "topology.hpp"

namespace spdnn::train {

/// How far training is, beside the arrays.
struct TrainState {
  std::int64_t epoch = 0;  ///< done
  OptimizerProgress progress;
  double best_loss = 0.0;       ///< of the validation, where epoch > 0
  std::int64_t best_epoch = 0;  ///< 0: none yet
};

enum class CheckpointKind : std::uint8_t {
  whole,  ///< `checkpoint-EPOCH.safetensors`
  /// `best-EPOCH.safetensors`, the parameters alone, for `restore_best`. They stay as long as a
  /// checkpoint is kept that may name them.
  best,
};

/// Writes a checkpoint into the specification's folder, layer by layer, so that no more than one
/// has to be gathered at a time. All calls throw `SystemError` where it can't be written; those
/// that are there stay as they are.
class CheckpointWriter {
 public:
  /// Of `arrays` arrays: the parameters and the optimiser's state. The arguments must live as long.
  CheckpointWriter(CheckpointKind kind, const TrainSpec& spec, const TrainState& state,
                   const std::vector<TrainLayer>& layers, std::size_t arrays);
  /// All rows of a layer.
  void add(std::size_t layer, const RowsView<float>& rows);
  /// When all are there, the file gets its name. Only then a whole checkpoint removes all others
  /// but the `keep_last` newest up to its epoch.
  void commit();

 private:
  CheckpointKind kind_;
  const TrainSpec& spec_;
  std::int64_t epoch_;
  TensorWriter file_;
};

/// A checkpoint in memory.
struct Checkpoint {
  TrainState state;
  std::string fingerprint;
  std::vector<StartLayer> layers;
  /// Each array of the optimiser's state, by layer: values and biases.
  std::vector<std::vector<StartLayer>> optimizer;
};
/// Throws `InputError` with the reason where the file can't be trusted or is no checkpoint.
[[nodiscard]] Checkpoint read_checkpoint(const std::filesystem::path& file);

/// The newest checkpoint of the specification's folder that can be used; nothing where there is
/// none at all. Why newer ones were not used is added to `notes`. Throws `InputError` where there
/// are some, but none can be used.
[[nodiscard]] std::optional<Checkpoint> newest_checkpoint(const TrainSpec& spec,
                                                          std::vector<std::string>& notes);

/// What a person should know before a training that is not resumed takes the place of checkpoints
/// that lie in the specification's folder; empty where there are none.
[[nodiscard]] std::string note_of_replaced(const TrainSpec& spec);

/// What `write_best` wrote after the best epoch of `state`. Throws `InputError` where that is not
/// there, or damaged.
[[nodiscard]] Checkpoint best_checkpoint(const TrainSpec& spec, const TrainState& state);

/// All rows of a checkpoint's layers, with the optimiser's state if it has that.
[[nodiscard]] std::vector<LayerRows<float>> rows_of(const Checkpoint& checkpoint);

}  // namespace spdnn::train
