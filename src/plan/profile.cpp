// Measuring each device on a model's own layer shapes, and remembering what was measured.
#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <random>
#include <span>

#include "spdnn/plan.hpp"

namespace spdnn {
namespace {

/// Raised whenever kernels change enough that older times mislead.
constexpr int kVersion = 2;
/// Panels of a sample on a CPU: enough for every thread to have several.
constexpr std::int64_t kSamplePanels = 8;
/// And on a GPU: as many for each multiprocessor, within so much memory.
constexpr std::int64_t kSamplePanelsPerMultiprocessor = 4;
constexpr std::int64_t kSampleBytes = std::int64_t{1} << 30;
constexpr int kRuns = 3;
/// On a GPU, launches are queued until a run takes about so long: a single one is shorter than the
/// host's way there and back.
constexpr double kQueuedSeconds = 2e-3;
constexpr int kMostQueued = 100;

/// One layer of the model and the memory to time it in.
struct Sample {
  const Layer* layer;
  std::int64_t batch;
};

/// Images to time a shape with.
std::int64_t sample_batch(const SpmmShape& shape, const DeviceInfo& device) {
  const std::int64_t width = panel_width(device);
  if (device.kind == DeviceKind::cpu) return kSamplePanels * width;
  const std::int64_t panel_bytes =
      (shape.inputs() + shape.outputs()) * width * static_cast<std::int64_t>(sizeof(float));
  const std::int64_t most = kSamplePanelsPerMultiprocessor * device.multiprocessors;
  return width * std::clamp(kSampleBytes / std::max<std::int64_t>(panel_bytes, 1), kSamplePanels,
                            std::max(most, kSamplePanels));
}

/// Seconds of one `work()`, queued on `stream`: the fastest of a few runs after a warm-up, since
/// noise only ever adds.
template <class Work>
double fastest(const DeviceInfo& device, Stream& stream, const Work& work) {
  double best = 0.0;
  int queued = 1;
  for (int run = 0; run <= kRuns; ++run) {
    const double start = now_seconds();
    for (int i = 0; i < queued; ++i) work();
    stream.synchronize();
    const double seconds = (now_seconds() - start) / queued;
    if (run > 0 && (best == 0.0 || seconds < best)) best = seconds;
    if (seconds * queued > 0.2) return seconds;  // long enough to trust at once
    if (run == 0 && device.kind == DeviceKind::cuda) {
      queued = static_cast<int>(std::clamp(kQueuedSeconds / seconds, 1.0, double{kMostQueued}));
    }
  }
  return best;
}

/// Seconds an image takes through `kernel`.
double time_kernel(const SpmmKernel<float>& kernel, const Sample& sample, Device& device,
                   Stream& stream) {
  const CsrView& weights = layer_weights(*sample.layer).view();
  const std::int64_t width = panel_width(device.info());
  const PreparedWeights prepared = kernel.prepare(weights, device, stream);
  Panels<float> x = {nullptr, layer_inputs(*sample.layer), sample.batch, width, nullptr};
  Panels<float> y = {nullptr, layer_outputs(*sample.layer), sample.batch, width, nullptr};
  const Buffer x_memory = device.allocate(static_cast<std::size_t>(x.size()) * sizeof(float));
  const Buffer y_memory = device.allocate(static_cast<std::size_t>(y.size()) * sizeof(float));
  const Buffer bias = device.allocate(sizeof(float));
  x.data = x_memory.as<float>();
  y.data = y_memory.as<float>();
  stream.zero(x.data, x_memory.bytes());
  stream.zero(bias.data(), bias.bytes());
  const SpmmArgs<float> args = {
      &prepared, {bias.as<float>(), 0},     layer_activation(*sample.layer), x, y, nullptr,
      {},        layer_kind(*sample.layer), layer_window(*sample.layer)};
  return fastest(device.info(), stream, [&] { kernel.run(args, stream); }) /
         static_cast<double>(sample.batch);
}

/// Seconds in which the device copies an image's inputs and outputs, each read or written once.
double time_copy(const SpmmShape& shape, std::int64_t batch, Device& device, Stream& stream) {
  const std::int64_t floats = (shape.inputs() + shape.outputs() + 1) / 2 * batch;
  const auto bytes = static_cast<std::size_t>(floats) * sizeof(float);
  if (bytes == 0) return 0.0;
  const Buffer from = device.allocate(bytes);
  const Buffer to = device.allocate(bytes);
  stream.zero(from.data(), bytes);
  return fastest(device.info(), stream, [&] { stream.copy(to.data(), from.data(), bytes); }) /
         static_cast<double>(batch);
}

std::string key_of(const DeviceInfo& device, const SpmmShape& s, std::string_view kernel,
                   std::int64_t batch) {
  const Window2d& w = s.window;
  const std::string window =
      s.kind == LayerKind::linear
          ? ""
          : fmt::format("{} {}x{}x{} by {}x{}/{} pad {},{} to {}x{}|", to_string(s.kind),
                        w.channels, w.in_height, w.in_width, w.kernel_height, w.kernel_width,
                        w.stride, w.pad_top, w.pad_left, w.out_height, w.out_width);
  return fmt::format("{}|{}|{}|{}{}x{} nnz {} max {}|{}{}{}{}|{}", kVersion, name_of_kind(device),
                     kernel, window, s.rows, s.cols, s.nnz, s.max_row_nnz, size_of(s.index_type),
                     size_of(s.value_type), s.shared_value ? "s" : "", s.equal_rows ? "e" : "",
                     batch);
}

/// The times of every kernel of the device's kind on one shape, in table order. The reference is
/// measured only where nothing else takes the shape.
std::vector<KernelTime> time_shape(const SpmmShape& shape, const Sample& sample, Device& device,
                                   Stream& stream, Measurements& known) {
  std::vector<KernelTime> times;
  bool taken = false;
  const bool linear = shape.kind == LayerKind::linear;
  for (const SpmmKernel<float>& kernel : linear ? spmm_kernels<float>() : window_kernels<float>()) {
    if (kernel.device != device.info().kind) continue;
    KernelTime& time = times.emplace_back();
    time.kernel = kernel.name;
    time.batch = sample.batch;
    SpmmShape full = shape;
    full.batch = sample.batch;
    full.panel_width = panel_width(device.info());
    if (const auto reason = kernel.declines(full, device.info())) {
      time.declined = *reason;
    } else if (kernel.name.starts_with("reference") && taken) {
      time.seconds_per_image = std::numeric_limits<double>::infinity();
    } else {
      taken = true;
      double& seconds = known[key_of(device.info(), shape, kernel.name, sample.batch)];
      if (seconds == 0.0) seconds = time_kernel(kernel, sample, device, stream);
      time.seconds_per_image = seconds;
    }
  }
  return times;
}

/// Seconds an image takes through a run of layers as one.
double time_chain(const ChainKernel<float>& kernel, std::span<const Layer* const> layers,
                  std::int64_t batch, Device& device, Stream& stream) {
  const std::int64_t width = panel_width(device.info());
  const Buffer bias = device.allocate(sizeof(float));
  stream.zero(bias.data(), bias.bytes());
  std::vector<ChainLayer<float>> parts;
  for (const Layer* layer : layers) {
    parts.push_back(
        {layer_weights(*layer).view(), {bias.as<float>(), 0}, layer_activation(*layer)});
  }
  const PreparedChain prepared = kernel.prepare(parts, batch, device, stream);
  Panels<float> x = {nullptr, parts.front().weights.cols, batch, width, nullptr};
  Panels<float> y = {nullptr, parts.back().weights.rows, batch, width, nullptr};
  const Buffer x_memory = device.allocate(static_cast<std::size_t>(x.size()) * sizeof(float));
  const Buffer y_memory = device.allocate(static_cast<std::size_t>(y.size()) * sizeof(float));
  x.data = x_memory.as<float>();
  y.data = y_memory.as<float>();
  stream.zero(x.data, x_memory.bytes());
  const ChainArgs<float> args = {&prepared, x, y};
  return fastest(device.info(), stream, [&] { kernel.run(args, stream); }) /
         static_cast<double>(batch);
}

/// The times of the chain kernels of the device's kind on one run of shapes, but for the one that
/// runs layer by layer; `samples` are layers by shape.
std::vector<KernelTime> time_run(const Profile& profile, const std::vector<std::int64_t>& run,
                                 const std::vector<const Layer*>& samples, Device& device,
                                 Stream& stream, Measurements& known) {
  std::vector<KernelTime> times;
  std::int64_t batch = std::numeric_limits<std::int64_t>::max();
  for (const std::int64_t shape : run) {
    batch = std::min(batch, sample_batch(profile.shapes[shape], device.info()));
  }
  std::vector<SpmmShape> shapes;
  std::vector<const Layer*> layers;
  std::string key;
  for (const std::int64_t shape : run) {
    shapes.push_back(profile.shapes[shape]);
    shapes.back().batch = batch;
    shapes.back().panel_width = panel_width(device.info());
    layers.push_back(samples[shape]);
    key += key_of(device.info(), profile.shapes[shape], "chain", batch);
  }
  for (const ChainKernel<float>& kernel : chain_kernels<float>()) {
    if (kernel.device != device.info().kind || kernel.name == "layered") continue;
    KernelTime& time = times.emplace_back();
    time.kernel = kernel.name;
    time.batch = batch;
    if (const auto reason = kernel.declines(shapes, device.info())) {
      time.declined = *reason;
      continue;
    }
    double& seconds = known[std::string(kernel.name) + "|" + key];
    if (seconds == 0.0) seconds = time_chain(kernel, layers, batch, device, stream);
    time.seconds_per_image = seconds;
  }
  return times;
}

/// The distinct runs of shapes in segments of two layers and more, all of them linear.
std::vector<std::vector<std::int64_t>> distinct_runs(const Profile& profile) {
  const std::vector<std::int64_t>& shapes = profile.shape_of_layer;
  std::vector<std::vector<std::int64_t>> runs;
  for (const Range& layers : segment_layers(std::ssize(shapes))) {
    std::vector<std::int64_t> run(shapes.begin() + layers.begin, shapes.begin() + layers.end);
    const bool linear = std::all_of(run.begin(), run.end(), [&](std::int64_t shape) {
      return profile.shapes[shape].kind == LayerKind::linear;
    });
    if (run.size() < 2 || !linear) continue;
    if (std::find(runs.begin(), runs.end(), run) == runs.end()) runs.push_back(std::move(run));
  }
  return runs;
}

/// What `DeviceProfile::floors` says of a shape.
double floor_of(const SpmmShape& shape, std::int64_t batch, Device& device, Stream& stream,
                Measurements& known) {
  double& copy = known[key_of(device.info(), shape, "copy", batch)];
  if (copy == 0.0) copy = time_copy(shape, batch, device, stream);
  const double rate = device.info().fma_per_s;
  return std::max(
      copy, rate > 0.0 ? static_cast<double>(shape.nnz * shape.window.out_pixels()) / rate : 0.0);
}

/// Bytes a rank may use: its part of the host's limit for CPU ranks, the device's own on a GPU.
std::int64_t rank_memory(const DeviceInfo& device, const Device& opened,
                         const ProfileRequest& request) {
  if (device.kind == DeviceKind::cuda) {
    const auto free = opened.free_bytes() * 9 / 10;
    return request.memory_limit ? std::min(free, *request.memory_limit) : free;
  }
  const auto ranks = std::count_if(request.specs.begin(), request.specs.end(),
                                   [](const auto& s) { return s.kind == DeviceKind::cpu; });
  return request.memory_limit.value_or(device.memory_bytes * 8 / 10) /
         std::max<std::int64_t>(ranks, 1);
}

/// A layer of random columns whose rows share no list, of a shape that networks seldom have.
SparseLinear random_layer(std::int64_t entries, bool shared) {
  constexpr std::int64_t kWidth = 1000;
  std::mt19937_64 random(static_cast<std::uint64_t>(entries));
  std::vector<std::int64_t> offsets = {0};
  std::vector<std::uint32_t> cols;
  std::vector<float> values;
  for (std::int64_t row = 0; row < kWidth; ++row) {
    for (std::int64_t k = 0; k < entries; ++k) {
      cols.push_back(static_cast<std::uint32_t>(random() % kWidth));
      values.push_back(shared ? 0.5F : static_cast<float>(k + 1));
    }
    offsets.push_back(std::ssize(cols));
  }
  return {make_csr(kWidth, kWidth, std::move(offsets), std::move(cols), std::move(values)),
          {0.0F},
          {0.0F, 32.0F}};
}

/// Seconds an image takes through a layer with the fastest kernel of a device.
double fastest(const Layer& layer, Device& device, Stream& stream, Measurements& known) {
  const std::int64_t batch = kSamplePanels * panel_width(device.info());
  const SpmmShape shape = layer_shape(layer);
  double least = std::numeric_limits<double>::infinity();
  for (const KernelTime& time : time_shape(shape, {&layer, batch}, device, stream, known)) {
    if (time.declined.empty()) least = std::min(least, time.seconds_per_image);
  }
  return least;
}

/// The coefficients that three layers' times solve for. What noise makes negative is next to
/// nothing.
CostModel cost_of(Device& device, Stream& stream, Measurements& known) {
  constexpr std::int64_t kMany = 32;
  constexpr std::int64_t kFew = 2;
  const Layer shared = random_layer(kMany, true);
  const auto rows = static_cast<double>(layer_outputs(shared));
  const double many = fastest(shared, device, stream, known) / rows;
  const double few = fastest(random_layer(kFew, true), device, stream, known) / rows;
  const double own = fastest(random_layer(kMany, false), device, stream, known) / rows;
  const double least = 1e-3 * many / kMany;
  CostModel cost;
  cost.shared_entry = std::max((many - few) / (kMany - kFew), least);
  cost.row = std::max(few - kFew * cost.shared_entry, least);
  cost.own_entry = std::max((own - cost.row) / kMany, least);
  return cost;
}

void slow_down(DeviceProfile& device, double factor) {
  for (auto* tables : {&device.times, &device.chain_times}) {
    for (auto& times : *tables) {
      for (KernelTime& time : times) time.seconds_per_image *= factor;
    }
  }
}

/// Two devices side by side, each with a share of the images that takes it as long.
double together(double a, double b) { return 1.0 / (1.0 / a + 1.0 / b); }

}  // namespace

CostModel measure_cost(const ProfileRequest& request) {
  Measurements known(request.cache_file, request.refresh);
  constexpr double kNever = std::numeric_limits<double>::infinity();
  CostModel all = {kNever, kNever, kNever};
  for (const DeviceSpec& spec : request.specs) {
    DeviceSpec unpinned = spec;  // opening a device must not pin this thread
    unpinned.cores.clear();
    const std::unique_ptr<Device> device = open_device(unpinned);
    const std::unique_ptr<Stream> stream = device->make_stream();
    const CostModel cost = cost_of(*device, *stream, known);
    all.shared_entry = together(all.shared_entry, cost.shared_entry * spec.slowdown);
    all.own_entry = together(all.own_entry, cost.own_entry * spec.slowdown);
    all.row = together(all.row, cost.row * spec.slowdown);
  }
  known.store();
  return all;
}

Profile measure_profile(const Model& model, const ProfileRequest& request) {
  Profile profile;
  std::vector<const Layer*> samples;
  for (const Layer& layer : model.layers) {
    SpmmShape shape = layer_shape(layer);
    shape.precision = request.precision;
    const auto found = std::find(profile.shapes.begin(), profile.shapes.end(), shape);
    profile.shape_of_layer.push_back(found - profile.shapes.begin());
    if (found == profile.shapes.end()) {
      profile.shapes.push_back(shape);
      samples.push_back(&layer);
    }
  }
  if (request.chains) profile.runs = distinct_runs(profile);
  Measurements known(request.cache_file, request.refresh);
  for (std::size_t rank = 0; rank < request.specs.size(); ++rank) {
    const DeviceSpec& spec = request.specs[rank];
    const auto twin = std::find_if(request.specs.begin(), request.specs.begin() + rank,
                                   [&](const auto& other) { return same_device(other, spec); });
    DeviceProfile result;
    if (twin != request.specs.begin() + rank) {
      result = profile.ranks[twin - request.specs.begin()];
      slow_down(result, spec.slowdown / result.slowdown);
    } else {
      DeviceSpec unpinned = spec;  // opening a device must not pin this thread
      unpinned.cores.clear();
      const std::unique_ptr<Device> device = open_device(unpinned);
      const std::unique_ptr<Stream> stream = device->make_stream();
      result.device = device->info();
      result.memory_limit = rank_memory(result.device, *device, request);
      for (std::size_t s = 0; s < samples.size(); ++s) {
        const SpmmShape& shape = profile.shapes[s];
        const std::int64_t batch = sample_batch(shape, result.device);
        result.times.push_back(time_shape(shape, {samples[s], batch}, *device, *stream, known));
        if (request.floors)
          result.floors.push_back(floor_of(shape, batch, *device, *stream, known));
      }
      for (const auto& run : profile.runs) {
        result.chain_times.push_back(time_run(profile, run, samples, *device, *stream, known));
      }
      slow_down(result, spec.slowdown);
    }
    result.slowdown = spec.slowdown;
    profile.ranks.push_back(std::move(result));
  }
  known.store();
  return profile;
}

}  // namespace spdnn
