// One rank's forward pass: its share of the images through all layers, in batches and segments.
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "spdnn/run.hpp"

namespace spdnn {

class SharedForms;

/// What all ranks of a run share.
struct PassContext {
  const Model* model = nullptr;
  const Csr* images = nullptr;  ///< [images × inputs], the ones really run
  const Plan* plan = nullptr;
  std::int64_t dead_from = 0;   ///< `dead_stays_dead_from`
  std::int64_t keep_first = 0;  ///< outputs are kept of the first so many of a rank's survivors
  const std::vector<std::int64_t>* keep_ids = nullptr;  ///< and of these images, ascending
  Progress* progress = nullptr;
  SharedForms* forms = nullptr;
};

struct PassResult {
  std::vector<std::int64_t> ids;                       ///< images with a nonzero output, ascending
  std::map<std::int64_t, std::vector<float>> outputs;  ///< of those among them that are kept
  std::vector<std::int64_t> images_per_layer;          ///< images each layer was computed for
  double busy_s = 0.0;
};

/// Drives one device. Used from the thread that opened the device.
class Pass {
 public:
  Pass(const PassContext& context, int rank, Device& device, double slowdown);
  ~Pass();
  /// Allocates memory and brings resident weights and biases to the device.
  void prepare();
  /// Runs the rank's images and waits for the result.
  [[nodiscard]] PassResult run();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace spdnn
