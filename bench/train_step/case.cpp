// Random sparse layers and batches, equal for equal arguments; the list of peers.
#include <cmath>

#include "spdnn/random.hpp"
#include "train_step/step.hpp"

namespace spdnn::bench {

StepCase make_case(std::int64_t width, std::int64_t batch, double sparsity, int threads) {
  StepCase step;
  step.width = width;
  step.batch = batch;
  step.sparsity = sparsity;
  step.threads = threads;
  for (int l = 0; l < kStepLayers; ++l) {
    StepCase::Layer& layer = step.layers[l];
    Random random(1, static_cast<std::uint64_t>(l));
    const double bound = std::sqrt(6.0 / (static_cast<double>(width) * (1.0 - sparsity)));
    layer.row_offsets.push_back(0);
    for (std::int64_t row = 0; row < width; ++row) {
      for (std::int64_t col = 0; col < width; ++col) {
        if (random.between(0.0, 1.0) < sparsity) continue;
        layer.col_indices.push_back(static_cast<std::uint32_t>(col));
        layer.values.push_back(static_cast<float>(random.between(-bound, bound)));
      }
      layer.row_offsets.push_back(static_cast<std::int64_t>(layer.values.size()));
    }
  }
  Random random(2, 0);
  for (std::int64_t i = 0; i < width * batch; ++i) {
    step.x.push_back(static_cast<float>(random.between(0.0, 1.0)));
    step.target.push_back(static_cast<float>(random.between(0.0, 1.0)));
  }
  return step;
}

std::vector<std::unique_ptr<StepPeer>> make_step_peers(const StepCase& step,
                                                       const std::string& python) {
  std::vector<std::unique_ptr<StepPeer>> peers;
  peers.push_back(make_spdnn_step(step));
#ifdef BENCH_HAVE_OPENBLAS
  peers.push_back(make_openblas_step(step));
#endif
#ifdef BENCH_HAVE_ONEDNN
  peers.push_back(make_onednn_step(step));
#endif
#ifdef BENCH_HAVE_EIGEN
  peers.push_back(make_eigen_step(step));
#endif
  if (!python.empty()) peers.push_back(make_scipy_step(step, python));
  return peers;
}

}  // namespace spdnn::bench
