// From a specification to the owner of each row: by shares, by a search, or from a file.
#include "row_owners.hpp"

#include <algorithm>
#include <numeric>

#include "any_pass.hpp"
#include "crossing_words.hpp"
#include "export.hpp"
#include "shard.hpp"
#include "spdnn/halo.hpp"

namespace spdnn::train {
namespace {

bool is_linear(const TrainLayer& layer) { return std::holds_alternative<LinearForm>(layer.form); }

/// The connections of the layers, which is all that partitions look at.
Model pattern_model(const std::vector<TrainLayer>& layers) {
  Model model = trained_model("patterns");
  for (const TrainLayer& layer : layers) {
    const std::vector<float> ones(static_cast<std::size_t>(layer.pattern.nnz()), 1.0F);
    const std::vector<float> zeros(static_cast<std::size_t>(layer.pattern.rows()));
    model.layers.push_back(trained_layer(layer, {&layer.pattern, {ones}, {zeros}}));
  }
  return model;
}

std::string name_of(const PartitionSpec& spec) {
  return spec.model == "file" ? spec.file.filename().string() : spec.model;
}

/// Each rank's part of all units.
std::vector<double> shares_of(const std::vector<std::vector<std::int64_t>>& units) {
  std::vector<double> shares(units.front().size());
  double all = 0.0;
  for (const auto& layer : units) {
    for (std::size_t r = 0; r < shares.size(); ++r) shares[r] += static_cast<double>(layer[r]);
    all += static_cast<double>(std::accumulate(layer.begin(), layer.end(), std::int64_t{0}));
  }
  for (double& share : shares) share /= all;
  return shares;
}

/// What one image makes cross; of the loss every rank tells every other what its outputs say.
void predict(const std::vector<TrainLayer>& layers, const std::vector<LayerPartition>& partition,
             std::int64_t word, RowTraffic& report) {
  for (std::size_t l = 0; l < layers.size(); ++l) {
    RowTraffic::Layer& layer = report.layers[l];
    layer.predicted_forward = word * crossing_words(layers, partition, l, layer.split);
    layer.predicted_backward = layer.predicted_forward;
  }
  const std::int64_t pairs = std::int64_t{report.parts} * (report.parts - 1);
  report.layers.back().predicted_forward = pairs * LossPart::words * stored_bytes(Precision::fp32);
  report.layers.back().predicted_backward = 0;
}

}  // namespace

RowOwners choose_owners(const TrainSpec& spec, const std::vector<TrainLayer>& layers,
                        const std::vector<std::vector<std::int64_t>>& units,
                        const std::vector<LayerSplit>& splits, Communicator& all) {
  RowOwners owners;
  const std::vector<double> shares = shares_of(units);
  if (spec.partition.chosen()) {
    all.show("partitioning", -1);
    owners.layers = share_partition(all, [&] {
                      return choose_partition(spec.partition, pattern_model(layers), shares);
                    }).layers;
  } else {
    owners.layers = split_by_counts(layers, units);
  }
  if (all.rank() != 0) return owners;
  RowTraffic& report = owners.traffic;
  report.partition = name_of(spec.partition);
  report.parts = static_cast<int>(shares.size());
  report.layers.resize(layers.size() + 1);
  for (std::size_t l = 0; l < splits.size(); ++l) report.layers[l].split = splits[l];
  if (spec.rewire.method != RewireMethod::none) return owners;
  predict(layers, owners.layers, stored_bytes(spec.precision), report);
  if (std::all_of(layers.begin(), layers.end(), is_linear)) {
    const Model model = pattern_model(layers);
    report.imbalance = imbalance(count_traffic(model, {model_key(model), owners.layers}), shares);
  }
  return owners;
}

}  // namespace spdnn::train
