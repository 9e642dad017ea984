// Runs on ranks that are slowed by declared factors: training steps, and whole inferences.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "spdnn/config.hpp"

namespace spdnn::bench {

/// One run: seconds of a typical step, or of the inference.
struct Timing {
  double seconds = 0.0;
  double predicted_s = 0.0;                ///< 0 where nothing was
  std::vector<std::int64_t> shares;        ///< of a batch, or of all images, by rank
  std::vector<std::int64_t> first_shares;  ///< before times were followed
  std::vector<double> rows;                ///< by rank, parts of the network; empty: all have all
};

/// A run in which the last device becomes slower.
struct Change {
  std::vector<double> step_s;
  std::vector<std::vector<std::int64_t>> images;  ///< by step and rank
  double after_s = 0.0;            ///< of a typical step from 20 steps after the change on
  double weight_difference = 0.0;  ///< from an undisturbed run: largest, over the largest weight
};
inline constexpr double kChangeFactor = 3.0;
inline constexpr double kOfIdealAfterChange = 1.10;
/// Steps after which shares must have settled.
inline constexpr std::int64_t kSettled = 20;

class Workload {
 public:
  Workload() = default;
  Workload(const Workload&) = delete;
  Workload& operator=(const Workload&) = delete;
  virtual ~Workload() = default;
  [[nodiscard]] virtual Timing time(const std::vector<double>& slowdowns,
                                    SplitKind split) const = 0;
  /// Seconds of a step that one rank takes alone for so many images: what its slowdown makes of a
  /// share, and of the caches that are cold after each sleep, without anyone beside it. None for an
  /// inference.
  [[nodiscard]] virtual std::optional<double> alone_s(double slowdown,
                                                      std::int64_t images) const = 0;
  /// Throws `InputError` where the workload has no steps.
  [[nodiscard]] virtual Change change(const std::vector<double>& slowdowns,
                                      std::int64_t at_step) const = 0;
  /// Seconds that `ranks` ranks, all there at once, exchange what a step or an inference exchanges.
  [[nodiscard]] virtual double communication_s(std::size_t ranks) const = 0;
};

/// A training configuration, cut to `steps` steps of one epoch, or one of inference. Devices, split
/// and output are the benchmark's own.
[[nodiscard]] std::unique_ptr<Workload> make_workload(const RunConfig& config, std::int64_t steps);

}  // namespace spdnn::bench
