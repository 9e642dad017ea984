// Layers, segments and packing of the images under way on one rank.
#include "flow.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>

#include "spdnn/pace.hpp"

namespace spdnn {
namespace {

/// On a CPU, where the flags are at hand, images are packed once this part of them has died:
/// packing costs about as much as a layer of few edges, and pays for the layers that follow.
constexpr double kWorthPacking = 0.05;

std::int64_t widest(const Model& model) {
  std::int64_t features = model.inputs();
  for (const Layer& layer : model.layers) features = std::max(features, layer_outputs(layer));
  return features;
}

}  // namespace

Flow::Flow(const PassContext& context, int rank, Device& device, Stream& stream,
           std::int64_t capacity)
    : context_(context),
      rank_(rank),
      device_(device),
      stream_(stream),
      width_(panel_width(device.info())),
      features_(widest(*context.model)),
      capacity_(capacity),
      weights_(*context.model, *context.plan, rank, capacity, *context.forms, device, stream),
      memory_(device, features_, context.images->rows(), capacity,
              std::ssize(context.plan->segments), context.keep_ids->size()),
      replays_segments_(context.replay && runs_ahead() && runs_batches() && weights_.resident()) {
  const std::vector<std::int32_t> none(static_cast<std::size_t>(context.images->rows()), -1);
  stream.copy(memory_.parent.data(), none.data(), none.size() * sizeof(std::int32_t));
  const std::vector<std::int32_t> wanted(context.keep_ids->begin(), context.keep_ids->end());
  if (memory_.settling) {
    const RankMemory::Settling& room = *memory_.settling;
    stream.copy(room.wanted.data(), wanted.data(), room.wanted.bytes());
    for (const Buffer* buffer : {&room.finished, &room.is_wanted, &room.counts}) {
      stream.zero(buffer->data(), buffer->bytes());
    }
  }
  stream.synchronize();
}

/// The work buffer that does not hold these images.
Slots& Flow::other_than(const Current& now) {
  return memory_.work[now.data == memory_.work[0].activations.as<float>() ? 1 : 0];
}

/// The list of ids that is not `ids`.
std::int32_t* Flow::other_ids(const std::int32_t* ids) {
  auto* first = memory_.work[0].ids.as<std::int32_t>();
  return ids == first ? memory_.work[1].ids.as<std::int32_t>() : first;
}

void Flow::become(float* data, std::int32_t* ids, std::int64_t images, std::size_t segment) {
  data_ = data;
  ids_ = ids;
  ++arrangement_;
  bound_ = images_ = images;
  live_ = nullptr;
  first_ = next_ = segment;
  arrivals_.clear();
  arrivals_.resize(context_.plan->segments.size());
}

void Flow::load(Range images) {
  const ProfileRange range("input", images.size());
  Slots& slots = memory_.work[0];
  become(slots.activations.as<float>(), slots.ids.as<std::int32_t>(), images.size(), 0);
  input_ = upload_csr(context_.images->view().slice_rows(images), device_, stream_);
  layout_kernels<float>(device_.info().kind)
      .expand({input_.csr, panels(data_, context_.model->inputs(), bound_)}, stream_);
  std::vector<std::int32_t> list(static_cast<std::size_t>(bound_));
  std::iota(list.begin(), list.end(), static_cast<std::int32_t>(images.begin));
  stream_.copy(ids_, list.data(), list.size() * sizeof(std::int32_t));
  if (runs_ahead()) {
    live_ = memory_.live.as<std::int32_t>();
    auto* count = memory_.host_live.as<std::int32_t>();
    *count = static_cast<std::int32_t>(bound_);
    stream_.copy(live_, count, sizeof *count);
  }
  stream_.synchronize();
}

void Flow::take(std::size_t segment, Slots& pool) {
  become(pool.activations.as<float>(), pool.ids.as<std::int32_t>(), std::exchange(pool.count, 0),
         segment);
}

void Flow::land(const Parcel& parcel) {
  Slots& slots = landing();
  become(slots.activations.as<float>(), slots.ids.as<std::int32_t>(), parcel.images,
         parcel.segment);
}

void Flow::run_layer(std::int64_t layer, const float* from, float* to, std::int64_t images,
                     std::uint8_t* alive, RowShare rows) {
  const ProfileRange range("layer", layer + 1);
  const Layer& l = context_.model->layers[layer];
  const SpmmArgs<float> args = {&weights_.layer(layer),
                                weights_.bias(layer),
                                layer_activation(l),
                                panels(from, layer_inputs(l), images),
                                panels(to, layer_outputs(l), images),
                                alive,
                                rows,
                                layer_kind(l),
                                layer_window(l)};
  weights_.kernel(layer).run(args, stream_);
}

void Flow::run_together(Crew& crew, std::size_t member, Pace& pace) {
  const CrewStep& step = crew.step();
  const Segment& segment = context_.plan->segments[step.segment];
  const double start = pace.busy();
  float* from = step.from;
  float* to = step.to;
  auto* alive = memory_.alive.as<std::uint8_t>();
  for (std::int64_t i = 0; i < segment.count; ++i) {
    const bool last = i + 1 == segment.count;
    const std::int64_t layer = segment.first + i;
    run_layer(layer, from, to, step.images, last ? alive : nullptr, crew.rows(member));
    pace.hold();
    if (last) crew.tell(member, alive, pace.busy() - start);
    const Layer& l = context_.model->layers[layer];
    crew.finish_layer({&weights_.kernel(layer), &weights_.layer(layer), layer_shape(l).rows,
                       panels(to, layer_outputs(l), step.images)},
                      room(), pace);
    std::swap(from, to);
  }
}

std::int64_t Flow::serve(Crew& crew, std::size_t member, Pace& pace,
                         const std::function<void(std::size_t)>& at) {
  std::int64_t steps = 0;
  live_ = nullptr;
  for (; crew.next(room(), pace); ++steps) {
    at(crew.step().segment);
    run_together(crew, member, pace);
  }
  return steps;
}

bool Flow::run_segment(std::size_t index, Crew* crew, Pace& pace) {
  const Segment& segment = context_.plan->segments[index];
  const ProfileRange range("segment", static_cast<std::int64_t>(index));
  if (context_.progress->cancel) throw CommError("the run was cancelled");
  const std::int64_t end = segment.first + segment.count;
  next_ = index + 1;
  refresh_bound(segment.first);
  if (bound_ == 0) return true;
  if (runs_ahead()) {
    run_ahead(index);
    return true;
  }
  auto* alive = memory_.alive.as<std::uint8_t>();
  float* spare = other().activations.as<float>();
  if (crew != nullptr) {
    const std::int64_t inputs = layer_inputs(context_.model->layers[segment.first]);
    crew->begin({index, data_, spare, bound_, inputs, arrangement_}, room(), pace);
    run_together(*crew, 0, pace);
    crew->combine_alive(alive);
    if (context_.plan->rebalance_rows) crew->rebalance();
    if (segment.count % 2 == 1) std::swap(data_, spare);
  } else {
    for (std::int64_t layer = segment.first; layer < end; ++layer) {
      run_layer(layer, data_, spare, bound_, layer + 1 == end ? alive : nullptr, {});
      std::swap(data_, spare);
    }
  }
  before_ = spare;
  context_.progress->done += segment.count * bound_;
  if (end < layers()) settle(index, end);
  return pack(index, end);
}

/// Images that are gone need no more layers: they count as done from `layer` on.
void Flow::lower_bound_to(std::int64_t count, std::int64_t layer) {
  context_.progress->done += (bound_ - count) * (layers() - layer);
  bound_ = count;
}

/// Lowers the bound to the newest count that has arrived.
void Flow::refresh_bound(std::int64_t layer) {
  for (std::size_t s = arrivals_.size(); s-- > 0;) {
    if (arrivals_[s] == nullptr || !arrivals_[s]->ready()) continue;
    const std::int64_t known = memory_.known_after(s);
    if (known < bound_) lower_bound_to(known, layer);
    return;
  }
}

/// Whether this rank may run more than one batch, so that survivors can meet others.
bool Flow::runs_batches() const {
  const Plan& plan = *context_.plan;
  const std::int64_t images =
      plan.sharing == Sharing::own ? plan.images[rank_].size() : context_.images->rows();
  return images > plan.batch[rank_];
}

/// The pool for survivors that no longer fill half a batch, where there are pools.
Slots* Flow::pool_for(std::size_t segment, std::int64_t survivors) {
  const std::int64_t batch = context_.plan->batch[rank_];
  if (!context_.plan->pools[rank_] || segment == context_.plan->segments.size() ||
      2 * survivors > batch || !runs_batches()) {
    return nullptr;
  }
  return &memory_.pools.try_emplace(segment, device_, features_, capacity_).first->second;
}

/// CPU: packs the living images away from the dead after `segment`, which ends before `layer`.
/// Returns false when they were set aside in a pool.
bool Flow::pack(std::size_t segment, std::int64_t layer) {
  const auto* alive = memory_.alive.as<std::uint8_t>();
  const auto dead = std::count(alive, alive + bound_, std::uint8_t{0});
  const bool merge = layer < context_.dead_from && dead > 0;
  Slots* pool = pool_for(segment + 1, bound_ - dead + (merge ? 1 : 0));
  if (pool == nullptr && layer < layers() &&
      static_cast<double>(dead) <= kWorthPacking * static_cast<double>(bound_)) {
    memory_.known_after(segment) = static_cast<std::int32_t>(bound_);
    arrivals_[segment] = stream_.record();
    return true;
  }
  const ProfileRange range("pack", layer);
  const std::int64_t features = layer_outputs(context_.model->layers[layer - 1]);
  Slots& to = pool == nullptr ? other() : *pool;
  // Ids move from where they are to beside the activations, which may be the same work buffer.
  auto* ids_out = pool != nullptr ? pool->ids.as<std::int32_t>() : other_ids(ids_);
  auto* live_out = memory_.live_after(segment);
  const CompactArgs<float> args = {
      panels<const float>(data_, features, bound_),
      alive,
      ids_,
      layer < context_.dead_from,
      memory_.parent.as<std::int32_t>(),
      panels(to.activations.as<float>(), features, pool == nullptr ? bound_ : capacity_),
      pool == nullptr ? 0 : pool->count,
      ids_out,
      live_out,
      memory_.workspace.data()};
  layout_kernels<float>(device_.info().kind).compact(args, stream_);
  memory_.known_after(segment) = *live_out;
  arrivals_[segment] = stream_.record();
  lower_bound_to(*live_out, layer);
  if (pool != nullptr) {
    pool->count += bound_;
    bound_ = 0;
    return false;
  }
  data_ = to.activations.as<float>();
  ids_ = ids_out;
  ++arrangement_;
  return true;
}

void Flow::give(Range images, std::size_t segment, Slots& to) const {
  copy_images(data_, ids_, images, segment, to);
}

Parcel Flow::give_pool(std::size_t segment, Slots& pool, Slots& to) const {
  const Parcel parcel = {segment, std::exchange(pool.count, 0)};
  copy_images(pool.activations.as<float>(), pool.ids.as<std::int32_t>(), {0, parcel.images},
              segment, to);
  return parcel;
}

void Flow::copy_images(const float* from, const std::int32_t* ids, Range images,
                       std::size_t segment, Slots& to) const {
  const auto [first, end] = images;
  const std::int64_t layer = context_.plan->segments[segment].first;
  const std::int64_t features =
      layer == 0 ? context_.model->inputs() : layer_outputs(context_.model->layers[layer - 1]);
  const Panels<const float> x = {from, features, end, width_, nullptr};
  const Panels<float> y = {to.activations.as<float>(), features, end - first, width_, nullptr};
  // A run of lanes that lies in one panel on both sides is copied at once.
  for (std::int64_t image = first; image < end;) {
    const std::int64_t room = std::min(width_ - image % width_, width_ - (image - first) % width_);
    const std::int64_t run = std::min(room, end - image);
    for (std::int64_t f = 0; f < features; ++f) {
      std::memcpy(&y.at(f, image - first), &x.at(f, image),
                  static_cast<std::size_t>(run) * sizeof(float));
    }
    image += run;
  }
  std::copy(ids + first, ids + end, to.ids.as<std::int32_t>());
}

void Flow::keep_first(std::int64_t images, std::size_t segment) {
  count_images();
  become(data_, ids_, images, segment);
}

std::pair<std::size_t, Slots*> Flow::next_pool(std::int64_t least, bool any) {
  std::pair<std::size_t, Slots*> found = {0, nullptr};
  for (auto& [segment, pool] : memory_.pools) {
    if (any && pool.count > 0) return {segment, &pool};
    if (!any && pool.count >= least) found = {segment, &pool};
  }
  return found;
}

}  // namespace spdnn
