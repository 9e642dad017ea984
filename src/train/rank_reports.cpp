// What the ranks of a training leave behind: checkpoints, the network, and what they report at its
// end of memory, shares of the work and what crossed.
#include <fmt/format.h>

#include "export.hpp"
#include "host_view.hpp"
#include "rank_trainer.hpp"

namespace spdnn::train {
namespace {

/// Adds up what all ranks counted, on every one of them.
void sum_over(Communicator& comm, std::vector<std::int64_t>& counts) {
  if (comm.size() == 1) return;
  comm.all_reduce(counts.data(), counts.data(), std::ssize(counts), DType::i64, Reduction::sum,
                  nullptr);
}

}  // namespace

/// The first rank writes; those that share its rows send it theirs, layer by layer.
void RankTrainer::write(CheckpointKind kind) {
  if (data_.rank() != 0) return;
  const std::size_t arrays = kind == CheckpointKind::best ? 1 : worker_.arrays();
  std::optional<CheckpointWriter> writer;
  if (comm_.rank() == 0) writer.emplace(kind, spec_, state_, *job_.layers, arrays);
  for (std::size_t l = 0; l < job_.layers->size(); ++l) {
    worker_.show(l, arrays, [&](const RowsView<float>& rows) { writer->add(l, rows); });
  }
  if (writer) writer->commit();
}

/// The network as trained, to the first rank's result.
void RankTrainer::finish() {
  if (data_.rank() != 0) return;
  worker_.keep_parameters_alone();
  TrainResult& result = *job_.result;
  if (comm_.rank() == 0) {
    result.model =
        trained_model(fmt::format("trained for {} epochs, seed {}", state_.epoch, spec_.seed));
  }
  for (std::size_t l = 0; l < job_.layers->size(); ++l) {
    const TrainLayer& layer = (*job_.layers)[l];
    worker_.show(l, 1, [&](const RowsView<float>& rows) {
      result.layers.push_back({layer.inputs(), layer.outputs(), rows.pattern->nnz()});
      result.model.layers.push_back(trained_layer(layer, rows));
    });
  }
}

/// What this rank holds. Patterns are on the host, and on a GPU once more.
std::vector<MemoryItem> RankTrainer::own_memory() {
  std::int64_t csr = 0;
  std::int64_t csc = 0;
  const Network<float>& network = worker_.network();
  for (const TrainLayer& layer : network.layers()) {
    csr += layer.pattern.csr_bytes();
    csc += layer.pattern.csc_bytes();
  }
  const bool on_host = shares_memory(device_);
  const auto item = [&](const char* name, std::int64_t bytes) {
    return on_host ? MemoryItem{name, bytes, 0} : MemoryItem{name, 0, bytes};
  };
  const std::int64_t parameters = network.parameter_count() * std::int64_t{sizeof(float)};
  const AnyBatchPass<float>& pass = worker_.pass();
  MemoryItem batches = item("batches", pass.transfer().device_bytes());
  batches.bytes += loader_.bytes() + pass.transfer().host_bytes();
  MemoryItem halos = item("halos", pass.halo_bytes());
  halos.bytes += pass.halo_host_bytes();
  return {item("values and biases", parameters),
          item("gradient", parameters),
          item("optimizer state", worker_.optimizer().bytes()),
          {"CSR indices", csr, network.device_csr_bytes()},
          {"CSC indices", csc, network.device_csc_bytes()},
          item("activations", pass.activation_bytes()),
          item("deltas", pass.delta_bytes()),
          item("values by columns", pass.workspace_bytes()),
          item("copies in 16 bits", pass.copy_bytes()),
          halos,
          {"rewiring", rewirer_->host_bytes(), rewirer_->device_bytes()},
          batches};
}

/// Bytes summed over the ranks, and the most that one GPU held.
void RankTrainer::report_memory() {
  std::vector<MemoryItem> items = own_memory();
  std::int64_t peak = shares_memory(device_) ? 0 : device_.peak_bytes();
  if (comm_.size() > 1) {
    for (MemoryItem& item : items) {
      for (std::int64_t* bytes : {&item.bytes, &item.device_bytes}) {
        comm_.all_reduce(bytes, bytes, 1, DType::i64, Reduction::sum, nullptr);
      }
    }
    comm_.all_reduce(&peak, &peak, 1, DType::i64, Reduction::max, nullptr);
  }
  if (comm_.rank() == 0) job_.result->peak_device_bytes = peak;
  if (comm_.rank() == 0) job_.result->memory = std::move(items);
}

/// What each rank did, to rank 0.
void RankTrainer::report_share() {
  const std::vector<std::int64_t> ones(static_cast<std::size_t>(comm_.size()), 1);
  std::vector<std::int64_t> images(ones.size());
  std::vector<double> seconds(ones.size());
  std::vector<std::int64_t> taken_over(ones.size());
  comm_.all_gather(&images_, images.data(), ones, DType::i64, nullptr);
  comm_.all_gather(&taken_over_, taken_over.data(), ones, DType::i64, nullptr);
  const double busy = pace_.busy();
  comm_.all_gather(&busy, seconds.data(), ones, DType::f64, nullptr);
  std::vector<std::int64_t> replays(ones.size());
  const std::int64_t replayed = worker_.pass().replayed();
  comm_.all_gather(&replayed, replays.data(), ones, DType::i64, nullptr);
  if (comm_.rank() != 0) return;
  for (std::size_t r = 0; r < ones.size(); ++r) {
    job_.result->rank_images[team_.devices[r]] = images[r];
    job_.result->rank_taken_over[team_.devices[r]] = taken_over[r];
    job_.result->rank_seconds[team_.devices[r]] = seconds[r];
    job_.result->rank_replays[team_.devices[r]] = replays[r];
  }
}

/// What crossed between ranks that share rows, and what one image's words let expect of it.
void RankTrainer::report_rows() {
  if (team_.model->size() == 1) return;
  Crossed crossed = worker_.crossed();
  std::vector<std::int64_t> images = {crossed.images_forward, crossed.images_backward};
  sum_over(comm_, crossed.forward);
  sum_over(comm_, crossed.backward);
  sum_over(comm_, images);
  if (comm_.rank() != 0) return;
  RowTraffic rows = team_.rows;
  for (std::size_t l = 0; l < rows.layers.size(); ++l) {
    RowTraffic::Layer& layer = rows.layers[l];
    layer.forward = crossed.forward[l];
    layer.backward = crossed.backward[l];
    if (rows_moved_) layer.predicted_forward = layer.predicted_backward = std::nullopt;
    // Every rank that shares the rows counted the images.
    if (layer.predicted_forward) *layer.predicted_forward *= images[0] / team_.model->size();
    if (layer.predicted_backward) *layer.predicted_backward *= images[1] / team_.model->size();
  }
  job_.result->rows = std::move(rows);
}

}  // namespace spdnn::train
