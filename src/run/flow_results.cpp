// What a flow finds out: images that need no more layers of their own, and the outputs at the end.
#include <algorithm>

#include "flow.hpp"

namespace spdnn {
namespace {

/// Looking for equal images reads every activation once. It is done after segments that compute so
/// many edges for each activation, next to which it is cheap.
constexpr std::int64_t kWorthLooking = 64;

}  // namespace

/// Whether a segment computes enough to look for equal images after it.
bool Flow::worth_looking(const Segment& segment) const {
  std::int64_t edges = 0;
  for (std::int64_t l = segment.first; l < segment.first + segment.count; ++l) {
    edges += layer_edges(context_.model->layers[l]);
  }
  const Layer& last = context_.model->layers[segment.first + segment.count - 1];
  return edges >= kWorthLooking * layer_outputs(last);
}

/// Leaves the images that equal an earlier one out of `keep`; false where none does.
bool Flow::find_equal(std::size_t segment, std::vector<std::uint8_t>& keep) {
  const auto& layout = layout_kernels<float>(device_.info().kind);
  const Segment& s = context_.plan->segments[segment];
  const std::int64_t features = layer_outputs(context_.model->layers[s.first + s.count - 1]);
  const bool look = context_.merge_images && layout.find_equal != nullptr && bound_ > 1;
  if (!look || !worth_looking(s)) return false;
  std::vector<std::int32_t> first(static_cast<std::size_t>(bound_));
  layout.find_equal({panels<const float>(data_, features, bound_), memory_.alive.as<std::uint8_t>(),
                     first.data()},
                    stream_);
  bool any = false;
  auto* parent = memory_.parent.as<std::int32_t>();
  for (std::int64_t slot = 0; slot < bound_; ++slot) {
    if (first[slot] == slot || memory_.alive.as<std::uint8_t>()[slot] == 0) continue;
    parent[ids_[slot]] = ids_[first[slot]];
    keep[slot] = 0;
    any = true;
    ++result_.equal;
  }
  return any;
}

/// Records the images that layer `layer` − 1 left as they were, which so do all that follow, and
/// leaves them out of `keep`; false where there is none.
bool Flow::find_fixed(std::int64_t layer, std::vector<std::uint8_t>& keep) {
  const auto& layout = layout_kernels<float>(device_.info().kind);
  if (layer <= context_.alike_from || layout.find_unchanged == nullptr) return false;
  const Layer& l = context_.model->layers[layer - 1];
  if (layer_inputs(l) != layer_outputs(l)) return false;
  const std::int64_t features = layer_outputs(l);
  std::vector<std::uint8_t> unchanged(static_cast<std::size_t>(bound_));
  layout.find_unchanged({panels(before_, features, bound_),
                         panels<const float>(data_, features, bound_), unchanged.data()},
                        stream_);
  std::vector<std::int64_t> slots;
  for (std::int64_t slot = 0; slot < bound_; ++slot) {
    const bool alive = memory_.alive.as<std::uint8_t>()[slot] != 0;
    if (unchanged[slot] == 0 || keep[slot] == 0 || !alive) continue;
    slots.push_back(slot);
    keep[slot] = 0;
  }
  result_.fixed += std::ssize(slots);
  collect_slots(slots, features);
  return !slots.empty();
}

/// CPU: lets go of images that need no layers of their own from `layer` on, after `segment`.
void Flow::settle(std::size_t segment, std::int64_t layer) {
  std::vector<std::uint8_t> keep(static_cast<std::size_t>(bound_), 1);
  const bool equal = find_equal(segment, keep);
  const bool fixed = find_fixed(layer, keep);
  if (equal || fixed) drop(keep, layer);
}

/// Packs the images that are kept, dead ones among them, whose flags move along.
void Flow::drop(const std::vector<std::uint8_t>& keep, std::int64_t layer) {
  const std::int64_t features = layer_outputs(context_.model->layers[layer - 1]);
  std::int32_t count = 0;
  const CompactArgs<float> args = {panels<const float>(data_, features, bound_),
                                   keep.data(),
                                   ids_,
                                   false,
                                   memory_.parent.as<std::int32_t>(),
                                   panels(other().activations.as<float>(), features, bound_),
                                   0,
                                   other_ids(ids_),
                                   &count,
                                   memory_.workspace.data()};
  layout_kernels<float>(device_.info().kind).compact(args, stream_);
  auto* alive = memory_.alive.as<std::uint8_t>();
  std::int64_t slot = 0;
  for (std::int64_t s = 0; s < bound_; ++s) {
    if (keep[s] != 0) alive[slot++] = alive[s];
  }
  data_ = args.y.data;
  ids_ = args.ids_out;
  ++arrangement_;
  live_ = nullptr;
  lower_bound_to(count, layer);
}

void Flow::collect() {
  const ProfileRange range("collect", bound_);
  stream_.synchronize();
  refresh_bound(layers());
  std::vector<std::int64_t> slots(static_cast<std::size_t>(bound_));
  for (std::size_t slot = 0; slot < slots.size(); ++slot) {
    slots[slot] = static_cast<std::int64_t>(slot);
  }
  collect_slots(slots, context_.model->outputs());
}

/// Records images whose current activations are the last ones; `slots` ascend.
void Flow::collect_slots(const std::vector<std::int64_t>& slots, std::int64_t features) {
  if (slots.empty()) return;
  std::vector<std::int32_t> list(static_cast<std::size_t>(slots.back() + 1));
  stream_.copy(list.data(), ids_, list.size() * sizeof(std::int32_t));
  stream_.synchronize();
  find_wanted();
  std::vector<float> panel(static_cast<std::size_t>(features * width_));
  std::int64_t loaded = -1;
  for (const std::int64_t slot : slots) {
    const std::int64_t id = list[slot];
    result_.ids.push_back(id);
    if (!keeps(id)) continue;
    if (slot / width_ != loaded) {
      loaded = slot / width_;
      stream_.copy(panel.data(), data_ + loaded * features * width_, panel.size() * sizeof(float));
      stream_.synchronize();
    }
    std::vector<float>& outputs = result_.outputs[id];
    for (std::int64_t f = 0; f < features; ++f) {
      outputs.push_back(panel[f * width_ + slot % width_]);
    }
  }
}

/// Sets `wanted_`: an image that was merged has the outputs of the one that went on for it.
void Flow::find_wanted() {
  const auto images = static_cast<std::size_t>(context_.images->rows());
  std::vector<std::int32_t> copy;
  const auto* parent = memory_.parent.as<const std::int32_t>();
  if (runs_ahead()) {
    copy.resize(images);
    stream_.copy(copy.data(), parent, images * sizeof(std::int32_t));
    stream_.synchronize();
    parent = copy.data();
  }
  wanted_.clear();
  for (std::int64_t id : *context_.keep_ids) {
    for (; parent[id] >= 0; id = parent[id]) wanted_.push_back(id);
    wanted_.push_back(id);
  }
  std::sort(wanted_.begin(), wanted_.end());
}

bool Flow::keeps(std::int64_t id) const {
  return std::ssize(result_.outputs) < context_.keep_first ||
         std::binary_search(wanted_.begin(), wanted_.end(), id);
}

void Flow::count_images() {
  std::int64_t alive = images_;
  result_.images_per_layer.resize(context_.model->layers.size());
  for (std::size_t s = first_; s < next_; ++s) {
    const Segment& segment = context_.plan->segments[s];
    for (std::int64_t l = segment.first; l < segment.first + segment.count; ++l) {
      result_.images_per_layer[l] += alive;
    }
    if (arrivals_[s] != nullptr) alive = memory_.known_after(s);
  }
}

/// Adds the images that were done before the end on the device, and counts.
void Flow::take_settled() {
  const RankMemory::Settling& room = *memory_.settling;
  std::vector<std::uint8_t> finished(room.finished.bytes());
  std::int64_t counts[2] = {};
  stream_.copy(finished.data(), room.finished.data(), finished.size());
  stream_.copy(counts, room.counts.data(), sizeof counts);
  stream_.synchronize();
  for (std::size_t image = 0; image < finished.size(); ++image) {
    if (finished[image] != 0) result_.ids.push_back(static_cast<std::int64_t>(image));
  }
  result_.equal += counts[0];
  result_.fixed += counts[1];
}

PassResult Flow::take_result() {
  std::vector<std::int32_t> parent(static_cast<std::size_t>(context_.images->rows()));
  stream_.copy(parent.data(), memory_.parent.data(), parent.size() * sizeof(std::int32_t));
  stream_.synchronize();
  for (std::size_t image = 0; image < parent.size(); ++image) {
    if (parent[image] < 0) continue;
    result_.merged.push_back(static_cast<std::int64_t>(image));
    result_.merged.push_back(parent[image]);
  }
  if (memory_.settling) take_settled();
  result_.replayed_segments = replays_.replayed();
  return std::move(result_);
}

}  // namespace spdnn
