// OpenBLAS: the layer as a dense matrix, zeros and all. Releases older than a processor may choose
// kernels for an older one: the environment variable OPENBLAS_CORETYPE overrides that.
#include <cblas.h>

#include <memory>

#include "kernels/peers.hpp"

namespace spdnn::bench {

LayerCall prepare_openblas(const CsrView& weights, std::int64_t batch, int threads) {
  const auto dense =
      std::make_shared<std::vector<float>>(static_cast<std::size_t>(weights.rows * weights.cols));
  for (std::int64_t row = 0; row < weights.rows; ++row) {
    for (std::int64_t k = weights.row_begin(row); k < weights.row_begin(row + 1); ++k) {
      (*dense)[row * weights.cols + weights.col(k)] += static_cast<float>(weights.value(k));
    }
  }
  openblas_set_num_threads(threads);
  const auto rows = static_cast<int>(weights.rows);
  const auto cols = static_cast<int>(weights.cols);
  const auto images = static_cast<int>(batch);
  return [=](const float* x, float* y) {
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, rows, images, cols, 1.0F, dense->data(),
                cols, x, images, 0.0F, y, images);
    finish_layer(y, std::int64_t{rows} * images);
  };
}

}  // namespace spdnn::bench
