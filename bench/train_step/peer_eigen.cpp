// Eigen: sparse by dense products, which use OpenMP where the sparse matrix is row-major, so the
// transpose is kept as a row-major matrix too. Eigen has no product sampled on a pattern: each
// entry is a dot product of two rows, on all threads.
#include <omp.h>

#include <Eigen/SparseCore>

#include "spdnn/device.hpp"
#include "train_step/step.hpp"

namespace spdnn::bench {
namespace {

using Sparse = Eigen::SparseMatrix<float, Eigen::RowMajor>;
using Dense = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

class EigenStep final : public StepPeer {
 public:
  explicit EigenStep(const StepCase& step) : StepPeer("eigen"), threads_(step.threads) {
    Eigen::setNbThreads(step.threads);
    omp_set_num_threads(step.threads);
    for (int l = 0; l < kStepLayers; ++l) {
      const StepCase::Layer& from = step.layers[l];
      std::vector<Eigen::Triplet<float>> entries;
      for (std::int64_t row = 0; row < step.width; ++row) {
        for (std::int64_t k = from.row_offsets[row]; k < from.row_offsets[row + 1]; ++k) {
          entries.emplace_back(static_cast<int>(row), static_cast<int>(from.col_indices[k]),
                               from.values[k]);
        }
      }
      w_[l].resize(step.width, step.width);
      w_[l].setFromTriplets(entries.begin(), entries.end());
      transposed_[l] = w_[l].transpose();
      gradient_[l].resize(static_cast<Eigen::Index>(from.values.size()));
      momentum_[l] = Eigen::ArrayXf::Zero(static_cast<Eigen::Index>(from.values.size()));
    }
    x_ = Eigen::Map<const Dense>(step.x.data(), step.width, step.batch);
    target_ = Eigen::Map<const Dense>(step.target.data(), step.width, step.batch);
  }

  [[nodiscard]] double step() override {
    const double start = now_seconds();
    for (int l = 0; l < kStepLayers; ++l) {
      y_[l].noalias() = w_[l] * input(l);
      y_[l] = y_[l].cwiseMax(0.0F);
    }
    Dense dz = (y_[kStepLayers - 1].array() > 0.0F)
                   .select((y_[kStepLayers - 1] - target_) / static_cast<float>(x_.cols()), 0.0F);
    for (int l = kStepLayers - 1; l >= 0; --l) {
      sample_product(dz, input(l), l);
      if (l == 0) break;
      transposed_[l] = w_[l].transpose();
      const Dense dx = transposed_[l] * dz;
      dz = (input(l).array() > 0.0F).select(dx, 0.0F);
    }
    for (int l = 0; l < kStepLayers; ++l) {
      momentum_[l] = kMomentum * momentum_[l] + gradient_[l];
      w_[l].coeffs() -= kRate * momentum_[l];
    }
    return now_seconds() - start;
  }

  [[nodiscard]] std::vector<float> values(int layer) const override {
    return {w_[layer].valuePtr(), w_[layer].valuePtr() + w_[layer].nonZeros()};
  }
  [[nodiscard]] std::string about() const override {
    return std::to_string(EIGEN_WORLD_VERSION) + "." + std::to_string(EIGEN_MAJOR_VERSION) + "." +
           std::to_string(EIGEN_MINOR_VERSION) + ", " + Eigen::SimdInstructionSetsInUse();
  }

 private:
  [[nodiscard]] const Dense& input(int l) const { return l == 0 ? x_ : y_[l - 1]; }

  void sample_product(const Dense& dz, const Dense& x, int l) {
    const auto rows = static_cast<int>(w_[l].rows());
    const int* const offsets = w_[l].outerIndexPtr();
    const int* const cols = w_[l].innerIndexPtr();
#pragma omp parallel for schedule(dynamic, 16) num_threads(threads_)
    for (int row = 0; row < rows; ++row) {
      for (int k = offsets[row]; k < offsets[row + 1]; ++k) {
        gradient_[l][k] = dz.row(row).dot(x.row(cols[k]));
      }
    }
  }

  int threads_;
  Sparse w_[kStepLayers], transposed_[kStepLayers];
  Eigen::ArrayXf gradient_[kStepLayers], momentum_[kStepLayers];
  Dense x_, target_, y_[kStepLayers];
};

}  // namespace

std::unique_ptr<StepPeer> make_eigen_step(const StepCase& step) {
  return std::make_unique<EigenStep>(step);
}

}  // namespace spdnn::bench
