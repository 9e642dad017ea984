// What a network costs to run, as far as rewrites change it.
#include "spdnn/compile.hpp"

namespace spdnn {

double seconds_per_image(const CostModel& cost, const Model& model) {
  double seconds = 0.0;
  for (const Layer& layer : model.layers) {
    const CsrView& w = std::get<SparseLinear>(layer).weights.view();
    seconds += static_cast<double>(w.nnz) * (w.shared_value ? cost.shared_entry : cost.own_entry) +
               static_cast<double>(w.rows) * cost.row;
  }
  return seconds;
}

}  // namespace spdnn
