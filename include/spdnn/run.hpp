// Running a configuration: the one call behind `spdnn-gpu run`.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "spdnn/compile.hpp"
#include "spdnn/config.hpp"

namespace spdnn {

/// How far a run is; written by the run, read by whoever shows it. All fields may be read at any
/// time.
struct Progress {
  std::atomic<const char*> phase{"starting"};
  std::atomic<std::int64_t> done{0};   ///< image–layers finished, dead ones included, or images
  std::atomic<std::int64_t> total{0};  ///< 0 where the phase does not count
  std::atomic<const char*> unit{"image·layers/s"};  ///< of `done` over time
  std::atomic<bool> cancel{false};                  ///< set it to end the run at the next segment
};

/// A rank's device, as reports name it.
struct RankDevice {
  std::string name;  ///< with what was asked of it
  std::string kind;
  std::string host;      ///< of the rank's process
  bool logical = false;  ///< slowed or a part of a real device
};

struct DeviceResult : RankDevice {
  double busy_s = 0.0;
  double idle_s = 0.0;
  std::int64_t images = 0;             ///< that it began
  std::int64_t images_taken_over = 0;  ///< from other ranks' shares, or from others under way
  std::int64_t helped_segments = 0;    ///< segments whose rows it computed a part of for others
  std::int64_t replayed_segments = 0;  ///< segments queued as a whole, as a GPU had run them before
};

/// The last layer's nonzeros.
struct Outputs {
  std::vector<std::int64_t> ids;  ///< images with any nonzero, 0-based, ascending
  Csr values;                     ///< [ids × outputs], filled where a run keeps them
};

struct SampleCheck {
  std::int64_t images = 0;  ///< checked against the reference; 0 when not done
  bool match = true;
  double max_abs_difference = 0.0;  ///< of the last layer, from float64
};

/// What `result.json` holds; see docs/result.md for units.
struct RunResult {
  std::string status;  ///< "verified", "done" or "wrong"
  std::string job;
  std::vector<DeviceResult> devices;
  Plan plan;
  CompileReport compile;
  std::int64_t images = 0, layers = 0, neurons = 0;
  struct Seconds {
    double load = 0, compile = 0, profile = 0, infer = 0, infer_resident = 0, verify = 0,
           partition = 0;
  } seconds;
  struct Edges {
    double nominal = 0, executed = 0;
    double executed_uncompiled = 0;  ///< what the same images cost in the network as given
  } edges;
  std::vector<std::int64_t> categories;  ///< 0-based ids
  std::optional<bool> categories_match;  ///< nothing where there is no truth
  SampleCheck sample;
  std::int64_t unique_images = 0;  ///< images really run
  std::int64_t equal_images = 0;   ///< of them, those that became equal to another one on the way
  std::int64_t fixed_images = 0;   ///< of them, those that reached a fixed point
  /// Of images with labels: those that were run, or the test images after training.
  std::optional<Measure> labelled;
  std::optional<TrainResult> train;  ///< of job train
  std::optional<RowTraffic> rows;    ///< where ranks each own some rows
  std::int64_t peak_host_bytes = 0, peak_device_bytes = 0;
  std::string model_origin, input_origin;
  std::vector<std::string> notes;     ///< what a reader must know beside the figures
  std::vector<std::string> failures;  ///< why the status is `wrong` or a bar was missed
};

/// Runs a configuration on the processes of `world`, all of which call this with the same one.
/// Results are in the first process, which writes categories (and outputs, where asked for) to the
/// output folder; the others' are empty. Throws `Error`; a result that is wrong is returned, not
/// thrown.
[[nodiscard]] RunResult run(const RunConfig& config, Progress& progress, World& world);
/// The same in this process alone.
[[nodiscard]] RunResult run(const RunConfig& config, Progress& progress);

/// Reads or generates a configuration's network. What a person should know of it is added to
/// `notes`, e.g. that a cache was rebuilt. Throws `InputError`.
[[nodiscard]] Model load_model(const RunConfig& config, std::vector<std::string>& notes);

/// Measures a configuration's devices on its network's layers, as `run` does before it plans.
/// `refresh` measures again what is remembered from earlier runs.
[[nodiscard]] Profile profile_devices(const RunConfig& config, const Model& model, bool refresh);

/// The exit status a result stands for.
[[nodiscard]] ExitStatus exit_status(const RunResult& result);

}  // namespace spdnn
