// Layers of training turned into layers of a model.
#include "export.hpp"

namespace spdnn::train {
namespace {

Csr weights_of(const Pattern& p, std::span<const float> values) {
  std::vector<std::int64_t> offsets = p.row_offsets();
  std::vector<std::uint32_t> indices = p.col_indices();
  if (p.is_dense()) {
    indices.reserve(static_cast<std::size_t>(p.nnz()));
    for (std::int64_t row = 0; row <= p.rows(); ++row) offsets.push_back(row * p.cols());
    for (std::int64_t k = 0; k < p.nnz(); ++k) {
      indices.push_back(static_cast<std::uint32_t>(k % p.cols()));
    }
  }
  return make_csr(p.rows(), p.cols(), std::move(offsets), std::move(indices),
                  {values.begin(), values.end()});
}

}  // namespace

Model trained_model(std::string origin) {
  Model model;
  model.name = "trained";
  model.origin = std::move(origin);
  return model;
}

Layer trained_layer(const TrainLayer& layer, const RowsView<float>& rows) {
  if (const auto* pool = std::get_if<PoolForm>(&layer.form)) {
    return Pool2d{pool->window, pool->kind};
  }
  Csr weights = weights_of(*rows.pattern, rows.values[0]);
  std::vector<float> bias(rows.biases[0].begin(), rows.biases[0].end());
  if (const auto* conv = std::get_if<ConvForm>(&layer.form)) {
    return SparseConv2d{conv->window, std::move(weights), std::move(bias), layer.activation};
  }
  return SparseLinear{std::move(weights), std::move(bias), layer.activation};
}

}  // namespace spdnn::train
