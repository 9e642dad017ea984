// Eigen: row-major sparse × row-major dense, on one thread.
#include <Eigen/SparseCore>
#include <memory>

#include "kernels/peers.hpp"

namespace spdnn::bench {

LayerCall prepare_eigen(const CsrView& weights, std::int64_t batch, int /*threads*/) {
  using Sparse = Eigen::SparseMatrix<float, Eigen::RowMajor>;
  using Dense = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  std::vector<Eigen::Triplet<float>> entries;
  for (std::int64_t row = 0; row < weights.rows; ++row) {
    for (std::int64_t k = weights.row_begin(row); k < weights.row_begin(row + 1); ++k) {
      entries.emplace_back(static_cast<int>(row), static_cast<int>(weights.col(k)),
                           static_cast<float>(weights.value(k)));
    }
  }
  const auto w = std::make_shared<Sparse>(weights.rows, weights.cols);
  w->setFromTriplets(entries.begin(), entries.end());
  return [w, batch](const float* x, float* y) {
    const Eigen::Map<const Dense> in(x, w->cols(), batch);
    Eigen::Map<Dense> out(y, w->rows(), batch);
    out.noalias() = *w * in;
    finish_layer(y, w->rows() * batch);
  };
}

}  // namespace spdnn::bench
