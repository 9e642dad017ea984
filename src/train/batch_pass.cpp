// Forward and loss of a batch on one rank, between the exchanges with the others. The way back is
// in batch_pass_back.cpp.
#include "batch_pass.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "panel_cut.hpp"

namespace spdnn::train {
namespace {

template <class T>
Buffer allocate(Device& device, std::int64_t count) {
  return device.allocate(static_cast<std::size_t>(count) * sizeof(T));
}

/// Whole panels for so many images.
std::int64_t lanes_for(std::int64_t images, std::int64_t width) {
  return (images + width - 1) / width * width;
}

std::int64_t bytes_of(const Buffer& buffer) { return static_cast<std::int64_t>(buffer.bytes()); }

template <class T>
std::int64_t width_for(const Network<T>& network, std::int64_t asked) {
  return asked > 0 ? asked : panel_width(network.device().info());
}

template <class T>
BatchTransfer<T> transfer_for(const Network<T>& network, std::int64_t most_images,
                              std::int64_t width) {
  return {network.device(), network.stream(), network.inputs(), most_images,
          lanes_for(most_images, width_for(network, width))};
}

/// What computes with activations stored as T.
template <class T>
const TrainKernels<T>& kernels_of(const Network<Wide<T>>& network) {
  if constexpr (kIsNarrow<T>) {
    return narrow_kernels<T>(network.device().info().kind);
  } else {
    return network.kernels();
  }
}

}  // namespace

template <class T>
BatchPass<T>::BatchPass(Network<W>& network, const Shard& shard, Communicator& comm,
                        std::int64_t most_images, std::int64_t width)
    : BatchPass(network, std::nullopt, &shard, &comm, most_images, width) {}

template <class T>
BatchPass<T>::BatchPass(Network<W>& network, std::int64_t most_images, std::int64_t width)
    : BatchPass(network, whole_shard(network.layers()), nullptr, nullptr, most_images, width) {
  own_shard_->layers.clear();
}

template <class T>
BatchPass<T>::BatchPass(Network<W>& network, std::optional<Shard> own, const Shard* shard,
                        Communicator* comm, std::int64_t most_images, std::int64_t width)
    : AnyBatchPass<W>(transfer_for(network, most_images, width)),
      network_(network),
      kernels_(kernels_of<T>(network)),
      own_shard_(std::move(own)),
      shard_(own_shard_ ? *own_shard_ : *shard),
      comm_(comm),
      width_(width_for(network, width)) {
  const std::int64_t lanes = lanes_for(most_images, width_);
  Device& device = network.device();
  std::int64_t widest_own = 0;
  std::int64_t widest_read = 0;
  std::int64_t widest_sums = 0;
  std::int64_t most_values = 0;
  const std::size_t layers = network.layers().size();
  for (std::size_t l = 0; l <= layers; ++l) {
    const Halo& halo = shard_.halos[l];
    const bool copied = l > 0 && !halo.in_place;
    exchanges_.emplace_back();
    const auto make = [&](auto& exchange) {
      using Made = std::decay_t<decltype(*exchange)>;
      if (!halo.crosses && !copied) return;
      exchange = std::make_unique<Made>(halo, *comm, device, network.stream(), most_images);
    };
    if (l == layers) {
      make(loss_exchange_);
      continue;
    }
    make(exchanges_.back());
    inputs_.push_back(allocate<T>(device, copied ? halo.inputs * lanes : 0));
    if (copied) widest_read = std::max(widest_read, halo.inputs);
    const TrainLayer& layer = network.layers()[l];
    sums_.emplace_back();
    if (const auto& sums = shard_.sums[l]) {
      sums_.back() = std::make_unique<Sums>(*sums, *comm, device, network.stream(), most_images);
      widest_sums = std::max(widest_sums, sums_.back()->parts());
    }
    activations_.push_back(allocate<T>(device, own_outputs(l) * lanes));
    widest_own = std::max(widest_own, own_outputs(l));
    most_values = std::max(most_values, layer.workspace());
  }
  grain_ = comm == nullptr || comm->size() == 1 ? width_ : common_panels(*comm, width_);
  for (Buffer& delta : deltas_) delta = allocate<T>(device, widest_own * lanes);
  partials_ = allocate<T>(device, widest_read * lanes);
  parts_ = allocate<T>(device, widest_sums * lanes);
  make_room_for_loss(lanes);
  workspace_ = allocate<T>(device, most_values);
  if constexpr (kIsNarrow<T>) {
    values_ = allocate<T>(device, network.value_count());
    images_ = allocate<T>(device, network.inputs() * lanes);
  }
}

template <class T>
void BatchPass<T>::make_room_for_loss(std::int64_t lanes) {
  Device& device = network_.device();
  loss_.outputs = shard_.all_outputs;
  if (loss_.outputs > LossPart::most_outputs) {
    throw InputError(fmt::format("the last layer has {} outputs; a loss takes at most {}",
                                 loss_.outputs, LossPart::most_outputs));
  }
  loss_part_ = allocate<W>(device, LossPart::words * lanes);
  if (loss_exchange_ == nullptr) return;
  loss_parts_ = allocate<W>(device, shard_.halos.back().inputs * lanes);
  outputs_ = allocate<std::uint32_t>(device, std::ssize(shard_.outputs));
  loss_.numbers = outputs_.template as<std::uint32_t>();
  network_.stream().copy(outputs_.data(), shard_.outputs.data(), outputs_.bytes());
  network_.stream().synchronize();
}

/// A layer as its kernels take it.
template <class T>
LinearView<T> BatchPass<T>::view(std::size_t layer) const {
  const LinearView<W> wide = network_.view(layer);
  if constexpr (kIsNarrow<T>) {
    const T* values = values_.template as<T>() + network_.values_of(layer).begin;
    return {wide.pattern, values, wide.bias};
  } else {
    return wide;
  }
}

/// Brings a batch to the device.
template <class T>
void BatchPass<T>::take(const Panels<const W>& x) {
  taken_ = this->transfer_.images(x);
  this->images_forward_ += x.batch;
  if constexpr (kIsNarrow<T>) {
    x_ = {images_.template as<T>(), x.features, x.batch, x.width, x.live};
  } else {
    x_ = taken_;
  }
}

/// Images and values in 16 bits, where they are read so.
template <class T>
void BatchPass<T>::store_narrow() {
  if constexpr (kIsNarrow<T>) {
    kernels_.store(taken_.data, taken_.size(), images_.template as<T>(), network_.stream());
    kernels_.store(network_.parameters(), network_.value_count(), values_.template as<T>(),
                   network_.stream());
  }
}

template <class T>
std::int64_t BatchPass<T>::own_outputs(std::size_t layer) const {
  return sums_[layer] != nullptr ? sums_[layer]->own() : network_.layers()[layer].outputs();
}

template <class T>
const Epilogue& BatchPass<T>::activation_of(std::size_t layer) const {
  return sums_[layer] != nullptr ? sums_[layer]->activation() : network_.layers()[layer].activation;
}

template <class T>
Panels<T> BatchPass<T>::output_of(std::size_t layer) const {
  const Buffer& buffer = activations_[layer];
  return {buffer.template as<T>(), own_outputs(layer), x_.batch, width_, nullptr};
}

template <class T>
Panels<T> BatchPass<T>::parts_of(std::size_t layer) const {
  return {parts_.template as<T>(), sums_[layer]->parts(), x_.batch, width_, nullptr};
}

template <class T>
Panels<Wide<T>> BatchPass<T>::loss_parts() const {
  return {loss_parts_.template as<W>(), shard_.halos.back().inputs, x_.batch, width_, nullptr};
}

template <class T>
Panels<T> BatchPass<T>::gathered(std::size_t layer) const {
  if (shard_.halos[layer].in_place) return output_of(layer - 1);
  const Buffer& buffer = inputs_[layer];
  return {buffer.template as<T>(), shard_.halos[layer].inputs, x_.batch, width_, nullptr};
}

template <class T>
Panels<const T> BatchPass<T>::input_of(std::size_t layer) const {
  return layer == 0 ? x_ : gathered(layer);
}

template <class T>
Panels<T> BatchPass<T>::delta(std::size_t layer) const {
  const Buffer& buffer = deltas_[layer % 2];
  return {buffer.template as<T>(), own_outputs(layer), x_.batch, width_, nullptr};
}

/// Whether ranks send each other anything on the way.
template <class T>
bool BatchPass<T>::exchanges() const {
  const auto any = [](const auto& exchanges) {
    return std::any_of(exchanges.begin(), exchanges.end(),
                       [](const auto& exchange) { return exchange != nullptr; });
  };
  return any(exchanges_) || any(sums_) || loss_exchange_ != nullptr;
}

/// The whole batch, or two halves where an exchange can be hidden behind the other's work.
template <class T>
std::vector<Range> BatchPass<T>::chunks() const {
  if (!exchanges()) return {{0, x_.count()}};
  return halves(x_.batch, width_, grain_);
}

template <class T>
void BatchPass<T>::forward_rows(std::size_t layer, Range units, Range chunk) {
  const TrainLayer& slice = network_.layers()[layer];
  const Panels<const T> x = cut(input_of(layer), chunk);
  Panels<T> y = cut(sums_[layer] != nullptr ? parts_of(layer) : output_of(layer), chunk);
  LinearView<T> weights = view(layer);
  if (units.size() < slice.units()) {
    // Rows of one panel lie together.
    const std::int64_t each = slice.features_per_unit();
    weights = cut(weights, slice.pattern, units);
    y.data += units.begin * each * width_;
    y.features = units.size() * each;
  }
  train::forward(slice, kernels_, weights, x, y, network_.stream());
}

template <class T>
void BatchPass<T>::forward_layer(std::size_t layer, Range chunk, bool only_chunk) {
  Range units = {0, network_.layers()[layer].units()};
  if (exchanges_[layer] != nullptr) {
    const std::int64_t interior = shard_.interior[layer];
    if (only_chunk && chunk.size() == 1 && interior > 0 && interior < units.end) {
      forward_rows(layer, {0, interior}, chunk);
      units.begin = interior;
    }
    exchanges_[layer]->finish_forward(gathered(layer), chunk, network_.stream());
  }
  forward_rows(layer, units, chunk);
  if (sums_[layer] != nullptr) {
    sums_[layer]->start_sums(parts_of(layer), output_of(layer), chunk, network_.stream());
  } else {
    start_next(layer, chunk);
  }
}

/// Sends what others read of a layer's outputs, or of the last one's what they say of the loss.
template <class T>
void BatchPass<T>::start_next(std::size_t layer, Range chunk) {
  if (layer + 1 == network_.layers().size()) return send_loss_part(chunk);
  auto& next = exchanges_[layer + 1];
  if (next == nullptr) return;
  next->start_forward(output_of(layer), gathered(layer + 1), chunk, network_.stream());
}

template <class T>
void BatchPass<T>::start(const Panels<const W>& x, Loss loss, const std::int32_t* labels, W scale) {
  take(x);
  const std::size_t last = network_.layers().size() - 1;
  loss_.loss = loss;
  loss_.activation = activation_of(last);
  loss_.y = output_of(last);
  loss_.dz = delta(last);
  loss_.part = {loss_part_.template as<W>(), LossPart::words, x.batch, width_, nullptr};
  loss_.parts = loss_.part;
  if (loss_exchange_ != nullptr) loss_.parts = loss_parts();
  loss_.labels = this->transfer_.labels(labels, x.batch);
  loss_.scale = scale;
  loss_.loss_scale = this->loss_scale_;
  run_kept({true, x.batch, loss, scale, false}, [&] { forward_layers(); });
  this->transfer_.mark_back(x.batch);
}

template <class T>
void BatchPass<T>::forward_layers() {
  store_narrow();
  const std::size_t layers = network_.layers().size();
  const std::vector<Range> parts = chunks();
  for (std::size_t l = 0; l < layers; ++l) {
    for (const Range& chunk : parts) forward_layer(l, chunk, parts.size() == 1);
    for (const Range& chunk : parts) {
      if (sums_[l] == nullptr) break;
      sums_[l]->finish_sums(output_of(l), chunk, network_.stream());
      start_next(l, chunk);
    }
  }
  for (const Range& chunk : parts) take_loss(chunk);
  this->transfer_.start_back(x_.batch);
}

/// The images of a chunk.
template <class T>
LossArgs<T> BatchPass<T>::loss_of(Range chunk) const {
  LossArgs<T> args = loss_;
  const std::int64_t before = chunk.begin * width_;
  args.y = cut(loss_.y, chunk);
  args.part = cut(loss_.part, chunk);
  args.parts = cut(loss_.parts, chunk);
  args.dz = cut(loss_.dz, chunk);
  args.labels += before;
  args.adds_up = before > 0;
  args.loss_sum = this->transfer_.loss_sum();
  args.predictions = this->transfer_.predictions() + before;
  return args;
}

template <class T>
void BatchPass<T>::send_loss_part(Range chunk) {
  kernels_.loss_part(loss_of(chunk), network_.stream());
  if (loss_exchange_ == nullptr) return;
  loss_exchange_->start_forward(loss_.part, loss_parts(), chunk, network_.stream());
}

template <class T>
void BatchPass<T>::take_loss(Range chunk) {
  if (loss_exchange_ != nullptr) {
    loss_exchange_->finish_forward(loss_parts(), chunk, network_.stream());
  }
  kernels_.loss(loss_of(chunk), network_.stream());
}

template <class T>
std::int64_t BatchPass<T>::forward_bytes(std::size_t layer) const {
  if (layer < sums_.size() && sums_[layer] != nullptr) return sums_[layer]->forward_bytes();
  if (layer == sums_.size()) return loss_exchange_ ? loss_exchange_->forward_bytes() : 0;
  return exchanges_[layer] != nullptr ? exchanges_[layer]->forward_bytes() : 0;
}

template <class T>
std::int64_t BatchPass<T>::backward_bytes(std::size_t layer) const {
  if (layer < sums_.size() && sums_[layer] != nullptr) return sums_[layer]->backward_bytes();
  if (layer == sums_.size()) return loss_exchange_ ? loss_exchange_->backward_bytes() : 0;
  return exchanges_[layer] != nullptr ? exchanges_[layer]->backward_bytes() : 0;
}

template <class T>
std::int64_t BatchPass<T>::activation_bytes() const {
  std::int64_t bytes = 0;
  for (const Buffer& buffer : activations_) bytes += bytes_of(buffer);
  return bytes;
}

template <class T>
std::int64_t BatchPass<T>::delta_bytes() const {
  return bytes_of(deltas_[0]) + bytes_of(deltas_[1]);
}

template <class T>
std::int64_t BatchPass<T>::workspace_bytes() const {
  return bytes_of(workspace_);
}

template <class T>
std::int64_t BatchPass<T>::copy_bytes() const {
  return bytes_of(values_) + bytes_of(images_);
}

template <class T>
std::int64_t BatchPass<T>::halo_bytes() const {
  std::int64_t bytes = bytes_of(partials_) + bytes_of(parts_) + bytes_of(loss_parts_);
  for (const Buffer& buffer : inputs_) bytes += bytes_of(buffer);
  for (const auto& exchange : exchanges_) bytes += exchange ? exchange->device_bytes() : 0;
  bytes += loss_exchange_ ? loss_exchange_->device_bytes() : 0;
  for (const auto& sums : sums_) bytes += sums ? sums->device_bytes() : 0;
  return bytes;
}

template <class T>
std::int64_t BatchPass<T>::halo_host_bytes() const {
  std::int64_t bytes = 0;
  for (const auto& exchange : exchanges_) bytes += exchange ? exchange->host_bytes() : 0;
  bytes += loss_exchange_ ? loss_exchange_->host_bytes() : 0;
  return bytes;
}

template class BatchPass<float>;
template class BatchPass<double>;
template class BatchPass<Half>;
template class BatchPass<Bfloat16>;

}  // namespace spdnn::train
