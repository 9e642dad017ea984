// Times every CPU SpMM kernel of the table, and peers, against limits measured by the same program.
//   bench_kernels [--benchmark_filter=REGEX] [--benchmark_out=FILE] …   (Google Benchmark's flags)
#include <benchmark/benchmark.h>

#include <cstdio>
#include <functional>
#include <random>

#include "kernels/benchmarks.hpp"
#include "kernels/layers.hpp"
#include "kernels/peers.hpp"
#include "limits/floor.hpp"
#include "spdnn/limits.hpp"
#include "spdnn/op.hpp"
#include "support/record.hpp"

namespace {

using namespace spdnn;
using namespace spdnn::bench;

constexpr double kLeastSeconds = 0.2;
constexpr int kColdRuns = 10;

/// Activations as a living image has them: some of them 0, the others between 0 and 2.
void fill(float* x, std::int64_t count) {
  std::mt19937 random(1);
  for (std::int64_t i = 0; i < count; ++i) {
    const auto bits = random();
    x[i] = bits % 4 == 0 ? 0.0F : static_cast<float>(bits >> 8) * 0x1p-23F;
  }
}

/// Pushes everything else out of a core's caches and most of a shared one.
void evict() {
  static std::vector<char> memory(std::size_t{128} << 20);
  for (std::size_t i = 0; i < memory.size(); i += 64) ++memory[i];
  ::benchmark::ClobberMemory();
}

/// Times `body` and sets it beside the layer's floor.
template <class Body>
void time_layer(::benchmark::State& state, const LayerCase& layer, std::int64_t batch, int threads,
                bool cold, const Body& body) {
  const DeviceInfo cpu = list_devices().front();
  const Floor floor = floor_of(work_of(layer.weights.view()), batch, panel_width(cpu), threads);
  body();
  double seconds = 0.0;
  const OtherLoad others;
  for (auto _ : state) {
    if (cold) evict();
    const double start = now_seconds();
    body();
    const double took = now_seconds() - start;
    seconds += took;
    state.SetIterationTime(took);
  }
  const auto runs = static_cast<double>(state.iterations());
  const double edges = static_cast<double>(layer.weights.nnz()) * static_cast<double>(batch);
  state.counters["edges_per_s"] = edges * runs / seconds;
  state.counters["of_limit"] = floor.seconds * runs / seconds;
  state.counters["other_cores"] = others.cores();
  state.SetLabel(floor.limit);
}

void time_kernel(::benchmark::State& state, const SpmmKernel<float>& kernel, const LayerCase& layer,
                 std::int64_t batch, int threads, bool cold) {
  DeviceSpec spec;
  spec.threads = threads;
  const std::vector<int>& cores = limits::process_cores();
  spec.cores.assign(cores.begin(), cores.begin() + threads);
  const std::unique_ptr<Device> device = open_device(spec);
  const std::unique_ptr<Stream> stream = device->make_stream();
  const CsrView& weights = layer.weights.view();
  const std::int64_t width = panel_width(device->info());
  if (const auto why = kernel.declines(shape_of(weights, batch, width), device->info())) {
    state.SkipWithError(why->c_str());
    return;
  }
  const PreparedWeights prepared = kernel.prepare(weights, *device, *stream);
  Panels<float> x = {nullptr, weights.cols, batch, width, nullptr};
  Panels<float> y = {nullptr, weights.rows, batch, width, nullptr};
  const Buffer x_memory = device->allocate(static_cast<std::size_t>(x.size()) * sizeof(float));
  const Buffer y_memory = device->allocate(static_cast<std::size_t>(y.size()) * sizeof(float));
  x.data = x_memory.as<float>();
  y.data = y_memory.as<float>();
  fill(x.data, x.size());
  const float bias = -0.3F;
  const SpmmArgs<float> args = {&prepared, {&bias, 0}, {0.0F, 32.0F}, x, y, nullptr};
  time_layer(state, layer, batch, threads, cold, [&] { kernel.run(args, *stream); });
}

void time_peer(::benchmark::State& state, const LayerPeer& peer, const LayerCase& layer,
               std::int64_t batch, int threads) {
  const CsrView& weights = layer.weights.view();
  const LayerCall call = peer.prepare(weights, batch, threads);
  std::vector<float> x(static_cast<std::size_t>(weights.cols * batch));
  std::vector<float> y(static_cast<std::size_t>(weights.rows * batch));
  fill(x.data(), std::ssize(x));
  time_layer(state, layer, batch, threads, false, [&] { call(x.data(), y.data()); });
}

std::vector<int> thread_counts() {
  const auto cores = static_cast<int>(limits::process_cores().size());
  if (cores == 1) return {1};
  return cores == 2 ? std::vector<int>{1, 2} : std::vector<int>{1, 2, cores};
}

void add_limit(const std::string& name, int threads, const char* unit,
               const std::function<double()>& rate) {
  ::benchmark::RegisterBenchmark(("limit/" + name + "/threads:" + std::to_string(threads)).c_str(),
                                 [=](::benchmark::State& state) {
                                   for (auto _ : state) state.counters[unit] = rate();
                                 })
      ->Iterations(1);
}

/// Footprints: inside L1, L2 and L3 of most machines, then memory; 128 bytes · N of the layers
/// below.
void add_limits(int threads) {
  add_limit("fma", threads, "edges_per_s", [=] { return limits::fma_rate(threads); });
  for (const std::int64_t kilobytes : {16, 32, 128, 512, 2048, 8192, 262144}) {
    const std::int64_t bytes = kilobytes << 10;
    const std::string size = "/KiB:" + std::to_string(kilobytes);
    add_limit("load" + size, threads, "bytes_per_s",
              [=] { return limits::load_rate(bytes, threads); });
    for (const std::int64_t granule : {64, 128}) {
      add_limit("gather" + std::to_string(granule) + size, threads, "edges_per_s",
                [=] { return limits::gather_rate(bytes, granule, threads); });
    }
  }
}

void add_layer(const LayerCase& layer, std::int64_t batch, int threads) {
  const std::string suffix =
      "/" + layer.name + "/batch:" + std::to_string(batch) + "/threads:" + std::to_string(threads);
  const auto add = [&](const std::string& name, auto body) {
    return ::benchmark::RegisterBenchmark((name + suffix).c_str(), body)->UseManualTime();
  };
  for (const SpmmKernel<float>& kernel : spmm_kernels<float>()) {
    if (kernel.device != DeviceKind::cpu) continue;
    for (const bool cold : {false, true}) {
      if (cold && kernel.name.starts_with("reference")) continue;  // slow, and of no interest
      const auto body = [&kernel, &layer, batch, threads, cold](::benchmark::State& state) {
        time_kernel(state, kernel, layer, batch, threads, cold);
      };
      auto* added = add((cold ? "cold/" : "hot/") + std::string(kernel.name), body);
      if (cold) {
        added->Iterations(kColdRuns);
      } else {
        added->MinTime(kLeastSeconds);
      }
    }
  }
  for (const LayerPeer& peer : layer_peers()) {
    if (threads > 1 && !peer.threaded) continue;
    const CsrView& weights = layer.weights.view();
    if (peer.dense && 4 * weights.nnz < weights.rows * weights.cols) continue;
    add("hot/" + peer.name, [peer, &layer, batch, threads](::benchmark::State& state) {
      time_peer(state, peer, layer, batch, threads);
    })->MinTime(kLeastSeconds);
  }
}

}  // namespace

int main(int argc, char** argv) try {
  const nlohmann::json conditions = describe_conditions({argv, argv + argc});
  for (const auto& [key, value] : conditions.items()) {
    ::benchmark::AddCustomContext("spdnn_" + key, value.dump());
  }
  ::benchmark::Initialize(&argc, argv);
  if (::benchmark::ReportUnrecognizedArguments(argc, argv)) {
    return static_cast<int>(ExitStatus::bad_input);
  }
  for (const int threads : thread_counts()) add_limits(threads);
  for (const LayerCase& layer : layer_cases()) {
    for (const std::int64_t batch : {32, 256, 1024}) {
      for (const int threads : thread_counts()) add_layer(layer, batch, threads);
    }
  }
  add_equal_images();
  add_index_width();
  ::benchmark::RunSpecifiedBenchmarks();
  ::benchmark::Shutdown();
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "bench_kernels: %s\n", error.what());
  return static_cast<int>(ExitStatus::failure);
}
