// One training step, the same for all: two layers of width × width with ReLU, plain error against a
// target, momentum. Each library behind one call.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace spdnn::bench {

inline constexpr int kStepLayers = 2;
inline constexpr float kRate = 0.01F;
inline constexpr float kMomentum = 0.9F;

/// A network, a batch and its target. Matrices are row-major, features × batch.
struct StepCase {
  std::int64_t width = 0, batch = 0;
  double sparsity = 0.0;
  int threads = 1;
  struct Layer {
    std::vector<std::int64_t> row_offsets;
    std::vector<std::uint32_t> col_indices;
    std::vector<float> values;
  };
  Layer layers[kStepLayers];
  std::vector<float> x, target;
};
[[nodiscard]] StepCase make_case(std::int64_t width, std::int64_t batch, double sparsity,
                                 int threads);

/// A library that holds the case in its own form. A step is: Z = W·X, Y = max(Z, 0) in each layer;
/// dZ = (Y − target) / batch where Y > 0; dW = dZ·Xᵀ on the pattern; dX = Wᵀ·dZ where X > 0, not of
/// the first layer; m = momentum · m + dW, W −= rate · m. There are no biases.
class StepPeer {
 public:
  explicit StepPeer(std::string name) : name_(std::move(name)) {}
  StepPeer(const StepPeer&) = delete;
  StepPeer& operator=(const StepPeer&) = delete;
  virtual ~StepPeer() = default;
  [[nodiscard]] const std::string& name() const { return name_; }
  /// Seconds of one step.
  [[nodiscard]] virtual double step() = 0;
  /// The weights of a layer in CSR order, after the steps so far.
  [[nodiscard]] virtual std::vector<float> values(int layer) const = 0;
  /// What the library says of itself: version, instruction set.
  [[nodiscard]] virtual std::string about() const { return ""; }

 private:
  std::string name_;
};

/// Every peer of this build. `python` runs the SciPy peer; empty leaves it out.
[[nodiscard]] std::vector<std::unique_ptr<StepPeer>> make_step_peers(const StepCase& step,
                                                                     const std::string& python);
[[nodiscard]] std::unique_ptr<StepPeer> make_spdnn_step(const StepCase& step);
[[nodiscard]] std::unique_ptr<StepPeer> make_openblas_step(const StepCase& step);
[[nodiscard]] std::unique_ptr<StepPeer> make_onednn_step(const StepCase& step);
[[nodiscard]] std::unique_ptr<StepPeer> make_eigen_step(const StepCase& step);
[[nodiscard]] std::unique_ptr<StepPeer> make_scipy_step(const StepCase& step,
                                                        const std::string& python);

/// C = op(A)·op(B), row-major: rows × cols, over `inner`.
using Gemm = void (*)(bool transpose_a, bool transpose_b, std::int64_t rows, std::int64_t cols,
                      std::int64_t inner, const float* a, const float* b, float* c);
/// A dense step on masked weights by a library's matrix product.
[[nodiscard]] std::unique_ptr<StepPeer> make_dense_step(const StepCase& step, std::string name,
                                                        std::string about, Gemm gemm);

}  // namespace spdnn::bench
