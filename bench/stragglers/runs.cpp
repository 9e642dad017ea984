// Jobs as configurations of `spdnn::run`; nothing that saves work by luck of the data is on.
#include "stragglers/runs.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

namespace spdnn::bench {

namespace fs = std::filesystem;

RealRun run_once(const Job& job, const std::vector<double>& slowdowns, Strategy strategy,
                 std::int64_t batch) {
  RunConfig config = job.config;
  config.devices.assign(slowdowns.size(), DeviceSpec{});
  for (std::size_t r = 0; r < slowdowns.size(); ++r) config.devices[r].slowdown = slowdowns[r];
  config.plan.strategy = strategy;
  config.plan.split.kind = SplitKind::even;
  if (batch > 0) config.plan.batch = batch;
  Progress progress;
  const RunResult result = spdnn::run(config, progress);
  RealRun run;
  run.seconds = result.seconds.infer;
  run.resident_s = result.seconds.infer_resident;
  run.ranks = result.devices;
  run.plan = result.plan;
  for (const std::int64_t id : result.categories) run.categories.push_back(job.order[id]);
  std::sort(run.categories.begin(), run.categories.end());
  return run;
}

Csr study_images(const fs::path& mnist, std::int64_t neurons, std::int64_t count,
                 const fs::path& folder) {
  const fs::path file = folder / fmt::format("mnist-{}.spdnn", neurons);
  if (!fs::exists(file)) {
    fs::create_directories(folder);
    write_cache(file, {challenge_images(read_idx_images(mnist), neurons)}, "MNIST");
  }
  const Csr all = read_cache(file).front();
  if (all.rows() < count) {
    throw InputError(mnist, fmt::format("{} images, {} are needed; name a larger file or lower "
                                        "--images",
                                        all.rows(), count));
  }
  std::vector<std::int64_t> ids(static_cast<std::size_t>(count));
  std::iota(ids.begin(), ids.end(), 0);
  return gather_rows(all, ids);
}

Job make_job(const fs::path& data_dir, std::int64_t neurons, std::int64_t layers, const Csr& images,
             std::vector<std::int64_t> order, const fs::path& folder) {
  const fs::path file = folder / "images.spdnn";
  fs::create_directories(folder);
  write_cache(file, {gather_rows(images, order)}, "MNIST, in an order of the study");
  Job job;
  job.config.model = GraphChallengeModel{neurons, layers, std::nullopt, 32.0F};
  job.config.input.source = FileInput{file, std::nullopt};
  job.config.deduplicate_images = false;
  job.config.merge_images = false;
  job.config.skip_fixed_points = false;
  job.config.compile = "off";
  job.config.verify.categories = VerifyCategories::off;
  job.config.verify.sample_against_reference = 0;
  job.config.output = folder / "output";
  job.config.data_dir = data_dir;
  job.config.file = folder / "stragglers.json";
  job.order = std::move(order);
  return job;
}

}  // namespace spdnn::bench
