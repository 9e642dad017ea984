// The check of a run's outputs against plain serial-order arithmetic, image by image.
#pragma once

#include <atomic>
#include <map>
#include <vector>

#include "spdnn/run.hpp"

namespace spdnn {

struct SampleRequest {
  const Model* model = nullptr;
  const Csr* images = nullptr;
  std::vector<std::int64_t> ids;  ///< images to check
  /// What the run says: outputs of the images among `ids` that live; the others are all zero.
  const std::map<std::int64_t, std::vector<float>>* outputs = nullptr;
  bool canonical = true;                      ///< every kernel of the run declares canonical order
  Precision precision = Precision::fp32;      ///< the least that kernels may have multiplied in
  bool release_weights = false;               ///< give a layer's pages back after use
  const std::atomic<bool>* cancel = nullptr;  ///< set it to end the check after a layer
};

struct SampleOutcome {
  SampleCheck check;
  std::vector<std::string> failures;  ///< what differs, image by image (the first few)
};

/// Runs `ids` through the model twice, as one fp32 FMA chain for each output (canonical order) and
/// in float64 throughout. A canonical run must give the fp32 chain's outputs exactly; another order
/// must stay within 1e-3 of the float64 outputs (0.05 in tf32 and bf16), relative to the largest
/// of them and at least absolute. Throws `CommError` when cancelled.
[[nodiscard]] SampleOutcome check_sample(const SampleRequest& request);

}  // namespace spdnn
