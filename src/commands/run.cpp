// spdnn-gpu run: runs a configuration, writes result.json, prints the summary.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <memory>
#include <optional>

#include "command.hpp"
#include "spdnn/config.hpp"
#include "spdnn/report.hpp"

namespace spdnn {
namespace {

namespace fs = std::filesystem;

struct Options {
  ConfigOptions config;
  fs::path trace;
  bool profile_range = false;
  bool resume = false;
  bool quiet = false;
  bool json = false;
};

/// Keeps other runs from a folder while it lives: their files would mix with this one's. The system
/// forgets it when the process ends, in whatever way. Where a file system knows no such locks,
/// nothing is kept from anybody.
class FolderLock {
 public:
  /// Throws `InputError` where another run has the folder.
  explicit FolderLock(const fs::path& folder)
      : descriptor_(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
    if (descriptor_ < 0 || flock(descriptor_, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) {
      return;
    }
    close(descriptor_);
    throw InputError(folder,
                     "another run is writing its results there; let it end, or name another folder "
                     "with --output");
  }
  ~FolderLock() {
    if (descriptor_ >= 0) close(descriptor_);
  }
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  int descriptor_;
};

/// Makes the folder, and finds out now whether it can hold the results.
void make_output_folder(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error || !fs::is_directory(folder, error)) {
    throw SystemError(fmt::format(
        "{}: the output folder can't be made: {}; name another with --output", folder.string(),
        error ? error.message() : "a file of that name is in the way"));
  }
  check_writable(folder / "result.json");
}

void show(const RunResult& result, const RunConfig& config, const Options& options,
          const std::vector<std::string>& arguments) {
  const std::string json = result_json(result, arguments);
  const fs::path file = config.output / "result.json";
  write_file_atomically(file, json);
  if (options.json) {
    print(json);
  } else if (!options.quiet) {
    print(result_summary(result) + fmt::format("\n  result written to {}\n", file.string()));
  }
  if (options.json || options.quiet) {
    for (const std::string& failure : result.failures) {
      fmt::print(stderr, "{}: {}\n", result.status, failure);
    }
  }
}

void check_backend(const CommConfig& config, World& world) {
  const int processes = world.processes().size();
  if (config.backend == "in_process" && processes > 1) {
    throw InputError(
        fmt::format("/comm/backend: is 'in_process', but there are {} processes; "
                    "start one, or remove the key",
                    processes));
  }
  if (config.backend == "mpi" && processes == 1) {
    throw InputError(
        "/comm/backend: is 'mpi', but this process is alone; start several with mpirun or srun");
  }
}

/// Runs on all processes of a job. The first one shows and writes what comes of it.
ExitStatus run_on(World& world, const Options& options, const std::vector<std::string>& arguments) {
  RunConfig config = load_config(options.config.file, options.config.overrides);
  config.profile_range = options.profile_range;
  if (options.resume) {
    if (!config.train) throw InputError("--resume: goes with a configuration whose job is 'train'");
    config.train->checkpoint.resume = true;
  }
  check_backend(config.comm, world);
  world.set_patience(config.comm.patience_s);
  const bool leads = world.processes().rank() == 0;
  Progress progress;
  const InterruptScope interrupts(progress, leads);
  if (leads) make_output_folder(config.output);
  std::optional<FolderLock> lock;
  if (leads) lock.emplace(config.output);
  if (!options.trace.empty() && leads) check_writable(options.trace);
  if (!options.trace.empty()) start_trace();
  const RunResult result = [&] {
    const ProgressPrinter printer(progress, stderr, options.quiet || !leads);
    return run(config, progress, world);
  }();
  auto status = static_cast<std::int64_t>(exit_status(result));
  if (leads) {
    if (!options.trace.empty()) write_file_atomically(options.trace, trace_json(stop_trace()));
    show(result, config, options, arguments);
  }
  world.processes().all_reduce(&status, &status, 1, DType::i64, Reduction::max, nullptr);
  return static_cast<ExitStatus>(status);
}

}  // namespace

void add_run(CLI::App& app, CommandLine& line) {
  CLI::App* command = app.add_subcommand("run", "Run a configuration");
  const auto options = std::make_shared<Options>();
  add_config_options(*command, options->config);
  command
      ->add_option("--output", options->config.overrides.output,
                   "Folder of result.json, in place of the configuration's")
      ->type_name("DIR");
  command
      ->add_option("--trace", options->trace,
                   "Write a timeline for chrome://tracing or ui.perfetto.dev")
      ->type_name("FILE");
  command->add_flag("--profile-range", options->profile_range,
                    "Mark the run for nsys --capture-range=cudaProfilerApi");
  command->add_flag("--resume", options->resume,
                    "Go on training from the newest checkpoint in the output folder");
  command->add_flag("--quiet", options->quiet, "Show neither progress nor the summary");
  command->add_flag("--json", options->json, "Print result.json in place of the summary");
  command->footer(
      "Ends with 0 when all that could be checked was right, 1 when the result is wrong or a bar\n"
      "under \"require\" was missed, 2 for a bad configuration or input, 3 for a device or\n"
      "file-system failure, 130 when interrupted.\n\n"
      "Example:\n"
      "  spdnn-gpu run configs/sdgc_1024_120.json --data-dir ~/sdgc --set /batch=4096");
  command->callback([options, &line] {
    line.action = [options, &line] {
      return on_all_processes(
          [&](World& world) { return run_on(world, *options, line.arguments); });
    };
  });
}

}  // namespace spdnn
