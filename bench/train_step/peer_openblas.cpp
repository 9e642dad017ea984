// OpenBLAS. Releases older than a processor may choose kernels for an older one: the environment
// variable OPENBLAS_CORETYPE overrides that, and the record says which kernels ran.
#include <cblas.h>

#include "train_step/step.hpp"

namespace spdnn::bench {
namespace {

void gemm(bool transpose_a, bool transpose_b, std::int64_t rows, std::int64_t cols,
          std::int64_t inner, const float* a, const float* b, float* c) {
  cblas_sgemm(CblasRowMajor, transpose_a ? CblasTrans : CblasNoTrans,
              transpose_b ? CblasTrans : CblasNoTrans, static_cast<int>(rows),
              static_cast<int>(cols), static_cast<int>(inner), 1.0F, a,
              static_cast<int>(transpose_a ? rows : inner), b,
              static_cast<int>(transpose_b ? inner : cols), 0.0F, c, static_cast<int>(cols));
}

}  // namespace

std::unique_ptr<StepPeer> make_openblas_step(const StepCase& step) {
  openblas_set_num_threads(step.threads);
  return make_dense_step(step, "openblas",
                         std::string(openblas_get_config()) + ", " + openblas_get_corename(), gemm);
}

}  // namespace spdnn::bench
