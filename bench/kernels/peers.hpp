// Other libraries' products, sparse or dense, timed beside the kernels: Y = W·X, then
// max(Y + b, 0), activations `[features × batch]`, row-major.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "spdnn/matrix.hpp"

namespace spdnn::bench {

/// Calling it computes one layer, from `x` into `y`.
using LayerCall = std::function<void(const float* x, float* y)>;

struct LayerPeer {
  std::string name;
  bool threaded = false;  ///< takes more than one thread
  bool dense = false;     ///< computes zeros as well: timed on layers that have few
  LayerCall (*prepare)(const CsrView& weights, std::int64_t batch, int threads);
};
/// The libraries that were found when this was built.
[[nodiscard]] std::vector<LayerPeer> layer_peers();

[[nodiscard]] LayerCall prepare_eigen(const CsrView& weights, std::int64_t batch, int threads);
[[nodiscard]] LayerCall prepare_openblas(const CsrView& weights, std::int64_t batch, int threads);
[[nodiscard]] LayerCall prepare_rsb(const CsrView& weights, std::int64_t batch, int threads);

/// The epilogue of every peer: bias −0.3, ReLU, clipped at 32.
void finish_layer(float* y, std::int64_t count);

}  // namespace spdnn::bench
