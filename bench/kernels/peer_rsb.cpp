// librsb: recursive sparse blocks × row-major dense.
#include <rsb.h>

#include <memory>

#include "kernels/peers.hpp"

namespace spdnn::bench {
namespace {

void check(rsb_err_t error, const char* what) {
  if (error != RSB_ERR_NO_ERROR) throw DeviceError(std::string("librsb: ") + what + " failed");
}

void set_threads(int threads) {
  rsb_int_t count = threads;
  check(rsb_lib_set_opt(RSB_IO_WANT_EXECUTING_THREADS, &count), "setting the thread count");
}

}  // namespace

LayerCall prepare_rsb(const CsrView& weights, std::int64_t batch, int threads) {
  static const rsb_err_t started = rsb_lib_init(RSB_NULL_INIT_OPTIONS);
  check(started, "starting");
  set_threads(threads);
  std::vector<rsb_coo_idx_t> rows, cols;
  std::vector<float> values;
  for (std::int64_t row = 0; row < weights.rows; ++row) {
    for (std::int64_t k = weights.row_begin(row); k < weights.row_begin(row + 1); ++k) {
      rows.push_back(static_cast<rsb_coo_idx_t>(row));
      cols.push_back(static_cast<rsb_coo_idx_t>(weights.col(k)));
      values.push_back(static_cast<float>(weights.value(k)));
    }
  }
  rsb_err_t error = RSB_ERR_NO_ERROR;
  const std::shared_ptr<rsb_mtx_t> matrix(
      rsb_mtx_alloc_from_coo_const(
          values.data(), rows.data(), cols.data(), static_cast<rsb_nnz_idx_t>(weights.nnz),
          RSB_NUMERICAL_TYPE_FLOAT, static_cast<rsb_coo_idx_t>(weights.rows),
          static_cast<rsb_coo_idx_t>(weights.cols), 0, 0, RSB_FLAG_NOFLAGS, &error),
      [](rsb_mtx_t* m) { rsb_mtx_free(m); });
  check(error, "building a matrix");
  return [matrix, threads, batch, outputs = weights.rows](const float* x, float* y) {
    set_threads(threads);
    const float one = 1.0F;
    const float zero = 0.0F;
    const auto width = static_cast<rsb_coo_idx_t>(batch);
    check(rsb_spmm(RSB_TRANSPOSITION_N, &one, matrix.get(), width, RSB_FLAG_WANT_ROW_MAJOR_ORDER, x,
                   width, &zero, y, width),
          "rsb_spmm");
    finish_layer(y, outputs * batch);
  };
}

}  // namespace spdnn::bench
