// Times finding equal images beside the load limit: the sweep reads every activation once.
#include <benchmark/benchmark.h>

#include <random>

#include "kernels/benchmarks.hpp"
#include "spdnn/limits.hpp"
#include "spdnn/op.hpp"

namespace spdnn::bench {
namespace {

/// `kinds` different images, over and over.
void fill(const Panels<float>& x, std::int64_t kinds) {
  for (std::int64_t f = 0; f < x.features; ++f) {
    for (std::int64_t i = 0; i < x.batch; ++i) {
      std::minstd_rand random(static_cast<unsigned>(1 + f * kinds + i % kinds));
      random.discard(2);
      x.at(f, i) = random() % 4 == 0 ? 0.0F : static_cast<float>(random() % 1024) / 512.0F;
    }
  }
}

/// Times one call on the panels over and over.
void time_panels(::benchmark::State& state, std::int64_t features, std::int64_t batch,
                 std::int64_t kinds, bool unchanged) {
  const std::unique_ptr<Device> device = open_device({});
  const std::unique_ptr<Stream> stream = device->make_stream();
  const auto& layout = layout_kernels<float>(DeviceKind::cpu);
  Panels<float> x = {nullptr, features, batch, panel_width(device->info()), nullptr};
  const auto bytes = x.size() * static_cast<std::int64_t>(sizeof(float));
  const Buffer memory = device->allocate(static_cast<std::size_t>(bytes));
  const Buffer copy = device->allocate(static_cast<std::size_t>(bytes));
  x.data = memory.as<float>();
  fill(x, kinds);
  Panels<float> y = x;
  y.data = copy.as<float>();
  stream->copy(y.data, x.data, static_cast<std::size_t>(bytes));
  std::vector<std::int32_t> first(static_cast<std::size_t>(batch));
  std::vector<std::uint8_t> flags(static_cast<std::size_t>(batch));
  double seconds = 0.0;
  for (auto _ : state) {
    const double start = now_seconds();
    if (unchanged) {
      layout.find_unchanged({x, y, flags.data()}, *stream);
    } else {
      layout.find_equal({x, nullptr, first.data()}, *stream);
    }
    const double took = now_seconds() - start;
    seconds += took;
    state.SetIterationTime(took);
  }
  const auto read = static_cast<double>(unchanged ? 2 * bytes : bytes);
  const double rate = read * static_cast<double>(state.iterations()) / seconds;
  state.counters["bytes_per_s"] = rate;
  state.counters["of_limit"] = rate / limits::load_rate(unchanged ? 2 * bytes : bytes, 1);
  state.SetLabel("load");
}

}  // namespace

void add_equal_images() {
  struct Case {
    const char* name;
    std::int64_t kinds;  ///< different images; 0: as many as there are
    bool unchanged;
  };
  for (const Case& c : {Case{"find_equal/all_differ", 0, false},
                        {"find_equal/19_kinds", 19, false},
                        {"find_unchanged/none_changed", 0, true}}) {
    for (const std::int64_t features : {1024, 4096}) {
      const std::int64_t batch = 262144 / features;  // 1 MiB
      const std::string name = std::string(c.name) + "/features:" + std::to_string(features) +
                               "/batch:" + std::to_string(batch);
      const auto body = [=](::benchmark::State& state) {
        time_panels(state, features, batch, c.kinds == 0 ? batch : c.kinds, c.unchanged);
      };
      ::benchmark::RegisterBenchmark(name.c_str(), body)->UseManualTime()->MinTime(0.2);
    }
  }
}

}  // namespace spdnn::bench
