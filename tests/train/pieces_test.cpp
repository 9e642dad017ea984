// Batches that go through a network in pieces, beside each piece by itself.
#include "pieces.hpp"

#include <gtest/gtest.h>

#include "train/problems.hpp"

namespace spdnn::train {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::vector<TrainLayer> layers_of(const std::vector<std::int64_t>& widths) {
  std::mt19937_64 random(3);
  std::vector<TrainLayer> layers;
  for (std::size_t l = 0; l + 1 < widths.size(); ++l) {
    layers.push_back(linear_layer(test::layer_pattern(widths[l + 1], widths[l], 0.3, random),
                                  {0.0F, kInfinity}));
  }
  return layers;
}

DeviceInfo info_of(DeviceKind kind) {
  DeviceInfo info;
  info.kind = kind;
  return info;
}

TEST(Pieces, AreWholePanelsAndFewerOfWiderNetworks) {
  const TrainSpec spec;
  const DeviceInfo cpu = info_of(DeviceKind::cpu);
  const std::int64_t width = panel_width(cpu);
  std::int64_t before = std::numeric_limits<std::int64_t>::max();
  for (const std::int64_t neurons : {8, 64, 512, 4096, 65536}) {
    const std::int64_t images = images_at_once(spec, layers_of({16, 16, neurons, 4}), cpu);
    EXPECT_GE(images, width);
    EXPECT_EQ(images % width, 0);
    EXPECT_LE(images, before);
    before = images;
  }
  EXPECT_EQ(before, width);
}

TEST(Pieces, AreWholeBatchesWhereACacheIsNotThePoint) {
  const std::vector<TrainLayer> layers = layers_of({16, 4096, 4});
  const std::int64_t most = std::numeric_limits<std::int64_t>::max();
  TrainSpec spec;
  EXPECT_EQ(images_at_once(spec, layers, info_of(DeviceKind::cuda)), most);
  spec.rewire.method = RewireMethod::rigl;
  EXPECT_EQ(images_at_once(spec, layers, info_of(DeviceKind::cpu)), most);
}

/// A network, its images and labels.
struct Fixture {
  explicit Fixture(std::int64_t images)
      : device(open_device({})),
        stream(device->make_stream()),
        network(layers_of({13, 29, 5}), train_kernels<float>().front(), *device, *stream),
        x(13, images, panel_width(device->info())),
        labels(static_cast<std::size_t>(images)) {
    std::mt19937_64 random(5);
    network.initialize(5);
    std::fill(network.parameters() + network.value_count(),
              network.parameters() + network.parameter_count(), 0.1F);
    test::fill_random(x, 0.0F, random);
    for (std::int32_t& label : labels) label = static_cast<std::int32_t>(random() % 5);
  }
  [[nodiscard]] Batch batch() const { return {x.view, labels.data()}; }

  std::unique_ptr<Device> device;
  std::unique_ptr<Stream> stream;
  Network<float> network;
  test::OwnedPanels<float> x;
  std::vector<std::int32_t> labels;
};

/// What a pass leaves behind.
struct Found {
  std::vector<float> gradient;
  double loss = 0.0;
  std::vector<std::int32_t> predictions;
  std::vector<std::int64_t> pieces;
};

Found take(Fixture& f, const Batch& batch, std::int64_t at_once) {
  BatchPass<float> pass(f.network, std::min(batch.x.batch, at_once));
  PiecePass pieces(pass, at_once);
  Found found;
  const auto fetch = [&](const Batch& piece) {
    std::vector<std::int32_t> predictions(static_cast<std::size_t>(piece.x.batch));
    found.loss += pass.finish_loss(predictions.data());
    found.pieces.push_back(piece.x.batch);
    found.predictions.insert(found.predictions.end(), predictions.begin(), predictions.end());
  };
  fetch(pieces.run(pieces.pieces_of(batch), Loss::cross_entropy, 0.5F, fetch));
  found.gradient.assign(f.network.gradient(), f.network.gradient() + f.network.parameter_count());
  return found;
}

TEST(Pieces, GradientsAreTheSumOfThePieces) {
  constexpr std::int64_t kWidth = 32;
  for (const std::int64_t images : {1, 32, 33, 64, 100, 161}) {
    SCOPED_TRACE(images);
    Fixture f(images);
    const Found all = take(f, f.batch(), kWidth);
    Found sum;
    for (std::int64_t begin = 0; begin < images; begin += kWidth) {
      const Found piece = take(f, piece_of(f.batch(), begin, kWidth), kWidth);
      ASSERT_EQ(piece.pieces.size(), 1U);
      sum.pieces.push_back(piece.pieces.front());
      sum.loss += piece.loss;
      sum.predictions.insert(sum.predictions.end(), piece.predictions.begin(),
                             piece.predictions.end());
      if (begin == 0) {
        sum.gradient = piece.gradient;
        continue;
      }
      for (std::size_t i = 0; i < sum.gradient.size(); ++i) sum.gradient[i] += piece.gradient[i];
    }
    EXPECT_EQ(all.pieces, sum.pieces);
    EXPECT_EQ(all.loss, sum.loss);
    EXPECT_EQ(all.predictions, sum.predictions);
    EXPECT_EQ(all.gradient, sum.gradient);
  }
}

TEST(Pieces, LossesAndPredictionsAreThoseOfTheWholeBatch) {
  Fixture f(100);
  const Found whole = take(f, f.batch(), 128);
  const Found pieces = take(f, f.batch(), 32);
  EXPECT_EQ(whole.pieces, std::vector<std::int64_t>{100});
  EXPECT_EQ(whole.predictions, pieces.predictions);
  EXPECT_NEAR(whole.loss, pieces.loss, 1e-12 * whole.loss);
  float largest = 0.0F;
  for (const float g : whole.gradient) largest = std::max(largest, std::abs(g));
  for (std::size_t i = 0; i < whole.gradient.size(); ++i) {
    ASSERT_NEAR(whole.gradient[i], pieces.gradient[i], test::gamma<float>(102) * 100 * largest);
  }
}

TEST(Pieces, AnEmptyBatchHasNoGradient) {
  Fixture f(32);
  Batch none = f.batch();
  none.x.batch = 0;
  const Found found = take(f, none, 32);
  EXPECT_EQ(found.loss, 0.0);
  for (const float g : found.gradient) ASSERT_EQ(g, 0.0F);
}

}  // namespace
}  // namespace spdnn::train
