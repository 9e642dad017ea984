// The loop over batches, segments and layers of one rank. The host never waits for a layer: how
// many images live is known on the device, and the host's bound follows as counts arrive.
#include "pass.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <numeric>
#include <thread>

#include "weights.hpp"

namespace spdnn {
namespace {

/// On a CPU, where the flags are at hand, images are packed once this part of them has died:
/// packing costs about as much as a layer of few edges, and pays for the layers that follow.
constexpr double kWorthPacking = 0.05;

const SpmmKernel<float>& find_kernel(const std::string& name, DeviceKind kind) {
  for (const SpmmKernel<float>& kernel : spmm_kernels<float>()) {
    if (kernel.device == kind && kernel.name == name) return kernel;
  }
  throw DeviceError(fmt::format("the plan names kernel '{}', which this build lacks", name));
}

/// Images at one depth of the network: activations, and which image a slot holds.
struct Slots {
  Slots(Device& device, std::int64_t features, std::int64_t images) {
    const std::int64_t width = panel_width(device.info());
    const Panels<float> shape = {nullptr, features, images, width, nullptr};
    activations = device.allocate(static_cast<std::size_t>(shape.size()) * sizeof(float));
    ids = device.allocate(static_cast<std::size_t>(images) * sizeof(std::int32_t));
  }
  Buffer activations, ids;
  std::int64_t count = 0;  ///< images set aside, in a pool
};

/// A rank's memory beside its weights.
struct Memory {
  Memory(Device& device, std::int64_t features, std::int64_t images, std::int64_t capacity,
         std::int64_t segments)
      : work{Slots(device, features, capacity), Slots(device, features, capacity)} {
    parent = device.allocate(static_cast<std::size_t>(images) * sizeof(std::int32_t));
    alive = device.allocate(static_cast<std::size_t>(capacity + panel_width(device.info())));
    const auto counts = static_cast<std::size_t>(segments) * sizeof(std::int32_t);
    live = device.allocate(counts);
    host_live = device.allocate_host(counts);
    const auto& layout = layout_kernels<float>(device.info().kind);
    workspace = device.allocate(layout.compact_workspace_bytes(capacity));
  }
  Slots work[2];  ///< input and output of a layer
  Buffer parent;  ///< by image of the rank: which one it was merged into
  Buffer alive, workspace;
  Buffer live, host_live;  ///< images alive after each segment, on the device and as known here
  std::map<std::size_t, Slots> pools;  ///< by segment: images waiting for it
};

}  // namespace

struct Pass::State {
  const PassContext& context;
  int rank;
  Device& device;
  double slowdown;
  std::unique_ptr<Stream> stream;
  DeviceWeights weights;
  std::unique_ptr<Memory> memory;
  PassResult result;
  double cpu_start = 0.0, start = 0.0;

  // Of the images being run:
  const float* data = nullptr;        ///< their activations
  const std::int32_t* ids = nullptr;  ///< which images they are, counted in the rank's share
  std::int64_t bound = 0;             ///< how many there are at most
  std::int32_t* live = nullptr;       ///< how many there are, on the device; null: exactly `bound`
  std::vector<std::unique_ptr<Event>> arrivals;  ///< by segment: its count is in `host_live`

  State(const PassContext& c, int r, Device& d, double s)
      : context(c),
        rank(r),
        device(d),
        slowdown(s),
        stream(d.make_stream()),
        weights(*c.model, kernels(), c.plan->stream_weights[r], *c.forms, d, *stream) {}

  [[nodiscard]] std::vector<const SpmmKernel<float>*> kernels() const {
    std::vector<const SpmmKernel<float>*> found;
    for (const Segment& segment : context.plan->segments) {
      for (const std::string& name : segment.kernels[rank]) {
        found.push_back(&find_kernel(name, device.info().kind));
      }
    }
    return found;
  }

  [[nodiscard]] Range share() const { return context.plan->images[rank]; }
  [[nodiscard]] std::int64_t layers() const { return std::ssize(context.model->layers); }
  [[nodiscard]] bool host_sees_flags() const { return device.info().kind == DeviceKind::cpu; }
  /// Room of the work buffers and of a pool: what is left of a batch may join a pool that is almost
  /// full.
  [[nodiscard]] std::int64_t capacity() const {
    const std::int64_t batch = context.plan->batch[rank];
    return context.plan->pools[rank] ? batch + batch / 2 : batch;
  }

  template <class T>
  [[nodiscard]] Panels<T> panels(T* at, std::int64_t features, std::int64_t images) const {
    return {at, features, images, panel_width(device.info()), live};
  }
  /// The work buffer that does not hold the current images.
  [[nodiscard]] Slots& other() const {
    return memory->work[data == memory->work[0].activations.as<float>() ? 1 : 0];
  }

  /// Images that are gone need no more layers: they count as done from `layer` on.
  void lower_bound_to(std::int64_t count, std::int64_t layer) {
    context.progress->done += (bound - count) * (layers() - layer);
    bound = count;
  }

  void run_layer(std::int64_t layer, bool flag_dead) {
    const ProfileRange range("layer", layer + 1);
    const Layer& l = context.model->layers[layer];
    auto* out = other().activations.as<float>();
    const SpmmArgs<float> args = {&weights.layer(layer),
                                  weights.bias(layer),
                                  std::get<SparseLinear>(l).activation,
                                  panels(data, layer_inputs(l), bound),
                                  panels(out, layer_outputs(l), bound),
                                  flag_dead ? memory->alive.as<std::uint8_t>() : nullptr};
    weights.kernel(layer).run(args, *stream);
    data = out;
  }

  /// The pool for survivors that no longer fill half a batch, where there are pools.
  [[nodiscard]] Slots* pool_for(std::size_t segment, std::int64_t survivors) {
    const std::int64_t batch = context.plan->batch[rank];
    if (!context.plan->pools[rank] || segment == context.plan->segments.size() ||
        2 * survivors > batch || share().size() <= batch) {
      return nullptr;
    }
    std::int64_t features = 0;
    for (const Layer& layer : context.model->layers) {
      features = std::max({features, layer_inputs(layer), layer_outputs(layer)});
    }
    return &memory->pools.try_emplace(segment, device, features, capacity()).first->second;
  }

  /// Packs the living images away from the dead after `segment`, which ends before `layer`. Returns
  /// false when they were set aside in a pool.
  bool pack(std::size_t segment, std::int64_t layer) {
    const auto* alive = memory->alive.as<std::uint8_t>();
    Slots* pool = nullptr;
    if (host_sees_flags()) {
      const auto dead = std::count(alive, alive + bound, std::uint8_t{0});
      const bool merge = layer < context.dead_from && dead > 0;
      pool = pool_for(segment + 1, bound - dead + (merge ? 1 : 0));
      if (pool == nullptr && layer < layers() &&
          static_cast<double>(dead) <= kWorthPacking * static_cast<double>(bound)) {
        return true;
      }
    }
    const ProfileRange range("pack", layer);
    const std::int64_t features = layer_outputs(context.model->layers[layer - 1]);
    Slots& to = pool == nullptr ? other() : *pool;
    // Ids move from where they are to beside the activations, which may be the same work buffer.
    auto* ids_out = pool != nullptr ? pool->ids.as<std::int32_t>() : other_ids();
    auto* live_out = memory->live.as<std::int32_t>() + segment;
    const CompactArgs<float> args = {
        panels(data, features, bound),
        alive,
        ids,
        layer < context.dead_from,
        memory->parent.as<std::int32_t>(),
        panels(to.activations.as<float>(), features, pool == nullptr ? bound : capacity()),
        pool == nullptr ? 0 : pool->count,
        ids_out,
        live_out,
        memory->workspace.data()};
    layout_kernels<float>(device.info().kind).compact(args, *stream);
    auto* known = memory->host_live.as<std::int32_t>() + segment;
    stream->copy(known, live_out, sizeof(std::int32_t));
    arrivals[segment] = stream->record();
    if (arrivals[segment]->ready()) lower_bound_to(*known, layer);
    if (pool != nullptr) {
      pool->count += bound;
      return false;
    }
    data = to.activations.as<float>();
    ids = ids_out;
    live = live_out;
    return true;
  }

  /// The list of ids that does not hold the current ones.
  [[nodiscard]] std::int32_t* other_ids() const {
    auto* first = memory->work[0].ids.as<std::int32_t>();
    return ids == first ? memory->work[1].ids.as<std::int32_t>() : first;
  }

  /// Lowers the bound to the newest count that has arrived.
  void refresh_bound(std::int64_t layer) {
    for (std::size_t s = arrivals.size(); s-- > 0;) {
      if (arrivals[s] == nullptr || !arrivals[s]->ready()) continue;
      const std::int64_t known = memory->host_live.as<std::int32_t>()[s];
      if (known < bound) lower_bound_to(known, layer);
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

  /// Takes the current images from `first` on through the segments, to the end or into a pool.
  void run_from(std::size_t first) {
    const std::vector<Segment>& segments = context.plan->segments;
    const std::int64_t images = bound;
    arrivals.clear();
    arrivals.resize(segments.size());
    std::size_t index = first;
    bool here = true;
    for (; index < segments.size() && here; ++index) {
      const Segment& segment = segments[index];
      const ProfileRange range("segment", static_cast<std::int64_t>(index));
      if (context.progress->cancel) throw CommError("the run was cancelled");
      const std::int64_t end = segment.first + segment.count;
      refresh_bound(segment.first);
      if (bound == 0) continue;
      for (std::int64_t layer = segment.first; layer < end; ++layer) {
        run_layer(layer, layer + 1 == end);
      }
      context.progress->done += segment.count * bound;
      here = pack(index, end);
      hold_back();
    }
    if (here) collect();
    count_images(first, index, images);
  }

  /// Counts the images of each layer in the segments `[first, last)`: those alive when it began.
  void count_images(std::size_t first, std::size_t last, std::int64_t images) {
    std::int64_t alive = images;
    result.images_per_layer.resize(context.model->layers.size());
    for (std::size_t s = first; s < last; ++s) {
      const Segment& segment = context.plan->segments[s];
      for (std::int64_t l = segment.first; l < segment.first + segment.count; ++l) {
        result.images_per_layer[l] += alive;
      }
      if (arrivals[s] != nullptr) alive = memory->host_live.as<std::int32_t>()[s];
    }
  }

  /// Brings a batch of input images to the device.
  void load(Range images, PreparedWeights& input) {
    const ProfileRange range("input", images.size());
    Slots& slots = memory->work[0];
    data = slots.activations.as<float>();
    ids = slots.ids.as<std::int32_t>();
    bound = images.size();
    live = nullptr;
    input = upload_csr(context.images->view().slice_rows(images), device, *stream);
    layout_kernels<float>(device.info().kind)
        .expand({input.csr, panels(slots.activations.as<float>(), context.model->inputs(), bound)},
                *stream);
    std::vector<std::int32_t> list(static_cast<std::size_t>(bound));
    std::iota(list.begin(), list.end(), static_cast<std::int32_t>(images.begin - share().begin));
    stream->copy(slots.ids.data(), list.data(), list.size() * sizeof(std::int32_t));
    stream->synchronize();
  }

  /// Makes the images of a pool the current ones.
  void take(Slots& pool) {
    data = pool.activations.as<float>();
    ids = pool.ids.as<std::int32_t>();
    bound = std::exchange(pool.count, 0);
    live = nullptr;
  }

  /// The deepest pool that fills a batch, or with `any`, the shallowest that is not empty.
  [[nodiscard]] std::pair<std::size_t, Slots*> next_pool(bool any) {
    std::pair<std::size_t, Slots*> found = {0, nullptr};
    for (auto& [segment, pool] : memory->pools) {
      if (any && pool.count > 0) return {segment, &pool};
      if (!any && pool.count >= context.plan->batch[rank]) found = {segment, &pool};
    }
    return found;
  }

  void run_all() {
    const std::int64_t batch = context.plan->batch[rank];
    for (std::int64_t next = share().begin;;) {
      auto [segment, pool] = next_pool(next == share().end);
      if (pool != nullptr) {
        take(*pool);
        run_from(segment);
      } else if (next < share().end) {
        PreparedWeights input;
        const Range images = {next, std::min(next + batch, share().end)};
        load(images, input);
        run_from(0);
        next = images.end;
      } else {
        break;
      }
    }
    merge_followers();
  }

  /// Records the images that are alive at the end, and the outputs that are kept.
  void collect() {
    const ProfileRange range("collect", bound);
    stream->synchronize();
    refresh_bound(layers());
    const std::int64_t features = context.model->outputs();
    const std::int64_t width = panel_width(device.info());
    std::vector<std::int32_t> list(static_cast<std::size_t>(bound));
    stream->copy(list.data(), ids, list.size() * sizeof(std::int32_t));
    stream->synchronize();
    std::vector<float> panel(static_cast<std::size_t>(features * width));
    std::int64_t loaded = -1;
    for (std::int64_t slot = 0; slot < bound; ++slot) {
      const std::int64_t id = share().begin + list[slot];
      result.ids.push_back(id);
      if (!keeps(id)) continue;
      if (slot / width != loaded) {
        loaded = slot / width;
        stream->copy(panel.data(), data + loaded * features * width, panel.size() * sizeof(float));
        stream->synchronize();
      }
      std::vector<float>& outputs = result.outputs[id];
      for (std::int64_t f = 0; f < features; ++f) {
        outputs.push_back(panel[f * width + slot % width]);
      }
    }
  }

  [[nodiscard]] bool keeps(std::int64_t id) const {
    return std::ssize(result.outputs) < context.keep_first ||
           std::binary_search(context.keep_ids->begin(), context.keep_ids->end(), id);
  }

  /// Adds the images that were merged into one that lives, and sorts.
  void merge_followers() {
    std::vector<std::int32_t> parent(static_cast<std::size_t>(share().size()));
    stream->copy(parent.data(), memory->parent.data(), parent.size() * sizeof(std::int32_t));
    stream->synchronize();
    std::vector<bool> lives(parent.size());
    for (const std::int64_t id : result.ids) lives[id - share().begin] = true;
    for (std::size_t image = 0; image < parent.size(); ++image) {
      if (parent[image] < 0) continue;
      std::size_t origin = image;
      while (parent[origin] >= 0) origin = static_cast<std::size_t>(parent[origin]);
      if (!lives[origin]) continue;
      const std::int64_t id = share().begin + static_cast<std::int64_t>(image);
      result.ids.push_back(id);
      const auto outputs = result.outputs.find(share().begin + static_cast<std::int64_t>(origin));
      if (outputs != result.outputs.end() && keeps(id)) result.outputs[id] = outputs->second;
    }
    std::sort(result.ids.begin(), result.ids.end());
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
  if (s.share().size() == 0) return;
  std::int64_t features = s.context.model->inputs();
  for (const Layer& layer : s.context.model->layers) {
    features = std::max(features, layer_outputs(layer));
  }
  s.memory = std::make_unique<Memory>(s.device, features, s.share().size(), s.capacity(),
                                      std::ssize(s.context.plan->segments));
  const std::vector<std::int32_t> none(static_cast<std::size_t>(s.share().size()), -1);
  s.stream->copy(s.memory->parent.data(), none.data(), none.size() * sizeof(std::int32_t));
  s.weights.upload(s.layers() * s.rank / std::ssize(s.context.plan->images));
  s.stream->synchronize();
}

PassResult Pass::run() {
  State& s = *state_;
  if (s.share().size() > 0) {
    s.run_all();
    s.hold_back();
  }
  s.result.busy_s = now_seconds() - s.start;
  return std::move(s.result);
}

}  // namespace spdnn
