// What a network costs to run, as far as rewrites change it.
#include "spdnn/compile.hpp"

namespace spdnn {

double seconds_per_image(const CostModel& cost, const Model& model) {
  double seconds = 0.0;
  for (const Layer& layer : model.layers) {
    const CsrView& w = layer_weights(layer).view();
    seconds += static_cast<double>(layer_edges(layer)) *
                   (w.shared_value ? cost.shared_entry : cost.own_entry) +
               static_cast<double>(layer_outputs(layer)) * cost.row;
  }
  return seconds;
}

}  // namespace spdnn
