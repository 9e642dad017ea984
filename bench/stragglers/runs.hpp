// The scenarios of the study, and real runs of them.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "spdnn/run.hpp"

namespace spdnn::bench {

/// The strategies that are compared, the baseline first.
inline constexpr Strategy kStrategies[] = {Strategy::data, Strategy::model, Strategy::task_manager,
                                           Strategy::task_stealing, Strategy::data_then_model};

/// A network and its images in an order, as `spdnn::run` gets them.
struct Job {
  RunConfig config;                 ///< but for devices and strategy
  std::vector<std::int64_t> order;  ///< which image stands where
};

struct Scenario {
  std::string name;
  const Job* job = nullptr;
  std::vector<double> slowdowns;  ///< by rank
};

struct RealRun {
  double seconds = 0.0, resident_s = 0.0;
  std::vector<DeviceResult> ranks;
  std::vector<std::int64_t> categories;  ///< in the official order, ascending
  Plan plan;
};

/// One run with an even split on CPU ranks of one thread and of these slowdowns. `batch`: images
/// that a rank takes together; 0: chosen.
[[nodiscard]] RealRun run_once(const Job& job, const std::vector<double>& slowdowns,
                               Strategy strategy, std::int64_t batch = 0);

/// Images of the challenge at `neurons`, made of all of `mnist` and cut to `count`; kept in
/// `folder`.
[[nodiscard]] Csr study_images(const std::filesystem::path& mnist, std::int64_t neurons,
                               std::int64_t count, const std::filesystem::path& folder);

/// The official network of `data_dir` and `images` in `order`, which are written to `folder`.
[[nodiscard]] Job make_job(const std::filesystem::path& data_dir, std::int64_t neurons,
                           std::int64_t layers, const Csr& images, std::vector<std::int64_t> order,
                           const std::filesystem::path& folder);

}  // namespace spdnn::bench
