// Trainings whose connections change in a GPU's memory, or where tests are built for the SIMT
// layer, in its: they go on as in the host's.
#include <gtest/gtest.h>

#include <cmath>
#include <memory>

#include "rewire.hpp"
#include "topology.hpp"
#include "train/device_patterns.hpp"
#include "train/images.hpp"
#include "train/on_gpu.hpp"

namespace spdnn::train {
namespace {

using test::bits_of;
using test::expect_arrays;
using test::on_each_gpu;

/// Layers of all kinds: one of few connections, a convolution, one with all connections there are,
/// one in which none is to change, and a dense one.
std::vector<TrainLayer> layers(std::mt19937_64& random) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const Epilogue relu = {0.0F, kInfinity};
  const Window2d window = {2, 5, 5, 3, 3, 1, 1, 1, 5, 5};
  std::vector<TrainLayer> all;
  all.push_back(conv_layer(window, test::random_pattern(3, 18, 0.4, random), relu));
  all.push_back(linear_layer(test::random_pattern(37, 75, 0.2, random), relu));
  all.push_back(linear_layer(test::random_pattern(9, 37, 1.1, random), relu));
  all.push_back(linear_layer(Pattern(11, 9, std::vector<std::int64_t>(12), {}), relu));
  all.push_back(linear_layer(test::random_pattern(20, 11, 0.3, random), relu));
  all.push_back(linear_layer(Pattern::dense(4, 20), {-kInfinity, kInfinity}));
  return all;
}

/// One rank's training with one way of rewiring.
struct Side {
  /// Values are off by up to `noise` of themselves.
  Side(const TrainSpec& spec, const std::vector<TrainLayer>& layers, Communicator& model,
       Device& device, float noise = 0.0F)
      : stream(device.make_stream()),
        worker(spec, layers,
               device.info().kind == DeviceKind::cuda ? *test::cuda_kernels<float>()
                                                      : train_kernels<float>().back(),
               model, device, *stream, 100) {
    worker.make_room(70);
    std::vector<LayerRows<float>> rows = first_rows(spec, layers, {});
    // Halves of drawn values that are equal are ties.
    for (float& value : rows[1].values[0]) value = std::round(8.0F * value) / 8.0F;
    std::mt19937_64 random(3);
    for (LayerRows<float>& of : rows) {
      for (float& value : of.values[0]) {
        value *= 1.0F + noise * static_cast<float>(random() % 1000) / 1000.0F;
      }
    }
    worker.load_whole(split_units(layers, {1.0}), std::move(rows));
  }

  /// Returns how many connections grew.
  std::int64_t step(const Panels<const float>& x, const std::vector<std::int32_t>& labels,
                    bool rewire, Communicator& data) {
    AnyBatchPass<float>::Visit visit;
    if (rewire && rewirer->needs_gradient()) {
      visit = [&](std::size_t layer, const AnyBatchPass<float>::GradientOn& gradient) {
        rewirer->observe(layer, gradient, 0.1);
      };
    }
    worker.pass().start(x, Loss::cross_entropy, labels.data(), 1.0F / 70.0F);
    worker.pass().backward(visit);
    static_cast<void>(worker.pass().finish_loss(nullptr));
    if (rewire) {
      worker.optimizer().skip_step();
      return rewirer->apply(0.1);
    }
    Network<float>& network = worker.network();
    if (data.size() > 1) {
      data.all_reduce(network.gradient(), network.gradient(), network.parameter_count(), DType::f32,
                      Reduction::sum, stream.get());
    }
    worker.optimizer().step();
    return 0;
  }

  std::unique_ptr<Stream> stream;
  Worker worker;
  std::unique_ptr<Rewirer> rewirer;
};

void expect_alike(Side& host, Side& there, std::size_t layer, const Device& device) {
  SCOPED_TRACE(testing::Message() << "layer " << layer);
  const LayerRows<float> expected = host.worker.rows(layer, host.worker.arrays());
  const LayerRows<float> got = there.worker.rows(layer, there.worker.arrays());
  EXPECT_EQ(got.pattern.row_offsets(), expected.pattern.row_offsets());
  EXPECT_EQ(got.pattern.col_indices(), expected.pattern.col_indices());
  ASSERT_EQ(got.values.size(), expected.values.size());
  for (std::size_t a = 0; a < got.values.size(); ++a) {
    EXPECT_EQ(bits_of(got.values[a]), bits_of(expected.values[a])) << "array " << a;
    EXPECT_EQ(bits_of(got.biases[a]), bits_of(expected.biases[a])) << "array " << a;
  }
  if (expected.pattern.is_dense()) return;
  expect_arrays(there.worker.network().view(layer).pattern, expected.pattern, device,
                *there.stream);
}

/// Some steps, some of which rewire: both sides are where the other is, whatever is asked when.
void compare(const TrainSpec& spec, const RewireRoom& room, int ranks) {
  run_ranks(ranks, [&](Communicator& comm) {
    const std::unique_ptr<Communicator> alone = comm.split(comm.rank(), 0);
    DeviceSpec gpu;
    gpu.kind = DeviceKind::cuda;
    const std::unique_ptr<Device> device = open_device(gpu);
    std::mt19937_64 random(8);
    const std::vector<TrainLayer> network = layers(random);
    Side host(spec, network, *alone, *device);
    Side there(spec, network, *alone, *device);
    host.rewirer = make_host_rewirer(spec, host.worker, comm);
    there.rewirer = make_device_rewirer(spec, there.worker, comm, room);
    std::mt19937_64 images(20 + static_cast<std::uint64_t>(comm.rank()));
    std::int64_t grown = 0;
    for (int step = 0; step < 9; ++step) {
      test::OwnedPanels<float> x(50, 70, test::kGpuWidth);
      test::fill_random(x, 0.0F, images);
      std::vector<std::int32_t> labels(70);
      for (std::int32_t& label : labels) label = static_cast<std::int32_t>(images() % 4);
      const bool rewire = step % 2 == 1;
      const std::int64_t expected = host.step(x.view, labels, rewire, comm);
      EXPECT_EQ(there.step(x.view, labels, rewire, comm), expected);
      grown += expected;
      for (std::size_t l = 0; l < network.size() && step != 3; ++l) {
        expect_alike(host, there, l, *device);
      }
    }
    EXPECT_GT(grown, 300);
    EXPECT_GT(there.rewirer->device_bytes(), 0);
    EXPECT_EQ(there.rewirer->host_bytes(), 0);
    EXPECT_EQ(there.worker.network().layers()[1].pattern.version(), 4);
    EXPECT_EQ(there.worker.network().layers()[3].pattern.version(), 0);  // nothing to change
  });
}

TrainSpec rewired(RewireMethod method, OptimizerKind optimizer, Precision stored) {
  TrainSpec spec;
  spec.layers.resize(6);
  spec.rewire = {method, 2, 0.4, 0.75};
  spec.optimizer.kind = optimizer;
  spec.optimizer.rate = 0.01;
  spec.precision = stored;
  return spec;
}

TEST(GpuRewire, TrainingsGoOnAsOnTheHost) {
  on_each_gpu([](Device& /*device*/, Stream& /*stream*/) {
    for (const RewireMethod method : {RewireMethod::set, RewireMethod::rigl}) {
      for (const OptimizerKind kind : {OptimizerKind::sgd, OptimizerKind::adam}) {
        SCOPED_TRACE(testing::Message() << static_cast<int>(method) << static_cast<int>(kind));
        compare(rewired(method, kind, Precision::fp32), {}, 1);
      }
    }
  });
}

/// Some rows of a gradient at a time, and too few draws at first.
TEST(GpuRewire, SmallRoomChangesNoBit) {
  on_each_gpu([](Device& /*device*/, Stream& /*stream*/) {
    for (const RewireMethod method : {RewireMethod::set, RewireMethod::rigl}) {
      for (const Precision stored : {Precision::fp32, Precision::bf16}) {
        compare(rewired(method, OptimizerKind::momentum, stored), {1, 0.05}, 1);
      }
    }
  });
}

TEST(GpuRewire, RanksThatShareABatchGrowTheSame) {
  on_each_gpu([](Device& /*device*/, Stream& /*stream*/) {
    for (const RewireMethod method : {RewireMethod::set, RewireMethod::rigl}) {
      compare(rewired(method, OptimizerKind::momentum, Precision::fp32), {1, 1.0}, 2);
    }
  });
}

/// Ranks whose values have drifted apart, as those of unlike devices do, grow the same connections:
/// the first one's.
TEST(GpuRewire, UnlikeDevicesGrowTheSame) {
  on_each_gpu([](Device& /*device*/, Stream& /*stream*/) {
    for (const RewireMethod method : {RewireMethod::set, RewireMethod::rigl}) {
      run_ranks(2, [&](Communicator& comm) {
        const std::unique_ptr<Communicator> alone = comm.split(comm.rank(), 0);
        DeviceSpec spec;
        if (comm.rank() == 1) spec.kind = DeviceKind::cuda;
        const std::unique_ptr<Device> device = open_device(spec);
        std::mt19937_64 random(8);
        const TrainSpec training = rewired(method, OptimizerKind::sgd, Precision::fp32);
        const std::vector<TrainLayer> network = layers(random);
        Side side(training, network, *alone, *device, 0.1F * static_cast<float>(comm.rank()));
        side.rewirer = make_rewirer(training, side.worker, comm);
        test::OwnedPanels<float> x(50, 70, panel_width(device->info()));
        test::fill_random(x, 0.0F, random);
        const std::vector<std::int32_t> labels(70, 1);
        EXPECT_GT(side.step(x.view, labels, true, comm), 50);
        for (std::size_t l = 0; l < network.size(); ++l) {
          const LayerRows<float> rows = side.worker.rows(l, side.worker.arrays());
          std::vector<std::int64_t> own(rows.pattern.col_indices().begin(),
                                        rows.pattern.col_indices().end());
          const std::vector<std::int64_t> counts(2, std::ssize(own));
          std::vector<std::int64_t> both(2 * own.size());
          comm.all_gather(own.data(), both.data(), counts, DType::i64, nullptr);
          EXPECT_TRUE(std::equal(own.begin(), own.end(), both.begin())) << "layer " << l;
          EXPECT_TRUE(std::equal(own.rbegin(), own.rend(), both.rbegin())) << "layer " << l;
        }
      });
    }
  });
}

}  // namespace
}  // namespace spdnn::train
