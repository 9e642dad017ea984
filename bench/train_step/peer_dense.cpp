// Dense layers whose weights are masked: what a dense library does instead. The weights are kept
// masked, so that the mask is applied once a step, in the update.
#include <omp.h>

#include "spdnn/device.hpp"
#include "train_step/step.hpp"

namespace spdnn::bench {
namespace {

class DenseStep final : public StepPeer {
 public:
  DenseStep(const StepCase& step, std::string name, std::string about, Gemm gemm)
      : StepPeer(std::move(name)), case_(step), about_(std::move(about)), gemm_(gemm) {
    omp_set_num_threads(step.threads);
    const auto places = static_cast<std::size_t>(step.width * step.width);
    const auto size = static_cast<std::size_t>(step.width * step.batch);
    for (int l = 0; l < kStepLayers; ++l) {
      w_[l].resize(places);
      mask_[l].resize(places);
      gradient_[l].resize(places);
      momentum_[l].resize(places);
      y_[l].resize(size);
      dz_[l].resize(size);
      for_each_entry(l, [&](std::int64_t k, std::int64_t place) {
        w_[l][place] = step.layers[l].values[k];
        mask_[l][place] = 1.0F;
      });
    }
  }

  [[nodiscard]] double step() override {
    const double start = now_seconds();
    const std::int64_t n = case_.width;
    const std::int64_t b = case_.batch;
    for (int l = 0; l < kStepLayers; ++l) {
      gemm_(false, false, n, b, n, w_[l].data(), input(l), y_[l].data());
      clamp(y_[l]);
    }
    subtract_target();
    for (int l = kStepLayers - 1; l >= 0; --l) {
      gemm_(false, true, n, n, b, dz_[l].data(), input(l), gradient_[l].data());
      if (l == 0) break;
      gemm_(true, false, n, b, n, w_[l].data(), dz_[l].data(), dz_[l - 1].data());
      mask(y_[l - 1], dz_[l - 1]);
    }
    for (int l = 0; l < kStepLayers; ++l) update(l);
    return now_seconds() - start;
  }

  [[nodiscard]] std::vector<float> values(int layer) const override {
    std::vector<float> values;
    for_each_entry(layer,
                   [&](std::int64_t, std::int64_t place) { values.push_back(w_[layer][place]); });
    return values;
  }
  [[nodiscard]] std::string about() const override { return about_; }

 private:
  template <class Visit>
  void for_each_entry(int l, const Visit& visit) const {
    const StepCase::Layer& layer = case_.layers[l];
    for (std::int64_t row = 0; row < case_.width; ++row) {
      for (std::int64_t k = layer.row_offsets[row]; k < layer.row_offsets[row + 1]; ++k) {
        visit(k, row * case_.width + layer.col_indices[k]);
      }
    }
  }
  [[nodiscard]] const float* input(int l) const {
    return l == 0 ? case_.x.data() : y_[l - 1].data();
  }
  static void clamp(std::vector<float>& y) {
    float* const p = y.data();
    const auto size = static_cast<std::int64_t>(y.size());
#pragma omp parallel for simd schedule(static)
    for (std::int64_t i = 0; i < size; ++i) p[i] = p[i] > 0.0F ? p[i] : 0.0F;
  }
  static void mask(const std::vector<float>& y, std::vector<float>& dz) {
    const float* const from = y.data();
    float* const to = dz.data();
    const auto size = static_cast<std::int64_t>(y.size());
#pragma omp parallel for simd schedule(static)
    for (std::int64_t i = 0; i < size; ++i) to[i] = from[i] > 0.0F ? to[i] : 0.0F;
  }
  void subtract_target() {
    const float* const y = y_[kStepLayers - 1].data();
    const float* const t = case_.target.data();
    float* const dz = dz_[kStepLayers - 1].data();
    const std::int64_t size = case_.width * case_.batch;
    const float scale = 1.0F / static_cast<float>(case_.batch);
#pragma omp parallel for simd schedule(static)
    for (std::int64_t i = 0; i < size; ++i) dz[i] = y[i] > 0.0F ? (y[i] - t[i]) * scale : 0.0F;
  }
  void update(int l) {
    const float* const g = gradient_[l].data();
    const float* const keep = mask_[l].data();
    float* const m = momentum_[l].data();
    float* const w = w_[l].data();
    const std::int64_t size = case_.width * case_.width;
#pragma omp parallel for simd schedule(static)
    for (std::int64_t i = 0; i < size; ++i) {
      m[i] = kMomentum * m[i] + keep[i] * g[i];
      w[i] -= kRate * m[i];
    }
  }

  const StepCase& case_;
  std::string about_;
  Gemm gemm_;
  std::vector<float> w_[kStepLayers], mask_[kStepLayers], gradient_[kStepLayers],
      momentum_[kStepLayers], y_[kStepLayers], dz_[kStepLayers];
};

}  // namespace

std::unique_ptr<StepPeer> make_dense_step(const StepCase& step, std::string name, std::string about,
                                          Gemm gemm) {
  return std::make_unique<DenseStep>(step, std::move(name), std::move(about), gemm);
}

}  // namespace spdnn::bench
