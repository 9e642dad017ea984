// One convolution forward and backward, the same for all: Y = max(W∗X + b, 0), dX, dW and db from a
// given dZ. Each library behind one call.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "spdnn/train_op.hpp"

namespace spdnn::bench {

/// A layer and a batch. Activations are `[image][channel][height][width]`, filters
/// `[filter][channel][height][width]` with zeros where the pattern has no weight.
struct ConvCase {
  std::string name;
  Window2d window;
  std::int64_t filters = 0, batch = 0;
  double sparsity = 0.0;
  int threads = 1;
  std::vector<float> weights, bias, x, dz;
};
[[nodiscard]] ConvCase make_conv_case(std::string name, const Window2d& window,
                                      std::int64_t filters, std::int64_t batch, double sparsity,
                                      int threads);

/// What a peer computed, in the case's layouts; dX is masked where x ≤ 0, dW where W is 0.
struct ConvOutputs {
  std::vector<float> y, dx, dweights, dbias;
};

class ConvPeer {
 public:
  explicit ConvPeer(std::string name) : name_(std::move(name)) {}
  ConvPeer(const ConvPeer&) = delete;
  ConvPeer& operator=(const ConvPeer&) = delete;
  virtual ~ConvPeer() = default;
  [[nodiscard]] const std::string& name() const { return name_; }
  /// Forward, dX, dW and db once, with data in the peer's own layout before and after.
  virtual void step() = 0;
  [[nodiscard]] virtual ConvOutputs outputs() const = 0;

 private:
  std::string name_;
};

/// This project's sparse kernels, or its dense ones on filters that are full.
[[nodiscard]] std::unique_ptr<ConvPeer> make_spdnn_conv(const ConvCase& conv, bool dense);
/// oneDNN's dense convolution in the layouts it asks for; null in a build without it.
[[nodiscard]] std::unique_ptr<ConvPeer> make_onednn_conv(const ConvCase& conv);

}  // namespace spdnn::bench
