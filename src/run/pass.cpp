// The loop over batches, segments and layers of one rank. The host never waits for a layer: how many
// images live is known on the device, and the host's bound follows as counts arrive.
#include "pass.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <numeric>
#include <thread>

#include "weights.hpp"

namespace spdnn {
namespace {

/// On a CPU, where the flags are at hand, images are packed once this part of them has died: packing
/// costs about as much as a layer of few edges, and pays for the layers that follow.
constexpr double kWorthPacking = 0.05;

const SpmmKernel<float>& find_kernel(const std::string& name, DeviceKind kind) {
  for (const SpmmKernel<float>& kernel : spmm_kernels<float>()) {
    if (kernel.device == kind && kernel.name == name) return kernel;
  }
  throw DeviceError(fmt::format("the plan names kernel '{}', which this build lacks", name));
}

/// The images of a batch on the device: activations twice (input and output of a layer), which image
/// a slot holds, and what compaction needs.
struct BatchMemory {
  BatchMemory(Device& device, std::int64_t features, std::int64_t images, std::int64_t segments) {
    const std::int64_t width = panel_width(device.info());
    const Panels<float> shape = {nullptr, features, images, width, nullptr};
    const auto slots = static_cast<std::size_t>(shape.count() * width);
    for (int side = 0; side < 2; ++side) {
      activations[side] = device.allocate(static_cast<std::size_t>(shape.size()) * sizeof(float));
      ids[side] = device.allocate(slots * sizeof(std::int32_t));
    }
    parent = device.allocate(slots * sizeof(std::int32_t));
    alive = device.allocate(slots);
    live = device.allocate(static_cast<std::size_t>(segments) * sizeof(std::int32_t));
    host_live = device.allocate_host(static_cast<std::size_t>(segments) * sizeof(std::int32_t));
    const auto& layout = layout_kernels<float>(device.info().kind);
    workspace = device.allocate(layout.compact_workspace_bytes(images));
  }
  Buffer activations[2], ids[2];
  Buffer parent, alive, workspace;
  Buffer live, host_live;  ///< images alive after each segment, on the device and as known here
};

}  // namespace

struct Pass::State {
  const PassContext& context;
  int rank;
  Device& device;
  double slowdown;
  std::unique_ptr<Stream> stream;
  DeviceWeights weights;
  std::unique_ptr<BatchMemory> memory;
  double cpu_start = 0.0, start = 0.0;

  // Of the batch being run:
  int side = 0;                  ///< which of the two buffers holds the current activations
  int ids_side = 0;              ///< which of the two lists says what its slots hold
  std::int64_t bound = 0;        ///< images alive at most
  std::int32_t* live = nullptr;  ///< images alive, on the device; null while `bound` is exact
  std::vector<std::unique_ptr<Event>> arrivals;  ///< by segment: its count is in `host_live`

  State(const PassContext& c, int r, Device& d, double s)
      : context(c),
        rank(r),
        device(d),
        slowdown(s),
        stream(d.make_stream()),
        weights(*c.model, kernels(), c.plan->stream_weights[r], d, *stream) {}

  [[nodiscard]] std::vector<const SpmmKernel<float>*> kernels() const {
    std::vector<const SpmmKernel<float>*> found;
    for (const Segment& segment : context.plan->segments) {
      for (const std::string& name : segment.kernels[rank]) {
        found.push_back(&find_kernel(name, device.info().kind));
      }
    }
    return found;
  }

  [[nodiscard]] Panels<float> panels(int which, std::int64_t features) const {
    return {memory->activations[which].as<float>(), features, bound, panel_width(device.info()),
            live};
  }

  void run_layer(std::int64_t layer, bool flag_dead) {
    const ProfileRange range("layer", layer + 1);
    const Layer& l = context.model->layers[layer];
    const SpmmArgs<float> args = {&weights.layer(layer),
                                  weights.bias(layer),
                                  std::get<SparseLinear>(l).activation,
                                  panels(side, layer_inputs(l)),
                                  panels(1 - side, layer_outputs(l)),
                                  flag_dead ? memory->alive.as<std::uint8_t>() : nullptr};
    weights.kernel(layer).run(args, *stream);
    side = 1 - side;
  }

  /// Packs the living images away from the dead after the segment that ends before `layer`.
  void pack(std::size_t segment, std::int64_t layer) {
    const bool last = layer == std::ssize(context.model->layers);
    const auto* alive = memory->alive.as<std::uint8_t>();
    if (device.info().kind == DeviceKind::cpu && !last) {
      const auto dead = std::count(alive, alive + bound, std::uint8_t{0});
      if (static_cast<double>(dead) <= kWorthPacking * static_cast<double>(bound)) return;
    }
    const ProfileRange range("pack", layer);
    const std::int64_t features = layer_outputs(context.model->layers[layer - 1]);
    auto* live_out = memory->live.as<std::int32_t>() + segment;
    const CompactArgs<float> args = {panels(side, features),
                                     alive,
                                     memory->ids[ids_side].as<std::int32_t>(),
                                     layer < context.dead_from,
                                     memory->parent.as<std::int32_t>(),
                                     panels(1 - side, features),
                                     memory->ids[1 - ids_side].as<std::int32_t>(),
                                     live_out,
                                     memory->workspace.data()};
    layout_kernels<float>(device.info().kind).compact(args, *stream);
    side = 1 - side;
    ids_side = 1 - ids_side;
    live = live_out;
    auto* known = memory->host_live.as<std::int32_t>() + segment;
    stream->copy(known, live_out, sizeof(std::int32_t));
    arrivals[segment] = stream->record();
    if (arrivals[segment]->ready()) bound = *known;
  }

  /// Lowers the bound to the newest count that has arrived.
  void refresh_bound() {
    for (std::size_t s = arrivals.size(); s-- > 0;) {
      if (arrivals[s] == nullptr || !arrivals[s]->ready()) continue;
      bound = std::min<std::int64_t>(bound, memory->host_live.as<std::int32_t>()[s]);
      return;
    }
  }

  /// Holds a rank of a slowed device back until `slowdown` times its own CPU time has passed.
  void hold_back() const {
    if (slowdown <= 1.0) return;
    const double until = start + slowdown * (thread_cpu_seconds() - cpu_start);
    const double wait = until - now_seconds();
    if (wait > 0.0) std::this_thread::sleep_for(std::chrono::duration<double>(wait));
  }

  void run_segment(std::size_t index, Range images) {
    const ProfileRange range("segment", static_cast<std::int64_t>(index));
    if (context.progress->cancel) throw CommError("the run was cancelled");
    const Segment& segment = context.plan->segments[index];
    const std::int64_t end = segment.first + segment.count;
    refresh_bound();
    if (bound > 0) {
      for (std::int64_t layer = segment.first; layer < end; ++layer) {
        run_layer(layer, layer + 1 == end);
      }
      pack(index, end);
    }
    hold_back();
    context.progress->done += segment.count * images.size();
  }

  void load_batch(Range images, PreparedWeights& input) {
    const ProfileRange range("input", images.size());
    const std::int64_t count = images.size();
    side = 0;
    ids_side = 0;
    bound = count;
    live = nullptr;
    arrivals.clear();
    arrivals.resize(context.plan->segments.size());
    input = upload_csr(context.images->view().slice_rows(images), device, *stream);
    layout_kernels<float>(device.info().kind)
        .expand({input.csr, panels(0, context.model->inputs())}, *stream);
    std::vector<std::int32_t> slots(static_cast<std::size_t>(count));
    std::iota(slots.begin(), slots.end(), 0);
    stream->copy(memory->ids[0].data(), slots.data(), slots.size() * sizeof(std::int32_t));
    std::fill(slots.begin(), slots.end(), -1);
    stream->copy(memory->parent.data(), slots.data(), slots.size() * sizeof(std::int32_t));
    stream->synchronize();
  }

  /// Edges of the batch's segments, each for the images alive when it began.
  [[nodiscard]] double executed_edges(std::int64_t images) const {
    double edges = 0.0;
    std::int64_t alive = images;
    for (std::size_t s = 0; s < context.plan->segments.size(); ++s) {
      const Segment& segment = context.plan->segments[s];
      for (std::int64_t l = segment.first; l < segment.first + segment.count; ++l) {
        edges += static_cast<double>(alive) *
                 static_cast<double>(layer_edges(context.model->layers[l]));
      }
      if (arrivals[s] != nullptr) alive = memory->host_live.as<std::int32_t>()[s];
    }
    return edges;
  }

  /// Brings back which images live, resolves the ones merged into a representative, and adds the
  /// outputs that are kept.
  void collect(Range images, PassResult& result) {
    const ProfileRange range("collect", images.size());
    stream->synchronize();
    refresh_bound();
    const std::int64_t features = context.model->outputs();
    const Panels<float> device_outputs = panels(side, features);
    std::vector<std::int32_t> ids(static_cast<std::size_t>(bound));
    std::vector<std::int32_t> parent(static_cast<std::size_t>(images.size()));
    stream->copy(ids.data(), memory->ids[ids_side].data(), ids.size() * sizeof(std::int32_t));
    stream->copy(parent.data(), memory->parent.data(), parent.size() * sizeof(std::int32_t));
    stream->synchronize();
    std::vector<std::int32_t> slot_of(parent.size(), -1);
    for (std::size_t slot = 0; slot < ids.size(); ++slot) {
      slot_of[ids[slot]] = static_cast<std::int32_t>(slot);
    }
    std::vector<float> panel;
    std::int64_t loaded = -1;
    for (std::size_t image = 0; image < parent.size(); ++image) {
      std::size_t origin = image;
      while (slot_of[origin] < 0 && parent[origin] >= 0) origin = parent[origin];
      const std::int64_t slot = slot_of[origin];
      if (slot < 0) continue;
      const std::int64_t id = images.begin + static_cast<std::int64_t>(image);
      result.ids.push_back(id);
      if (std::ssize(result.ids) > context.keep_first &&
          !std::binary_search(context.keep_ids->begin(), context.keep_ids->end(), id)) {
        continue;
      }
      const std::int64_t width = device_outputs.width;
      if (slot / width != loaded) {
        loaded = slot / width;
        panel.resize(static_cast<std::size_t>(features * width));
        stream->copy(panel.data(), device_outputs.panel(loaded), panel.size() * sizeof(float));
        stream->synchronize();
      }
      std::vector<float>& outputs = result.outputs[id];
      for (std::int64_t f = 0; f < features; ++f) {
        outputs.push_back(panel[f * width + slot % width]);
      }
    }
  }
};

Pass::Pass(const PassContext& context, int rank, Device& device, double slowdown)
    : state_(std::make_unique<State>(context, rank, device, slowdown)) {}

Pass::~Pass() = default;

void Pass::prepare() {
  State& s = *state_;
  s.start = now_seconds();
  s.cpu_start = thread_cpu_seconds();
  const ProfileRange range("prepare");
  const Plan& plan = *s.context.plan;
  if (plan.images[s.rank].size() == 0) return;
  std::int64_t features = s.context.model->inputs();
  for (const Layer& layer : s.context.model->layers) {
    features = std::max(features, layer_outputs(layer));
  }
  s.memory = std::make_unique<BatchMemory>(s.device, features, plan.batch[s.rank],
                                           std::ssize(plan.segments));
  s.weights.upload();
  s.stream->synchronize();
}

PassResult Pass::run() {
  State& s = *state_;
  PassResult result;
  const Range share = s.context.plan->images[s.rank];
  const std::int64_t batch = s.context.plan->batch[s.rank];
  for (std::int64_t begin = share.begin; begin < share.end; begin += batch) {
    const Range images = {begin, std::min(begin + batch, share.end)};
    PreparedWeights input;
    s.load_batch(images, input);
    for (std::size_t segment = 0; segment < s.context.plan->segments.size(); ++segment) {
      s.run_segment(segment, images);
    }
    s.collect(images, result);
    result.executed_edges += s.executed_edges(images.size());
  }
  s.hold_back();
  result.busy_s = now_seconds() - s.start;
  return result;
}

}  // namespace spdnn
