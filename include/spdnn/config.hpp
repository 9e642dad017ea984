// A run's configuration: strict JSON in, a checked `RunConfig` out.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "spdnn/io.hpp"
#include "spdnn/partition.hpp"
#include "spdnn/plan.hpp"
#include "spdnn/train.hpp"

namespace spdnn {

/// `model.graph_challenge`: weights found in the data directory.
struct GraphChallengeModel {
  std::int64_t neurons = 0;
  std::int64_t layers = 0;
  std::optional<float> bias;  ///< nothing: the challenge's table
  float clip = 32.0F;
};
/// `model.radixnet`: weights generated in memory.
struct RadixNetModel {
  RadixNetSpec spec;
  std::optional<float> bias;  ///< nothing: the challenge's table
  float clip = 32.0F;
};
/// `model.path`: a network in files of any format that `read_network` reads.
struct FileModel {
  std::filesystem::path path;
  NetworkSettings settings{};
};
/// `model.layers`: a network to train; `RunConfig::train` holds its layers.
struct LayersModel {};
using ModelConfig = std::variant<GraphChallengeModel, RadixNetModel, FileModel, LayersModel>;

/// `input.graph_challenge`: images found in the data directory.
struct GraphChallengeInput {
  std::optional<std::int64_t> images;  ///< nothing: all
};
/// `input.idx`: grey images resized and thresholded to the model's inputs.
struct IdxInput {
  std::filesystem::path path;
  std::optional<std::int64_t> images;
};
/// `input.digits`: procedurally drawn digits.
struct DigitsInput {
  std::int64_t images = 1000;
};
/// `input.path`: a `.spdnn` file with one matrix `[images × inputs]`.
struct FileInput {
  std::filesystem::path path;
  std::optional<std::int64_t> images;
};
/// `input.mnist`, `input.cifar10`: a folder of labelled images.
struct LabelledInput {
  enum class Format : std::uint8_t { mnist, cifar10 };
  Format format = Format::mnist;
  std::filesystem::path folder;
};
/// `input.tsv`: labelled samples of any kind as text, see `read_labelled_tsv`.
struct TsvInput {
  std::int64_t features = 0;
  std::optional<std::int64_t> classes;  ///< nothing: as the labels have
  std::filesystem::path samples, labels;
  std::filesystem::path test_samples, test_labels;  ///< empty: no test
};
struct InputConfig {
  std::variant<GraphChallengeInput, IdxInput, DigitsInput, FileInput, LabelledInput, TsvInput>
      source;
  std::int64_t repeat = 1;  ///< the images, and the truth, so many times over
};

/// `verify.categories`: compare with the truth file when there is one, always, or never.
enum class VerifyCategories : std::uint8_t { automatic, required, off };
struct VerifyConfig {
  VerifyCategories categories = VerifyCategories::automatic;
  std::filesystem::path truth;                 ///< a truth file in place of the challenge's own
  std::int64_t sample_against_reference = 64;  ///< images checked layer by layer; 0 for none
};

/// Bars under `require`: a run that misses one ends with status 1.
struct RequireConfig {
  std::optional<bool> verified;  ///< status must be `verified`
  std::optional<double> max_infer_seconds;
  std::optional<double> min_nominal_edges_per_s;
  std::optional<std::int64_t> max_host_bytes;
  std::optional<double> min_accuracy;
};

/// `comm`: how the processes of a job work together.
struct CommConfig {
  std::string backend = "auto";  ///< "auto", "in_process", "mpi" or "nccl"
  double patience_s = 20.0;      ///< a rank that shows nothing new for so long counts as hung
};

struct RunConfig {
  std::string job = "infer";
  ModelConfig model;
  InputConfig input;
  VerifyConfig verify;
  std::vector<DeviceSpec> devices;        ///< empty: auto
  PlanRequest plan;                       ///< strategy, split, kernel, batch
  PartitionSpec partition;                ///< of the rows, under `model` and `grid`
  std::string compile = "off";            ///< "off", "safe", "full", or passes with commas between
  std::optional<double> compile_seconds;  ///< nothing: as long as running would take
  std::optional<bool> compile_cache;      ///< nothing: where compiling took long
  bool deduplicate_images = true;
  bool merge_images = true;       ///< images that become equal between layers run once
  bool cuda_graphs = true;        ///< GPUs keep segments they have run before
  bool skip_fixed_points = true;  ///< images that no layer changes any more skip those that follow
  Precision precision = Precision::fp32;  ///< the least that kernels may multiply in
  std::optional<std::int64_t>
      memory_limit;  ///< bytes for the whole run on the host, and for each GPU
  std::uint64_t seed = 1;
  bool cache = true;          ///< keep binary caches of text files
  bool save_outputs = false;  ///< write the last layer's nonzeros as outputs.tsv
  CommConfig comm;
  std::optional<TrainSpec> train;  ///< of job train; its checkpoints go to the output folder
  RequireConfig require;
  bool profile_range = false;      ///< mark the measured part for profilers: `--profile-range`
  std::filesystem::path output;    ///< folder of result.json
  std::filesystem::path data_dir;  ///< where data are looked up; may be empty
  std::filesystem::path file;      ///< the configuration itself
  /// Every key that decides what is computed, with its default where it was not given, as JSON.
  std::string deciding;
};

/// What the command line adds to a configuration file.
struct ConfigOverrides {
  std::vector<std::string> sets;  ///< `/json/pointer=value`
  std::filesystem::path data_dir;
  std::filesystem::path output;
};

/// Reads and checks a configuration. Relative data paths are looked up under the data directory
/// (`--data-dir`, else `SPDNN_DATA`), then beside the configuration. Throws `InputError` naming the
/// JSON pointer, what is allowed and, for a near miss, the key that was probably meant.
[[nodiscard]] RunConfig load_config(const std::filesystem::path& file,
                                    const ConfigOverrides& overrides);

/// The JSON Schema that `load_config` enforces, as text. `configs/schema.json` is this.
[[nodiscard]] std::string config_schema();

/// The one of `choices` that `word` was probably meant to be; empty when none is near.
[[nodiscard]] std::string_view nearest(std::string_view word,
                                       const std::vector<std::string_view>& choices);

}  // namespace spdnn
