// Whole inference runs of this project and of other libraries, in turn in one process.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cstdio>

#include "end_to_end/measure.hpp"
#include "spdnn/io.hpp"
#include "support/record.hpp"

namespace {

using namespace spdnn;
using namespace spdnn::bench;

struct Arguments {
  WorkloadRequest request;
  std::vector<std::string> workloads = workload_names();
  std::vector<std::string> peers;
  std::vector<int> ranks = {1, 2};
  Repetitions repetitions;
  std::vector<std::string> repetitions_of;  ///< LIBRARY=N
  double patience_s = 0.0;
  std::filesystem::path output;
};

/// Reads `LIBRARY=N`.
void set_repetitions(const std::string& text, Repetitions& repetitions) {
  const std::size_t equals = text.find('=');
  const std::vector<std::string> known = peer_libraries();
  const std::string library = text.substr(0, equals);
  int count = 0;
  const char* const end = text.data() + text.size();
  const char* const begin = equals == std::string::npos ? end : text.data() + equals + 1;
  const auto parsed = std::from_chars(begin, end, count);
  if (std::find(known.begin(), known.end(), library) == known.end() || parsed.ptr != end ||
      parsed.ec != std::errc() || count < 1) {
    throw InputError(fmt::format("--repetitions-of {}: expected LIBRARY=N with a library of {}",
                                 text, fmt::join(known, ", ")));
  }
  repetitions.of[library] = count;
}

int run_all(const Arguments& arguments, const std::vector<std::string>& command) {
  nlohmann::json result = {{"benchmark", "end_to_end"},
                           {"conditions", describe_conditions(command)},
                           {"workloads", nlohmann::json::array()}};
  bool agree = true;
  for (const std::string& name : arguments.workloads) {
    const std::optional<Workload> workload = make_workload(name, arguments.request);
    if (!workload) {
      std::printf("%s: skipped, --data-dir has no such files\n", name.c_str());
      continue;
    }
    const Comparison comparison =
        compare(*workload, make_peers(*workload, arguments.peers, arguments.ranks),
                arguments.repetitions, arguments.patience_s);
    agree = agree && comparison.agree;
    std::fputs(describe(comparison.record).c_str(), stdout);
    std::fflush(stdout);
    result["workloads"].push_back(comparison.record);
    if (!arguments.output.empty()) {
      write_file_atomically(arguments.output, result.dump(1) + '\n');
    }
  }
  return static_cast<int>(agree ? ExitStatus::done : ExitStatus::wrong);
}

}  // namespace

int main(int argc, char** argv) try {
  Arguments arguments;
  arguments.request.work_dir = std::filesystem::temp_directory_path() / "spdnn-bench";
  CLI::App app("Runs whole inference jobs with spdnn and with other libraries in turn.");
  app.add_option("--workload", arguments.workloads, "Names of workloads (default: all)");
  app.add_option("--peers", arguments.peers, "Libraries to run (default: all of this build)")
      ->check(CLI::IsMember(peer_libraries()));
  app.add_option("--ranks", arguments.ranks,
                 "Numbers of ranks, or of other libraries' threads, to compare (default: 1 2)")
      ->check(CLI::Range(1, 1024));
  app.add_option("--repetitions", arguments.repetitions.each, "Timed runs of each peer")
      ->check(CLI::Range(1, 1000));
  app.add_option("--repetitions-of", arguments.repetitions_of,
                 "LIBRARY=N: another number for one, where it is slow");
  app.add_option("--patience", arguments.patience_s,
                 "Seconds a workload may wait for a quiet machine and repeat disturbed runs")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--images", arguments.request.images, "At most so many images")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{60000}));
  app.add_option("--data-dir", arguments.request.data_dir, "Folder with the official files")
      ->envname("SPDNN_DATA");
  app.add_option("--mnist", arguments.request.mnist,
                 "idx file of images (default: digits are drawn)")
      ->check(CLI::ExistingFile);
  app.add_option("--work-dir", arguments.request.work_dir, "Where generated data are kept");
  app.add_option("--output", arguments.output, "Result file (JSON)");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : static_cast<int>(ExitStatus::bad_input);
  }
  for (const std::string& text : arguments.repetitions_of) {
    set_repetitions(text, arguments.repetitions);
  }
  return run_all(arguments, {argv, argv + argc});
} catch (const spdnn::Error& error) {
  std::fprintf(stderr, "bench_end_to_end: %s\n", error.what());
  return static_cast<int>(error.status());
} catch (const std::exception& error) {
  std::fprintf(stderr, "bench_end_to_end: %s\n", error.what());
  return static_cast<int>(spdnn::ExitStatus::failure);
}
