// How fast networks are read: text into validated matrices, and the binary cache with its
// checksums.
//   io_speed DATA_DIR [NEURONS [LAYERS [RUNS]]]
// reads DATA_DIR/neuronN/nN-lL.tsv, warm, and prints one JSON object. The cache it times is its
// own, in the folder for temporary files; DATA_DIR is left as it is.
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "spdnn/device.hpp"
#include "spdnn/io.hpp"
#include "spdnn/report.hpp"

namespace {

/// Seconds of `runs` calls, after one that warms the page cache.
std::vector<double> time_runs(int runs, const std::function<void()>& body) {
  body();
  std::vector<double> seconds;
  for (int run = 0; run < runs; ++run) {
    const double start = spdnn::now_seconds();
    body();
    seconds.push_back(spdnn::now_seconds() - start);
  }
  return seconds;
}

nlohmann::json summary(std::vector<double> seconds, double bytes, double nnz) {
  nlohmann::json all = seconds;
  std::sort(seconds.begin(), seconds.end());
  const double median = seconds[seconds.size() / 2];
  return {{"seconds", all},
          {"median_s", median},
          {"min_s", seconds.front()},
          {"max_s", seconds.back()},
          {"bytes", bytes},
          {"bytes_per_nonzero", bytes / nnz},
          {"gigabytes_per_s", bytes / median * 1e-9}};
}

long number(int argc, char** argv, int at, long otherwise) {
  if (at >= argc) return otherwise;
  const std::string_view text = argv[at];
  long value = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), value);
  if (parsed.ptr != text.data() + text.size() || value < 1) {
    throw spdnn::InputError(std::string(text) + ": a number from 1 on is needed here");
  }
  return value;
}

nlohmann::json measure(int argc, char** argv) {
  const std::filesystem::path data_dir = argv[1];
  const long neurons = number(argc, argv, 2, 1024);
  const long layers = number(argc, argv, 3, 120);
  const int runs = static_cast<int>(number(argc, argv, 4, 15));

  std::vector<spdnn::Csr> network;
  spdnn::ReadReport report;
  const auto text = time_runs(runs, [&] {
    network = spdnn::read_graph_challenge_weights(data_dir, neurons, layers,
                                                  {.use = false, .fallback_dir = {}}, &report);
  });
  double nnz = 0;
  for (const spdnn::Csr& layer : network) nnz += static_cast<double>(layer.nnz());

  const auto file = std::filesystem::temp_directory_path() /
                    ("spdnn-io-speed-" + std::to_string(::getpid()) + ".spdnn");
  spdnn::write_cache(file, network, report.origin);
  network.clear();
  const auto cache_bytes = static_cast<double>(std::filesystem::file_size(file));
  std::vector<double> cache;
  try {
    cache = time_runs(runs, [&] { network = spdnn::read_cache(file); });
  } catch (...) {
    std::filesystem::remove(file);
    throw;
  }
  std::filesystem::remove(file);

  const spdnn::Version version = spdnn::version();
  return {{"benchmark", "io_speed"},
          {"argv", std::vector<std::string>(argv, argv + argc)},
          {"commit", version.commit},
          {"dirty", version.dirty},
          {"cores", spdnn::usable_cores().size()},
          {"device", spdnn::list_devices().front().name},
          {"layers", layers},
          {"nonzeros", nnz},
          {"text", summary(text, static_cast<double>(report.bytes), nnz)},
          {"cache", summary(cache, cache_bytes, nnz)}};
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc < 2) {
    std::fputs("io_speed DATA_DIR [NEURONS [LAYERS [RUNS]]]\n", stderr);
    return static_cast<int>(spdnn::ExitStatus::bad_input);
  }
  std::puts(measure(argc, argv).dump(2).c_str());
  return 0;
} catch (const spdnn::Error& error) {
  std::fprintf(stderr, "io_speed: %s\n", error.what());
  return static_cast<int>(error.status());
} catch (const std::exception& error) {
  std::fprintf(stderr, "io_speed: %s\n", error.what());
  return static_cast<int>(spdnn::ExitStatus::failure);
}
