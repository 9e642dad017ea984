// A training step with divided rows, whole or in part.
#include "step.hpp"

#include "support/record.hpp"

namespace spdnn::bench {

using namespace train;

DeviceSpec device_of(const Communicator& comm) {
  DeviceSpec spec;
  const std::vector<int> cores = usable_cores();
  if (comm.size() <= std::ssize(cores)) spec.cores = {cores[static_cast<std::size_t>(comm.rank())]};
  return spec;
}

TrainKernels<float> idle_kernels() {
  TrainKernels<float> idle = train_kernels<float>().front();
  const LinearKernels<float> nothing = {[](const ForwardArgs<float>&, Stream&) {},
                                        [](const BackwardDataArgs<float>&, Stream&) {},
                                        [](const BackwardWeightsArgs<float>&, Stream&) {}};
  idle.sparse = idle.dense = nothing;
  idle.loss = [](const LossArgs<float>&, Stream&) {};
  idle.update = [](const UpdateArgs<float>&, Stream&) {};
  return idle;
}

Step::Step(const std::vector<TrainLayer>& layers, const std::vector<LayerPartition>& partition,
           std::int64_t batch, Communicator& comm, const TrainKernels<float>& kernels,
           Device& device, Stream& stream)
    : comm_(comm), stream_(stream), inputs_(layers.front().pattern.cols()), batch_(batch) {
  std::vector<Pattern> rows;
  for (std::size_t l = 0; l < layers.size(); ++l) {
    const Pattern& all = layers[l].pattern;
    std::vector<std::int64_t> offsets = {0};
    std::vector<std::uint32_t> indices;
    for (const std::uint32_t row : part_of(partition[l], comm.rank())) {
      indices.insert(indices.end(), all.col_indices().begin() + all.row_offsets()[row],
                     all.col_indices().begin() + all.row_offsets()[row + 1]);
      offsets.push_back(std::ssize(indices));
    }
    const auto count = std::ssize(offsets) - 1;
    rows.emplace_back(count, all.cols(), std::move(offsets), std::move(indices));
  }
  shard_ = make_shard(comm, layers, partition, rows);
  network_.emplace(std::move(shard_.layers), kernels, device, stream);
  network_->initialize(1);
  stream.zero(network_->gradient(),
              static_cast<std::size_t>(network_->parameter_count()) * sizeof(float));
  pass_.emplace(*network_, shard_, comm, batch);
  const Panels<float> room = {nullptr, inputs_, batch, pass_->width(), nullptr};
  x_.assign(static_cast<std::size_t>(room.size()), 0.25F);
  labels_.resize(static_cast<std::size_t>(batch));
}

void Step::run() {
  pass_->start({x_.data(), inputs_, batch_, pass_->width(), nullptr}, Loss::cross_entropy,
               labels_.data(), 1.0F / static_cast<float>(batch_));
  pass_->backward();
  static_cast<void>(pass_->finish_loss(nullptr));
  UpdateArgs<float> update;
  update.count = network_->parameter_count();
  update.parameters = network_->parameters();
  update.gradient = network_->gradient();
  update.rate = 1e-6F;
  network_->kernels().update(update, stream_);
}

Step::Took Step::time() {
  comm_.barrier();
  const double start = now_seconds();
  const double cpu = thread_cpu_seconds();
  run();
  Took took = {now_seconds() - start, thread_cpu_seconds() - cpu};
  comm_.all_reduce(&took.seconds, &took.seconds, 1, DType::f64, Reduction::max, nullptr);
  comm_.all_reduce(&took.cpu_s, &took.cpu_s, 1, DType::f64, Reduction::sum, nullptr);
  took.cpu_s /= comm_.size();
  return took;
}

std::int64_t Step::bytes() {
  const std::int64_t before = comm_.bytes_sent();
  run();
  std::int64_t sent = comm_.bytes_sent() - before;
  comm_.all_reduce(&sent, &sent, 1, DType::i64, Reduction::max, nullptr);
  return sent;
}

}  // namespace spdnn::bench
