// Trainings whose connections change in a GPU's memory, or where tests are built for the SIMT
// layer, in its: they go on as in the host's.
#include <gtest/gtest.h>

#include <memory>

#include "train/device_patterns.hpp"
#include "train/on_gpu.hpp"
#include "train/rewired_side.hpp"

namespace spdnn::train {
namespace {

using test::expect_arrays;
using test::on_each_gpu;
using test::rewired;
using test::RewiredSide;

void expect_alike(RewiredSide& host, RewiredSide& there, std::size_t layer, const Device& device) {
  SCOPED_TRACE(testing::Message() << "layer " << layer);
  test::expect_same_rows(there, host, layer);
  const Pattern expected = host.worker.rows(layer, 0).pattern;
  if (expected.is_dense()) return;
  expect_arrays(there.worker.network().view(layer).pattern, expected, device, *there.stream);
}

/// A device that counts how often memory is asked for.
class CountingDevice final : public Device {
 public:
  explicit CountingDevice(const DeviceSpec& spec) : device_(open_device(spec)) {}
  [[nodiscard]] const DeviceInfo& info() const override { return device_->info(); }
  [[nodiscard]] std::unique_ptr<Stream> make_stream() override { return device_->make_stream(); }
  [[nodiscard]] Buffer allocate(std::size_t bytes) override {
    ++allocations;
    return device_->allocate(bytes);
  }
  [[nodiscard]] Buffer allocate_host(std::size_t bytes) override {
    return device_->allocate_host(bytes);
  }
  [[nodiscard]] std::int64_t peak_bytes() const override { return device_->peak_bytes(); }
  [[nodiscard]] std::int64_t free_bytes() const override { return device_->free_bytes(); }

  std::int64_t allocations = 0;

 private:
  std::unique_ptr<Device> device_;
};

/// Some steps, some of which rewire: both sides are where the other is, whatever is asked when.
void compare(const TrainSpec& spec, const RewireRoom& room, int ranks) {
  run_ranks(ranks, [&](Communicator& comm) {
    const std::unique_ptr<Communicator> alone = comm.split(comm.rank(), 0);
    DeviceSpec gpu;
    gpu.kind = DeviceKind::cuda;
    const std::unique_ptr<Device> device = open_device(gpu);
    CountingDevice counting(gpu);
    std::mt19937_64 random(8);
    const std::vector<TrainLayer> network = test::layers_of_all_kinds(random);
    RewiredSide host(spec, network, *alone, *device);
    RewiredSide there(spec, network, *alone, counting);
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
      const std::int64_t before = counting.allocations;
      EXPECT_EQ(there.step(x.view, labels, rewire, comm), expected);
      // Luck may ask for more draws.
      if (step > 1 && room.draws == 1.0) {
        EXPECT_EQ(counting.allocations, before);
      }
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
        const std::vector<TrainLayer> network = test::layers_of_all_kinds(random);
        RewiredSide side(training, network, *alone, *device,
                         0.1F * static_cast<float>(comm.rank()));
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
