// Layers of training turned into layers of a model.
#include "export.hpp"

namespace spdnn::train {
namespace {

Csr weights_of(const Pattern& p, std::vector<float> values) {
  std::vector<std::int64_t> offsets = p.row_offsets();
  std::vector<std::uint32_t> indices = p.col_indices();
  if (p.is_dense()) {
    for (std::int64_t row = 0; row <= p.rows(); ++row) offsets.push_back(row * p.cols());
    for (std::int64_t k = 0; k < p.nnz(); ++k) {
      indices.push_back(static_cast<std::uint32_t>(k % p.cols()));
    }
  }
  return make_csr(p.rows(), p.cols(), std::move(offsets), std::move(indices), std::move(values));
}

}  // namespace

Model trained_model(const std::vector<TrainLayer>& layers, std::vector<LayerRows<float>> rows,
                    std::string origin) {
  Model model;
  model.name = "trained";
  model.origin = std::move(origin);
  for (std::size_t l = 0; l < layers.size(); ++l) {
    const TrainLayer& layer = layers[l];
    if (const auto* pool = std::get_if<PoolForm>(&layer.form)) {
      model.layers.emplace_back(Pool2d{pool->window, pool->kind});
      continue;
    }
    Csr weights = weights_of(rows[l].pattern, std::move(rows[l].values[0]));
    std::vector<float> bias = std::move(rows[l].biases[0]);
    if (const auto* conv = std::get_if<ConvForm>(&layer.form)) {
      model.layers.emplace_back(
          SparseConv2d{conv->window, std::move(weights), std::move(bias), layer.activation});
    } else {
      model.layers.emplace_back(
          SparseLinear{std::move(weights), std::move(bias), layer.activation});
    }
  }
  return model;
}

}  // namespace spdnn::train
