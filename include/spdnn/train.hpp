// Training networks whose layers are sparse: what can be asked for, and what comes back.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "spdnn/balance.hpp"
#include "spdnn/io.hpp"
#include "spdnn/partition.hpp"
#include "spdnn/plan.hpp"
#include "spdnn/train_op.hpp"

namespace spdnn {

/// How the connections of a layer are chosen.
enum class Topology : std::uint8_t {
  dense,      ///< all of them; stored without a pattern
  random,     ///< so many of all, each set of them equally likely
  radixnet,   ///< as the Graph Challenge's networks; as many inputs as outputs
  mask,       ///< those of a matrix in a file
  magnitude,  ///< the largest of the dense layer that training starts from
};

/// One layer to train. Convolutions and poolings take planes of features, ordered channel, height,
/// width; a linear layer takes all features as they come.
struct LayerSpec {
  std::int64_t outputs = 0;  ///< neurons or filters; poolings have as many channels as they take
  Topology topology = Topology::random;
  double density = 1.0;        ///< connections of all there could be: random, magnitude
  std::int64_t fold = 16;      ///< radixnet: every output has 2 · fold connections
  std::filesystem::path mask;  ///< a `.spdnn` file with one matrix [outputs × inputs]
  Epilogue activation;
  LayerKind kind = LayerKind::linear;
  std::int64_t kernel = 1, stride = 1;  ///< places a side of the window
  /// Places added on each side; without it as many as make the output ⌈in / stride⌉ a side.
  std::optional<std::int64_t> padding = {};
  /// Filters and channels in so many parts, each of which sees its own channels alone.
  std::int64_t groups = 1;
};

/// How the densities of random layers are meant.
enum class DensityRule : std::uint8_t {
  as_given,
  /// Their connections together stay, but are spread as ε·(inputs + outputs) a layer (Mocanu et
  /// al., Nature Communications 2018); a layer that would be more than full is full.
  erdos_renyi,
};

struct OptimizerSpec {
  OptimizerKind kind = OptimizerKind::adam;
  double rate = 0.001;
  double momentum = 0.9;              ///< momentum, nesterov
  double beta1 = 0.9, beta2 = 0.999;  ///< adam, adamw
  double epsilon = 1e-8;              ///< adam, adamw
  double weight_decay = 0.0;          ///< of values, not of biases
  std::optional<double> clip_norm;    ///< longest gradient, all parameters together
};

enum class ScheduleKind : std::uint8_t { constant, step, cosine };

/// The rate over time, as a part of the optimiser's.
struct ScheduleSpec {
  ScheduleKind kind = ScheduleKind::constant;
  double warmup_epochs = 0.0;  ///< rising linearly from 0
  std::int64_t every = 10;     ///< step: times `factor` each so many epochs
  double factor = 0.1;
  double last = 0.0;  ///< cosine: where it ends
};

enum class RewireMethod : std::uint8_t { none, set, rigl };

/// Connections that change while a network learns: the smallest are dropped and as many grown, at
/// random (SET: Mocanu et al., Nature Communications 2018) or where the loss has its largest
/// gradients (RigL: Evci et al., ICML 2020).
struct RewireSpec {
  RewireMethod method = RewireMethod::none;
  std::int64_t every = 100;  ///< steps from one change to the next
  double fraction = 0.3;     ///< of a layer's connections; falls to 0 by a cosine
  double until = 0.75;       ///< of all steps, after which connections stay
};

/// How losses are scaled where fp16 is stored (`LossScale`).
struct LossScaleSpec {
  float first = 65536;
  std::int64_t every = 2000;  ///< good steps, after which it doubles
};

struct CheckpointSpec {
  std::filesystem::path folder;  ///< empty: none are written
  std::int64_t every = 1;        ///< epochs
  std::int64_t keep_last = 2;
  bool resume = false;  ///< go on from the newest that can be used
};

/// Which layers of a network that ranks share are split by inputs (`LayerSplit`).
enum class InputSplit : std::uint8_t {
  automatic,     ///< those that are modelled to be sooner done so
  never,         ///< none: the way forward has the bits of one rank
  every_second,  ///< of the layers that have weights (Moreno-Álvarez et al., 2021)
};

struct TrainSpec {
  std::vector<LayerSpec> layers;
  DensityRule density_rule = DensityRule::as_given;
  Loss loss = Loss::cross_entropy;
  std::int64_t epochs = 10;
  std::int64_t batch = 128;  ///< images of one step, all ranks together
  OptimizerSpec optimizer;
  ScheduleSpec schedule;
  RewireSpec rewire;
  /// What activations, what comes back of them and the values that are multiplied are stored as,
  /// on GPUs: fp32, bf16 or fp16. Parameters, their gradient and the optimiser's state are fp32.
  Precision precision = Precision::fp32;
  LossScaleSpec loss_scale;
  /// Ranks that share the rows of one network. The others repeat it with other images of a batch:
  /// 1 is data parallelism, all ranks model parallelism, between them a grid; 0: chosen by what
  /// the devices are measured to do.
  int model_ranks = 1;
  PartitionSpec partition;  ///< who owns which rows, where not as `split` has it
  InputSplit input_split = InputSplit::automatic;
  Link link;  ///< between ranks of one process, declared
  /// How images of a step, rows, or both (`share_grid`) are shared among ranks: even and ratios
  /// give equal bits in equal runs. A rank of ratio 0 is left out.
  Split split = {SplitKind::even, {}};
  /// Whether measured times move shares that go by speed; nothing: where devices are unlike.
  std::optional<bool> rebalance;
  std::optional<std::int64_t> memory_limit;  ///< bytes of all CPU ranks; nothing: found out
  bool cuda_graphs = true;                   ///< GPUs keep the steps they have run before
  std::string profile_cache;             ///< file of measurements to use and to add to; empty: none
  std::int64_t validation = 0;           ///< training images held out, chosen by the seed
  std::optional<std::int64_t> patience;  ///< epochs without a smaller validation loss, then stop
  bool restore_best = false;             ///< end with the epoch of the smallest validation loss
  std::filesystem::path start_from;      ///< a checkpoint whose parameters training starts from
  CheckpointSpec checkpoint;
  std::uint64_t seed = 1;
  /// What decides the result, as text: a checkpoint of another one is not resumed.
  std::string fingerprint;
};

/// How well a network does on a set of images.
struct Measure {
  std::int64_t images = 0, correct = 0;
  double loss = 0.0;                    ///< mean of the images
  std::vector<std::int64_t> confusion;  ///< [label][prediction]; empty where not asked for
  [[nodiscard]] double accuracy() const {
    return images == 0 ? 0.0 : static_cast<double>(correct) / static_cast<double>(images);
  }
};

struct EpochReport {
  std::int64_t epoch = 0;  ///< from 1
  std::int64_t steps = 0;  ///< since the beginning
  double rate = 0.0;       ///< of the last step
  Measure train;           ///< as the images passed, each with the parameters of its step
  std::optional<Measure> validation;
  std::int64_t rewired = 0;  ///< connections dropped and grown
  double seconds = 0.0;      ///< training and validation
};

/// A step, as the first rank saw it.
struct StepReport {
  std::int64_t step = 0;             ///< from 0
  double seconds = 0.0;              ///< since the step before, waiting for the slowest included
  double predicted_s = 0.0;          ///< of the slowest rank's work; 0 where nothing was measured
  std::vector<std::int64_t> images;  ///< of a whole batch, by rank, in this step
};

/// Shares of a batch from a step on.
struct ShareReport {
  std::int64_t step = 0;
  std::vector<std::int64_t> images;  ///< by device; those of its group where ranks share rows
  std::vector<double> rows;          ///< by device: part of all connections; empty: all have all
  double predicted_s = 0.0;          ///< as `StepReport`
};

/// Bytes of one kind that training takes, all ranks together.
struct MemoryItem {
  std::string name;
  std::int64_t bytes = 0;         ///< of the host's memory
  std::int64_t device_bytes = 0;  ///< of GPUs' memory
};

/// A layer's share of a trained network.
struct LayerReport {
  std::int64_t inputs = 0, outputs = 0, connections = 0;
};

struct TrainResult {
  std::vector<EpochReport> epochs;  ///< of this call; those before a resumed checkpoint are not
  std::int64_t resumed_epochs = 0;
  bool stopped_early = false;
  std::int64_t restored_epoch = 0;  ///< whose parameters it ended with; 0: the last one's
  Measure test;  ///< with the confusion matrix; no images where no test set was given
  std::vector<LayerReport> layers;
  std::vector<MemoryItem> memory;
  std::int64_t peak_device_bytes = 0;         ///< most that one GPU held; 0 without one
  std::vector<ShareReport> shares;            ///< the first ones, and those after each change
  std::vector<std::int64_t> rank_images;      ///< of each rank, in this call
  std::vector<std::int64_t> rank_taken_over;  ///< of them those it took of slower ranks
  std::vector<double> rank_seconds;           ///< each rank's, in this call
  std::vector<std::int64_t>
      rank_replays;                ///< halves of steps that a GPU had kept, since rows moved
  std::optional<RowTraffic> rows;  ///< where ranks share the rows of a network
  double train_s = 0.0;            ///< of all epochs, validation included
  std::vector<std::string> notes;
  Model model;  ///< as trained; dense layers as full sparse ones
};

struct TrainCosts;

struct TrainHooks {
  std::function<void(const EpochReport&)> epoch;  ///< called by one rank's thread
  std::atomic<std::int64_t>* images_done = nullptr;
  const std::atomic<bool>* cancel = nullptr;         ///< set it to end the run after a step
  RunRanks run_ranks;                                ///< without it, all ranks are in this process
  std::function<void(const StepReport&)> step = {};  ///< called by the thread of `epoch`
  /// Plans by these costs and measures nothing; without them, every run measures for itself.
  const TrainCosts* costs = nullptr;
};

/// Trains a network on `train`, one rank a device, and measures it on `test` (which may be empty).
/// Equal arguments give equal bits on equal devices. With ranks in several processes, each of them
/// calls this alike, and the result is in the one that has rank 0. Throws `InputError` where the
/// specification and the data do not fit, `Error` with status `failure` when cancelled.
[[nodiscard]] TrainResult train_network(const TrainSpec& spec, const LabelledImages& train,
                                        const LabelledImages& test,
                                        const std::vector<DeviceSpec>& devices,
                                        const TrainHooks& hooks);

/// The network that training of `spec` on `train` begins with.
[[nodiscard]] Model initial_network(const TrainSpec& spec, const LabelledImages& train);

/// How devices would share the steps of a training.
struct TrainingPlan {
  std::vector<RankCost> costs;   ///< by device: seconds of its part of a step, by images
  SharePlan shares;              ///< of a whole step
  double edges_per_image = 0.0;  ///< multiply–adds of the way forward
  std::vector<std::string> notes;
};

/// Measures `devices` on steps over samples like those of `train`, and plans as `train_network`
/// does before it begins. With ranks in several processes, each of them calls this alike, and the
/// plan is in the one that has rank 0.
[[nodiscard]] TrainingPlan plan_training(const TrainSpec& spec, const LabelledImages& train,
                                         const std::vector<DeviceSpec>& devices,
                                         const RunRanks& run_ranks);

}  // namespace spdnn
