// A model and its input reduced to what the planner needs.
#include <algorithm>

#include "spdnn/plan.hpp"

namespace spdnn {

std::string_view to_string(Strategy strategy) {
  switch (strategy) {
    case Strategy::automatic: return "auto";
    case Strategy::data: return "data";
    case Strategy::model: return "model";
    case Strategy::data_then_model: return "data_then_model";
    case Strategy::task_manager: return "task_manager";
    case Strategy::task_stealing: return "task_stealing";
    case Strategy::grid: return "grid";
  }
  return "unknown";
}

SpmmShape layer_shape(const Layer& layer) {
  SpmmShape shape = shape_of(layer_weights(layer).view(), 0, 0);
  shape.kind = layer_kind(layer);
  shape.window = layer_window(layer);
  if (std::holds_alternative<Pool2d>(layer)) shape.rows = shape.window.channels;
  return shape;
}

ModelStats stats_of(const Model& model, const Csr& images) {
  ModelStats stats;
  stats.images = images.rows();
  stats.max_features = model.inputs();
  for (const Layer& layer : model.layers) {
    stats.layers.push_back({layer_shape(layer), layer_weights(layer).view().bytes()});
    stats.max_features = std::max(stats.max_features, layer_outputs(layer));
  }
  if (images.rows() > 0) {
    stats.input_bytes_per_image =
        static_cast<double>(images.view().bytes()) / static_cast<double>(images.rows());
  }
  return stats;
}

}  // namespace spdnn
