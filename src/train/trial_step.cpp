// A step of made-up images.
#include "trial_step.hpp"

#include <algorithm>
#include <cstring>

namespace spdnn::train {

void Alone::all_gather(const void* send, void* receive, std::span<const std::int64_t> counts,
                       DType type, Stream* /*stream*/) {
  const auto own = static_cast<std::size_t>(counts[rank_]) * size_of(type);
  auto* to = static_cast<std::byte*>(receive);
  for (const std::int64_t count : counts) {
    const std::size_t bytes = static_cast<std::size_t>(count) * size_of(type);
    if (own > 0 && bytes > 0) std::memmove(to, send, std::min(own, bytes));
    to += bytes;
  }
}

void Alone::all_reduce(const void* send, void* receive, std::int64_t count, DType type,
                       Reduction /*reduction*/, Stream* /*stream*/) {
  if (count > 0) std::memmove(receive, send, static_cast<std::size_t>(count) * size_of(type));
}

void Alone::reduce_scatter(const void* send, void* receive, std::span<const std::int64_t> counts,
                           DType type, Reduction /*reduction*/, Stream* /*stream*/) {
  const auto* from = static_cast<const std::byte*>(send);
  for (int rank = 0; rank < rank_; ++rank) {
    from += static_cast<std::size_t>(counts[rank]) * size_of(type);
  }
  const auto own = static_cast<std::size_t>(counts[rank_]) * size_of(type);
  if (own > 0) std::memmove(receive, from, own);
}

std::unique_ptr<Communicator::Pending> Alone::start_exchange(std::span<const Message> /*sends*/,
                                                             std::span<const Message> /*receives*/,
                                                             Stream* /*stream*/) {
  class Nothing final : public Pending {
    void finish() override {}
  };
  return std::make_unique<Nothing>();
}

std::unique_ptr<Communicator> Alone::split(int /*color*/, int /*key*/) {
  return std::make_unique<Alone>(0, 1);
}

DeviceSpec core_of(const Communicator& comm) {
  DeviceSpec spec;
  const std::vector<int> cores = usable_cores();
  if (comm.size() <= std::ssize(cores)) spec.cores = {cores[static_cast<std::size_t>(comm.rank())]};
  return spec;
}

const TrainKernels<float>& cpu_kernels() {
  const auto all = train_kernels<float>();
  return *std::find_if(all.begin(), all.end(),
                       [](const auto& kernels) { return kernels.device == DeviceKind::cpu; });
}

TrialStep::TrialStep(Shard shard, std::int64_t batch, Communicator& comm,
                     const TrainKernels<float>& kernels, Device& device, Stream& stream)
    : stream_(stream),
      inputs_(shard.layers.front().inputs()),
      batch_(batch),
      shard_(std::move(shard)) {
  network_.emplace(std::move(shard_.layers), kernels, device, stream);
  network_->initialize(1);
  stream.zero(network_->gradient(),
              static_cast<std::size_t>(network_->parameter_count()) * sizeof(float));
  pass_.emplace(*network_, shard_, comm, batch);
  const Panels<float> room = {nullptr, inputs_, batch, pass_->width(), nullptr};
  x_.assign(static_cast<std::size_t>(room.size()), 0.25F);
  labels_.resize(static_cast<std::size_t>(batch));
}

void TrialStep::run() {
  forward();
  backward();
  update();
}

void TrialStep::forward() {
  pass_->start({x_.data(), inputs_, batch_, pass_->width(), nullptr}, Loss::cross_entropy,
               labels_.data(), 1.0F / static_cast<float>(batch_));
  static_cast<void>(pass_->finish_loss(nullptr));
}

void TrialStep::backward() { pass_->backward(); }

void TrialStep::update() {
  UpdateArgs<float> update;
  update.count = network_->parameter_count();
  update.parameters = network_->parameters();
  update.gradient = network_->gradient();
  update.rate = 1e-6F;
  network_->kernels().update(update, stream_);
}

}  // namespace spdnn::train
