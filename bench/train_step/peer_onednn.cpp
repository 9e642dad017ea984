// oneDNN's matrix product, which compiles kernels for the processor it finds.
#include <dnnl.h>

#include "train_step/step.hpp"

namespace spdnn::bench {
namespace {

void gemm(bool transpose_a, bool transpose_b, std::int64_t rows, std::int64_t cols,
          std::int64_t inner, const float* a, const float* b, float* c) {
  dnnl_sgemm(transpose_a ? 'T' : 'N', transpose_b ? 'T' : 'N', rows, cols, inner, 1.0F, a,
             transpose_a ? rows : inner, b, transpose_b ? inner : cols, 0.0F, c, cols);
}

}  // namespace

std::unique_ptr<StepPeer> make_onednn_step(const StepCase& step) {
  const dnnl_version_t* version = dnnl_version();
  return make_dense_step(step, "onednn",
                         std::to_string(version->major) + "." + std::to_string(version->minor) +
                             "." + std::to_string(version->patch) + ", instruction set " +
                             std::to_string(dnnl_get_effective_cpu_isa()),
                         gemm);
}

}  // namespace spdnn::bench
