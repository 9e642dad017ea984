// Layers split by their units: each part gives the bits of its features of the whole.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <limits>

#include "spdnn/model.hpp"
#include "train/problems.hpp"

namespace spdnn {
namespace {

using test::OwnedPanels;
using train::TrainLayer;

constexpr Epilogue kRelu = {0.0F, std::numeric_limits<float>::infinity()};

std::vector<TrainLayer> layers(std::mt19937_64& random) {
  const Window2d planes = make_window(5, 7, 6, 3, 2, {});
  const Window2d pooled = make_window(9, 6, 7, 2, 2, 0);
  return {train::linear_layer(test::random_pattern(21, 33, 0.3, random), kRelu),
          train::linear_layer(train::Pattern::dense(21, 33), kRelu),
          train::conv_layer(planes, test::random_pattern(13, 45, 0.3, random), kRelu),
          train::conv_layer(planes, train::Pattern::dense(13, 45), kRelu),
          train::pool_layer(pooled, LayerKind::max_pool),
          train::pool_layer(pooled, LayerKind::average_pool)};
}

/// The features of `range` alone.
std::unique_ptr<OwnedPanels<float>> features_of(const Panels<const float>& x, Range range) {
  auto part = std::make_unique<OwnedPanels<float>>(range.size(), x.batch, x.width);
  for (std::int64_t p = 0; p < x.count(); ++p) {
    std::copy_n(x.panel(p) + range.begin * x.width, range.size() * x.width, part->view.panel(p));
  }
  return part;
}

TEST(TrainLayer, PartsGiveTheBitsOfTheWhole) {
  std::mt19937_64 random(23);
  const std::unique_ptr<Device> device = open_device({});
  const auto stream = device->make_stream();
  for (const TrainKernels<float>& kernels : train_kernels<float>()) {
    if (kernels.device != DeviceKind::cpu) continue;
    for (const TrainLayer& layer : layers(random)) {
      SCOPED_TRACE(fmt::format("{}: kind {}", kernels.name, layer.form.index()));
      const auto values = test::random_values<float>(layer.pattern.nnz(), random);
      const auto bias = test::random_values<float>(layer.units(), random);
      OwnedPanels<float> x(layer.inputs(), 37, panel_width(device->info()));
      test::fill_random(x, 0.0F, random);
      OwnedPanels<float> whole(layer.outputs(), 37, x.view.width);
      train::forward(layer, kernels, {layer.pattern.view(), values.data(), bias.data()},
                     Panels<const float>(x.view), whole.view, *stream);
      std::int64_t value = 0;
      for (const Range units : {Range{0, 4}, Range{4, 4}, Range{4, 5}, Range{5, layer.units()}}) {
        const TrainLayer part = layer.slice(units);
        EXPECT_EQ(part.units(), units.size());
        const std::int64_t per_unit = layer.features_per_unit();
        const bool pool = part.pattern.rows() == 0 && units.size() > 0;
        const std::int64_t in_plane = layer.inputs() / layer.units();
        const auto own =
            features_of(x.view, pool ? Range{units.begin * in_plane, units.end * in_plane}
                                     : Range{0, layer.inputs()});
        OwnedPanels<float> y(part.outputs(), 37, x.view.width);
        train::forward(part, kernels,
                       {part.pattern.view(), values.data() + value, bias.data() + units.begin},
                       Panels<const float>(own->view), y.view, *stream);
        EXPECT_EQ(y.data,
                  features_of(whole.view, {units.begin * per_unit, units.end * per_unit})->data);
        value += part.pattern.nnz();
      }
    }
  }
}

}  // namespace
}  // namespace spdnn
