// Segments on a device that works behind its host: everything between layers happens there, and the
// host queues it without knowing how many images live.
#include <algorithm>
#include <bit>

#include "flow.hpp"
#include "spdnn/pace.hpp"

namespace spdnn {

bool Flow::runs_ahead() const { return device_.info().kind != DeviceKind::cpu; }

/// The bound to queue work for. Where work may be replayed, a coarse one, so that batches whose
/// numbers differ a little meet the same work: kernels leave what is past the living images alone.
std::int64_t Flow::queued_bound() const {
  if (!replays_segments_) return bound_;
  const auto floor = static_cast<std::int64_t>(std::bit_floor(static_cast<std::uint64_t>(bound_)));
  const std::int64_t step = std::max(floor / 4, width_);
  return std::min((bound_ + step - 1) / step * step, capacity_);
}

void Flow::run_ahead(std::size_t index) {
  const Segment& segment = context_.plan->segments[index];
  const std::int64_t end = segment.first + segment.count;
  const Current now = {data_, ids_, queued_bound(), live_};
  const auto work = [&](const Current& current) { return queue_segment(index, current); };
  const Current after = replays_segments_ ? replays_.run(stream_, index, now, work) : work(now);
  data_ = after.data;
  ids_ = after.ids;
  live_ = after.live;
  arrivals_[index] = stream_.record();
  context_.progress->done += segment.count * bound_;
  if (arrivals_[index]->ready()) lower_bound_to(memory_.known_after(index), end);
}

Current Flow::queue_segment(std::size_t index, const Current& before) {
  Current now = before;
  const Segment& segment = context_.plan->segments[index];
  const std::int64_t end = segment.first + segment.count;
  auto* alive = memory_.alive.as<std::uint8_t>();
  std::uint8_t* unchanged =
      looks_for_fixed(end) ? memory_.settling->unchanged.as<std::uint8_t>() : nullptr;
  const DeviceChain& chain = weights_.chain(index);
  if (chain.kernel != nullptr) {
    const ProfileRange range("chain", segment.first + 1);
    const Layer& first = context_.model->layers[segment.first];
    const Layer& last = context_.model->layers[end - 1];
    float* to = other_than(now).activations.as<float>();
    chain.kernel->run({&chain.prepared, panels_of<const float>(now, now.data, layer_inputs(first)),
                       panels_of<float>(now, to, layer_outputs(last)), alive, unchanged},
                      stream_);
    now.data = to;
  } else {
    queue_layers(segment, now, alive, unchanged);
  }
  if (end < layers()) queue_settling(index, now, unchanged);
  return queue_packing(index, now);
}

void Flow::queue_layers(const Segment& segment, Current& now, std::uint8_t* alive,
                        std::uint8_t* unchanged) {
  for (std::int64_t l = segment.first; l < segment.first + segment.count; ++l) {
    const ProfileRange range("layer", l + 1);
    const bool last = l + 1 == segment.first + segment.count;
    const Layer& layer = context_.model->layers[l];
    const auto x = panels_of<const float>(now, now.data, layer_inputs(layer));
    const auto y =
        panels_of<float>(now, other_than(now).activations.as<float>(), layer_outputs(layer));
    weights_.kernel(l).run({&weights_.layer(l),
                            weights_.bias(l),
                            layer_activation(layer),
                            x,
                            y,
                            last ? alive : nullptr,
                            {},
                            layer_kind(layer),
                            layer_window(layer)},
                           stream_);
    weights_.used(l);
    if (last && unchanged != nullptr) {
      layout_kernels<float>(device_.info().kind).find_unchanged({x, y, unchanged}, stream_);
    }
    now.data = y.data;
  }
}

/// Whether images may be let go before `layer`: dead ones stay dead from here on, so that an image
/// without layers of its own can be dropped as they are.
bool Flow::settles(std::int64_t layer) const {
  return memory_.settling.has_value() && layer >= context_.dead_from && layer < layers();
}

bool Flow::looks_for_fixed(std::int64_t layer) const {
  const Layer& last = context_.model->layers[layer - 1];
  return settles(layer) && layer > context_.alike_from && layer_inputs(last) == layer_outputs(last);
}

void Flow::queue_settling(std::size_t index, const Current& now, const std::uint8_t* unchanged) {
  const Segment& segment = context_.plan->segments[index];
  const std::int64_t end = segment.first + segment.count;
  const bool equal = settles(end) && context_.merge_images && worth_looking(segment);
  if (!equal && unchanged == nullptr) return;
  const ProfileRange range("settle", end);
  const auto& layout = layout_kernels<float>(device_.info().kind);
  const RankMemory::Settling& room = *memory_.settling;
  SettleArgs<float> args;
  args.x = panels_of<const float>(now, now.data, layer_outputs(context_.model->layers[end - 1]));
  args.alive = memory_.alive.as<std::uint8_t>();
  args.ids = now.ids;
  args.parent = memory_.parent.as<std::int32_t>();
  args.equal_count = room.counts.as<std::int64_t>();
  args.fixed_count = args.equal_count + 1;
  if (equal) {
    auto* first = room.first.as<std::int32_t>();
    layout.find_equal({args.x, args.alive, first, room.workspace.data()}, stream_);
    args.first = first;
  }
  args.unchanged = unchanged;
  args.finished = room.finished.as<std::uint8_t>();
  args.first_wanted = context_.keep_first;
  args.wanted = room.wanted.as<std::int32_t>();
  args.wanted_count = std::ssize(*context_.keep_ids);
  args.is_wanted = room.is_wanted.as<std::uint8_t>();
  layout.settle(args, stream_);
}

/// Packs the living images and sends their number to the host.
Current Flow::queue_packing(std::size_t index, const Current& now) {
  const Segment& segment = context_.plan->segments[index];
  const std::int64_t end = segment.first + segment.count;
  const ProfileRange range("pack", end);
  const std::int64_t features = layer_outputs(context_.model->layers[end - 1]);
  Current packed = now;
  packed.data = other_than(now).activations.as<float>();
  packed.ids = other_ids(now.ids);
  packed.live = memory_.live_after(index);
  layout_kernels<float>(device_.info().kind)
      .compact({panels_of<const float>(now, now.data, features), memory_.alive.as<std::uint8_t>(),
                now.ids, end < context_.dead_from, memory_.parent.as<std::int32_t>(),
                panels_of<float>(now, packed.data, features), 0, packed.ids, packed.live,
                memory_.workspace.data()},
               stream_);
  stream_.copy(&memory_.known_after(index), packed.live, sizeof(std::int32_t));
  return packed;
}

}  // namespace spdnn
