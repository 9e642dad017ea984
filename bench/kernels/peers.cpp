// Which peers this build has, and the epilogue they share.
#include "kernels/peers.hpp"

#include <algorithm>

namespace spdnn::bench {

std::vector<LayerPeer> layer_peers() {
  return {
#if defined(BENCH_HAVE_EIGEN)
    {"eigen", false, false, prepare_eigen},
#endif
#if defined(BENCH_HAVE_RSB)
        {"librsb", true, false, prepare_rsb},
#endif
#if defined(BENCH_HAVE_OPENBLAS)
        {"openblas", true, true, prepare_openblas},
#endif
  };
}

void finish_layer(float* y, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) y[i] = std::min(std::max(y[i] - 0.3F, 0.0F), 32.0F);
}

}  // namespace spdnn::bench
