// Batches of images through owned rows, one exchange before each layer.
//
// A batch goes in two chunks of panels, so that what one of them sends travels while the other is
// computed; within a chunk the rows that read own inputs alone are computed before its exchange
// has to be there. Messages of a layer end before those of the next but one begin. The host sees
// flags and ids at the ends of segments alone, where it meets the other ranks.
#include "row_pass.hpp"

#include <algorithm>
#include <array>
#include <numeric>

#include "row_layers.hpp"
#include "spdnn/pace.hpp"

namespace spdnn {
namespace {

/// Images are packed once this part of them has died: packing costs about as much as a layer of few
/// edges, and pays for the layers that follow.
constexpr double kWorthPacking = 0.05;

/// The images of some panels.
template <class T>
Panels<T> cut(const Panels<T>& x, Range panels) {
  const std::int64_t before = std::min(x.batch, panels.begin * x.width);
  return {x.panel(panels.begin), x.features, std::min(x.batch, panels.end * x.width) - before,
          x.width, nullptr};
}

/// The images of a rank's group.
Range images_of_group(const Plan& plan, std::size_t rank) {
  const auto rows = std::ssize(plan.grid.rows);
  const std::int64_t first = plan.grid.places[rank] / rows * rows;
  const auto leader = std::find(plan.grid.places.begin(), plan.grid.places.end(), first);
  return plan.images[leader - plan.grid.places.begin()];
}

/// The kernels that the plan gives a rank, one a layer.
std::vector<std::string> kernels_of(const Plan& plan, std::size_t rank) {
  std::vector<std::string> kernels;
  for (const Segment& segment : plan.segments) {
    kernels.insert(kernels.end(), segment.kernels[rank].begin(), segment.kernels[rank].end());
  }
  return kernels;
}

}  // namespace

struct RowPass::State {
  const PassContext& context;
  std::size_t rank;  ///< among all ranks
  Communicator& comm;
  Device& device;
  Pace pace;
  std::unique_ptr<Stream> stream;
  std::int64_t width;
  std::int64_t grain;  ///< images that are whole panels on all ranks
  std::int64_t capacity;

  RowLayers cut_out;
  std::vector<Buffer> biases;  ///< by layer
  std::array<HaloRoom, 2> rooms;
  /// By layer, and for the outputs: null where a layer reads what this rank put out, as it is.
  std::vector<std::unique_ptr<HaloExchange<float>>> exchanges;
  std::array<Buffer, 2> outputs;  ///< of this rank's rows
  std::array<Buffer, 2> inputs;   ///< of a layer, by its parity; the last ones are all outputs
  std::array<Buffer, 2> ids;      ///< which image a slot holds
  std::array<Buffer, 2> alive;    ///< flags by the interior rows, and by the others
  Buffer parent, live, workspace;
  Buffer host_flags, host_ids;  ///< for the host: both `alive`, and the ids of the current images
  std::vector<std::int32_t> parents;  ///< which image goes on for each, or −1, as known last

  std::size_t current = 0;  ///< which of `outputs` holds the activations
  std::size_t listed = 0;   ///< which of `ids` is right
  std::int64_t bound = 0;   ///< current images
  std::int64_t kept = 0;    ///< images whose outputs were kept
  PassResult result;

  State(const PassContext& c, std::size_t own, Communicator& with, Device& d,
        const DeviceSpec& spec)
      : context(c),
        rank(own),
        comm(with),
        device(d),
        pace(spec),
        stream(d.make_stream()),
        width(panel_width(d.info())),
        grain(common_panels(with, width)),
        capacity(c.plan->batch[own]) {}

  [[nodiscard]] std::size_t layers() const { return context.model->layers.size(); }
  [[nodiscard]] const RowLayer& layer(std::size_t l) const { return cut_out.layers[l]; }

  void prepare() {
    cut_out = cut_layers(*context.model, *context.rows, kernels_of(*context.plan, rank), comm,
                         device, *stream);
    const std::int64_t lanes = (capacity + width - 1) / width * width;
    const auto floats = [&](std::int64_t count) {
      return device.allocate(static_cast<std::size_t>(count) * sizeof(float));
    };
    std::array<std::int64_t, 2> most_inputs = {context.model->inputs(), 0};
    std::int64_t most_outputs = 0;
    for (std::size_t l = 0; l <= layers(); ++l) {
      const Halo& halo = l < layers() ? layer(l).halo : cut_out.outputs;
      const bool moves = l > 0 && (halo.crosses || !halo.in_place);
      exchanges.push_back(moves ? std::make_unique<HaloExchange<float>>(halo, comm, device, *stream,
                                                                        capacity, rooms[l % 2])
                                : nullptr);
      if (moves) most_inputs[l % 2] = std::max(most_inputs[l % 2], halo.inputs);
      if (l == layers()) continue;
      most_outputs = std::max(most_outputs, layer(l).outputs());
      const std::vector<float>& bias = layer(l).bias;
      biases.push_back(floats(std::ssize(bias)));
      stream->copy(biases.back().data(), bias.data(), bias.size() * sizeof(float));
    }
    for (std::size_t i = 0; i < 2; ++i) {
      outputs[i] = floats(most_outputs * lanes);
      inputs[i] = floats(most_inputs[i] * lanes);
      ids[i] = device.allocate(static_cast<std::size_t>(capacity) * sizeof(std::int32_t));
      alive[i] = device.allocate(static_cast<std::size_t>(lanes));
    }
    host_flags = device.allocate_host(static_cast<std::size_t>(2 * capacity));
    host_ids = device.allocate_host(static_cast<std::size_t>(capacity) * sizeof(std::int32_t));
    parents.assign(static_cast<std::size_t>(context.images->rows()), -1);
    parent = device.allocate(parents.size() * sizeof(std::int32_t));
    stream->copy(parent.data(), parents.data(), parent.bytes());
    live = device.allocate(sizeof(std::int32_t));
    workspace = device.allocate(
        layout_kernels<float>(device.info().kind).compact_workspace_bytes(capacity));
    result.images_per_layer.resize(layers());
    stream->synchronize();
  }

  [[nodiscard]] Panels<float> own(std::size_t which, std::int64_t features) const {
    return {outputs[which].as<float>(), features, bound, width, nullptr};
  }
  /// What layer `l` reads, `l` being the number of layers for the outputs.
  [[nodiscard]] Panels<float> input_of(std::size_t l) const {
    const std::int64_t features = l < layers() ? layer(l).inputs() : cut_out.outputs.inputs;
    if (l > 0 && exchanges[l] == nullptr) return own(current, features);
    return {inputs[l % 2].as<float>(), features, bound, width, nullptr};
  }
  /// The current images in two halves where an exchange can be hidden behind the other's work.
  [[nodiscard]] std::vector<Range> chunks() const {
    if (comm.size() == 1) return {{0, own(0, 1).count()}};
    return halves(bound, width, grain);
  }

  void load(Range images) {
    const ProfileRange range("input", images.size());
    bound = images.size();
    const PreparedWeights csr =
        upload_csr(context.images->view().slice_rows(images), device, *stream);
    layout_kernels<float>(device.info().kind).expand({csr.csr, input_of(0)}, *stream);
    auto* list = host_ids.as<std::int32_t>();
    std::iota(list, list + bound, static_cast<std::int32_t>(images.begin));
    stream->copy(ids[listed].data(), list, static_cast<std::size_t>(bound) * sizeof *list);
    stream->synchronize();
  }

  /// Some rows of a layer for some images: all rows at once, others a panel at a time, for the rows
  /// of one panel lie together.
  void run_rows(std::size_t l, std::size_t part, Range panels, const Panels<const float>& x,
                const Panels<float>& y, std::uint8_t* flags) {
    const RowLayer& rows = layer(l);
    const Range range = rows.rows[part];
    const bool whole = range.size() == 0 || range.size() == rows.rows[1].end;
    const std::int64_t step = whole ? panels.size() : 1;
    for (std::int64_t p = panels.begin; p < panels.end; p += step) {
      const Panels<const float> from = cut(x, {p, p + step});
      std::uint8_t* of_panels = flags == nullptr ? nullptr : flags + p * width;
      if (range.size() == 0) {
        if (flags != nullptr) stream->zero(of_panels, static_cast<std::size_t>(from.batch));
        continue;
      }
      const std::int64_t stride = rows.bias.size() > 1 ? 1 : 0;
      SpmmArgs<float> args = {&rows.prepared[part],
                              {biases[l].as<float>() + stride * range.begin, stride},
                              rows.activation,
                              from,
                              cut(y, {p, p + step}),
                              of_panels,
                              {},
                              rows.kind,
                              rows.window};
      args.y.data += range.begin * rows.each * width;
      args.y.features = range.size() * rows.each;
      rows.kernel->run(args, *stream);
    }
  }

  void start_exchange(std::size_t l, Range panels) {
    if (exchanges[l] == nullptr) return;
    const std::int64_t features = l < layers() ? layer(l).halo.own : cut_out.outputs.own;
    exchanges[l]->start_forward(own(current, features), input_of(l), panels, *stream);
  }
  void finish_exchange(std::size_t l, Range panels) {
    if (exchanges[l] == nullptr) return;
    pace.begin_wait();
    exchanges[l]->finish_forward(input_of(l), panels, *stream);
    pace.end_wait();
  }

  /// Takes the current images through a layer, and starts the exchange for the next one where
  /// `goes_on` says so; sets flags of living images where it does not.
  void run_layer(std::size_t l, bool goes_on) {
    const ProfileRange range("layer", static_cast<std::int64_t>(l) + 1);
    const Panels<const float> x = input_of(l);
    const std::size_t next = 1 - current;
    const Panels<float> y = own(next, layer(l).outputs());
    for (const Range& chunk : chunks()) {
      for (std::size_t part = 0; part < 2; ++part) {
        if (part == 1) finish_exchange(l, chunk);
        run_rows(l, part, chunk, x, y, goes_on ? nullptr : alive[part].as<std::uint8_t>());
      }
      pace.hold();
      if (!goes_on) continue;
      current = next;
      start_exchange(l + 1, chunk);
      current = 1 - next;
    }
    current = next;
    result.images_per_layer[l] += bound;
  }

  /// One segment; false when no image is left.
  bool run_segment(std::size_t index) {
    if (context.progress->cancel) throw CommError("the run was cancelled");
    const Segment& segment = context.plan->segments[index];
    const ProfileRange range("segment", static_cast<std::int64_t>(index));
    comm.show("segment", static_cast<std::int64_t>(index));
    const auto first = static_cast<std::size_t>(segment.first);
    const auto end = first + static_cast<std::size_t>(segment.count);
    if (first > 0) {
      for (const Range& chunk : chunks()) start_exchange(first, chunk);
    }
    for (std::size_t l = first; l < end; ++l) run_layer(l, l + 1 < end);
    add_progress(segment.count * bound);
    combine_alive();
    pack(end);
    return bound > 0;
  }

  /// An image lives where any rank's rows have a nonzero.
  void combine_alive() {
    auto* flags = host_flags.as<std::uint8_t>();
    const auto* others = flags + bound;
    for (std::size_t part = 0; part < 2; ++part) {
      stream->copy(flags + static_cast<std::int64_t>(part) * bound, alive[part].data(),
                   static_cast<std::size_t>(bound));
    }
    stream->synchronize();
    for (std::int64_t i = 0; i < bound; ++i) flags[i] |= others[i];
    if (comm.size() == 1) return;
    pace.begin_wait();
    comm.all_reduce(flags, flags, bound, DType::u8, Reduction::bit_or, nullptr);
    pace.end_wait();
  }

  /// Packs this rank's rows of the living images, after which layer `end` follows. All ranks come
  /// to the same list.
  void pack(std::size_t end) {
    const auto* flags = host_flags.as<std::uint8_t>();
    const auto dead = std::count(flags, flags + bound, std::uint8_t{0});
    if (end < layers() && static_cast<double>(dead) <= kWorthPacking * static_cast<double>(bound)) {
      return;
    }
    const ProfileRange range("pack", static_cast<std::int64_t>(end));
    const std::int64_t features = layer(end - 1).outputs();
    stream->copy(alive[0].data(), flags, static_cast<std::size_t>(bound));
    const CompactArgs<float> args = {own(current, features),
                                     alive[0].as<std::uint8_t>(),
                                     ids[listed].as<std::int32_t>(),
                                     static_cast<std::int64_t>(end) < context.dead_from,
                                     parent.as<std::int32_t>(),
                                     own(1 - current, features),
                                     0,
                                     ids[1 - listed].as<std::int32_t>(),
                                     live.as<std::int32_t>(),
                                     workspace.data()};
    layout_kernels<float>(device.info().kind).compact(args, *stream);
    current = 1 - current;
    listed = 1 - listed;
    std::int32_t left = 0;
    stream->copy(&left, live.data(), sizeof left);
    stream->copy(host_ids.data(), ids[listed].data(),
                 static_cast<std::size_t>(bound) * sizeof(std::int32_t));
    stream->synchronize();
    add_progress((bound - left) * static_cast<std::int64_t>(layers() - end));
    bound = left;
  }

  void add_progress(std::int64_t image_layers) {
    if (comm.rank() == 0) context.progress->done += image_layers;
  }

  /// Records the images that went through all layers, and gathers their outputs on rank 0 where
  /// any of them are to be kept.
  void collect() {
    const auto* list = host_ids.as<std::int32_t>();
    stream->copy(parents.data(), parent.data(), parent.bytes());
    stream->synchronize();
    std::vector<std::int64_t> slots;
    const std::vector<std::int64_t> wanted = wanted_images();
    for (std::int64_t slot = 0; slot < bound; ++slot) {
      if (comm.rank() == 0) result.ids.push_back(list[slot]);
      if (kept < context.keep_first ||
          std::binary_search(wanted.begin(), wanted.end(), list[slot])) {
        slots.push_back(slot);
        ++kept;
      }
    }
    if (slots.empty()) return;
    result.gathered += bound;
    const Range all = {0, own(0, 1).count()};
    start_exchange(layers(), all);
    finish_exchange(layers(), all);
    if (comm.rank() != 0) return;
    Panels<const float> y = input_of(layers());
    std::vector<float> found;
    if (device.info().kind != DeviceKind::cpu) {
      found.resize(static_cast<std::size_t>(y.size()));
      stream->copy(found.data(), y.data, found.size() * sizeof(float));
      stream->synchronize();
      y.data = found.data();
    }
    for (const std::int64_t slot : slots) {
      std::vector<float>& of_image = result.outputs[list[slot]];
      for (std::int64_t f = 0; f < y.features; ++f) of_image.push_back(y.at(f, slot));
    }
  }

  /// Images whose outputs are to be kept, and those that went on for them, ascending.
  [[nodiscard]] std::vector<std::int64_t> wanted_images() const {
    std::vector<std::int64_t> wanted;
    for (std::int64_t id : *context.keep_ids) {
      for (; parents[id] >= 0; id = parents[id]) wanted.push_back(id);
      wanted.push_back(id);
    }
    std::sort(wanted.begin(), wanted.end());
    return wanted;
  }

  void run_all() {
    const Range images = images_of_group(*context.plan, rank);
    for (std::int64_t first = images.begin; first < images.end; first += capacity) {
      load({first, std::min(first + capacity, images.end)});
      bool left = true;
      for (std::size_t s = 0; s < context.plan->segments.size() && left; ++s) {
        left = run_segment(s);
      }
      collect();
    }
  }

  PassResult take_result() {
    for (const auto& exchange : exchanges) {
      result.sent.push_back(exchange == nullptr ? 0 : exchange->forward_bytes());
    }
    result.busy_s = pace.busy();
    if (comm.rank() != 0) {
      result.images_per_layer.clear();
      return std::move(result);
    }
    result.begun = images_of_group(*context.plan, rank).size();
    for (std::int64_t image = 0; image < context.images->rows(); ++image) {
      if (parents[image] < 0) continue;
      result.merged.push_back(image);
      result.merged.push_back(parents[image]);
    }
    return std::move(result);
  }
};

RowPass::RowPass(const PassContext& context, std::size_t rank, Communicator& comm, Device& device,
                 const DeviceSpec& spec)
    : state_(std::make_unique<State>(context, rank, comm, device, spec)) {}

RowPass::~RowPass() = default;

void RowPass::prepare() {
  const ProfileRange range("prepare");
  state_->prepare();
}

PassResult RowPass::run() {
  state_->run_all();
  return state_->take_result();
}

}  // namespace spdnn
