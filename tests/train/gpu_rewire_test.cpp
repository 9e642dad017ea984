// Connections changed in a GPU's memory, or where tests are built for the SIMT layer, in its: to
// the bits of the same change in the host's memory.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <numeric>

#include "host_view.hpp"
#include "rewire.hpp"
#include "topology.hpp"
#include "train/images.hpp"
#include "train/on_gpu.hpp"

namespace spdnn::train {
namespace {

using test::DeviceArray;
using test::on_each_gpu;

/// Numbers as bits, so that NaNs are equal and zeros are not.
std::vector<std::uint32_t> bits_of(const std::vector<float>& values) {
  std::vector<std::uint32_t> bits;
  for (const float value : values) bits.push_back(std::bit_cast<std::uint32_t>(value));
  return bits;
}

template <class T>
std::vector<T> read(const T* from, std::int64_t count, const Device& device, Stream& stream) {
  const HostView<T> view(from, count, device, stream);
  return {view.data(), view.data() + count};
}

/// The arrays that a device has of a pattern are those that the host makes of it.
void expect_arrays(const PatternView& got, const Pattern& pattern, const Device& device,
                   Stream& stream) {
  const PatternView expected = pattern.view();
  const auto expect = [&](auto member, std::int64_t count, const char* what) {
    EXPECT_EQ(read(got.*member, count, device, stream),
              std::vector(expected.*member, expected.*member + count))
        << what;
  };
  ASSERT_EQ(got.nnz, expected.nnz);
  expect(&PatternView::row_offsets, expected.rows + 1, "row offsets");
  expect(&PatternView::col_indices, expected.nnz, "columns");
  expect(&PatternView::col_offsets, expected.cols + 1, "column offsets");
  expect(&PatternView::row_indices, expected.nnz, "rows");
  expect(&PatternView::entries, expected.nnz, "entries");
}

enum class Numbers : std::uint8_t { unlike, few, odd };

/// Normal numbers; or two magnitudes and zeros; or such and what has no order.
std::vector<float> numbers(Numbers kind, std::int64_t count, std::mt19937_64& random) {
  std::vector<float> values = test::random_values<float>(count, random);
  if (kind == Numbers::unlike) return values;
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> few = {0.0F, -0.0F, 0.5F, -0.5F, 1.0F, -1.0F};
  const std::vector<float> odd = {kNan, -kNan, kInfinity, -kInfinity, 1e-42F, 0.5F, -0.5F, 0.0F};
  const std::vector<float>& some = kind == Numbers::few ? few : odd;
  for (float& value : values) value = some[random() % some.size()];
  return values;
}

/// A layer in a device's memory, and what is to become of it.
struct Case {
  Pattern pattern;
  std::int64_t count;
  Numbers kind;
};

std::vector<Case> cases(std::mt19937_64& random) {
  std::vector<Case> all;
  for (const auto& [rows, cols, density] :
       std::initializer_list<std::tuple<std::int64_t, std::int64_t, double>>{{1, 100, 0.2},
                                                                             {1, 33, 0.5},
                                                                             {64, 1, 0.4},
                                                                             {7, 5, 0.4},
                                                                             {50, 70, 0.03},
                                                                             {31, 257, 0.5},
                                                                             {129, 64, 0.2},
                                                                             {40, 100, 0.97}}) {
    for (const Numbers kind : {Numbers::unlike, Numbers::few, Numbers::odd}) {
      const Pattern pattern = test::random_pattern(rows, cols, density, random);
      const std::int64_t most = std::min(pattern.nnz(), (rows * cols - pattern.nnz()) / 2);
      for (const std::int64_t count : {std::int64_t{1}, most}) {
        if (count > 0) all.push_back({pattern, count, kind});
      }
    }
  }
  return all;
}

class ChangeOnGpu {
 public:
  ChangeOnGpu(const Case& of, Device& device, Stream& stream, std::mt19937_64& random)
      : case_(of), device_(device), stream_(stream), there_(of.pattern, device, stream) {
    for (int i = 0; i < 3; ++i) {
      arrays_.push_back(i == 0 ? numbers(of.kind, of.pattern.nnz(), random)
                               : test::random_values<float>(of.pattern.nnz(), random));
      copies_.push_back(std::make_unique<DeviceArray<float>>(arrays_.back(), device, stream));
    }
    args_.pattern = there_.arrays();
    args_.count = of.count;
  }

  [[nodiscard]] const std::vector<float>& values() const { return arrays_[0]; }

  /// Weighs `gradient` so many rows at a time.
  void grow_largest(const std::vector<float>& gradient, std::int64_t rows_at_once) {
    args_.places = rows_at_once * case_.pattern.cols();
    begin();
    for (std::int64_t row = 0; row < case_.pattern.rows(); row += rows_at_once) {
      const Range rows = {row, std::min(row + rows_at_once, case_.pattern.rows())};
      const std::int64_t first = row * case_.pattern.cols();
      const DeviceArray<float> part(
          {gradient.begin() + first, gradient.begin() + first + rows.size() * case_.pattern.cols()},
          device_, stream_);
      kernels_.weigh(args_, rows, part.data(), stream_);
      stream_.synchronize();
    }
  }

  /// How many places were found.
  std::int64_t draw(std::int64_t draws, const Random& random) {
    args_.draws = draws;
    begin();
    const DeviceArray<std::int64_t> found({-1}, device_, stream_);
    kernels_.draw(args_, random, found.data(), stream_);
    return found.read()[0];
  }

  void expect_change_to(const NextPattern& next) {
    std::vector<float*> arrays;
    for (const auto& copy : copies_) arrays.push_back(copy->data());
    kernels_.change(args_, arrays, stream_);
    const Pattern expected(case_.pattern.rows(), case_.pattern.cols(), next.row_offsets,
                           next.col_indices);
    expect_arrays(there_.view(), expected, device_, stream_);
    for (std::size_t a = 0; a < arrays_.size(); ++a) {
      std::vector<float> moved;
      for (const std::int64_t k : next.source) moved.push_back(k < 0 ? 0.0F : arrays_[a][k]);
      EXPECT_EQ(bits_of(copies_[a]->read()), bits_of(moved)) << "array " << a;
    }
  }

 private:
  void begin() {
    // Of no more bytes than were asked for: the address sanitizer sees the next one.
    workspace_ = device_.allocate(kernels_.workspace_bytes(args_));
    args_.workspace = workspace_.data();
    kernels_.drop(args_, copies_[0]->data(), stream_);
  }

  const Case& case_;
  Device& device_;
  Stream& stream_;
  DevicePattern there_;
  const RewireKernels& kernels_ = *rewire_kernels(DeviceKind::cuda);
  std::vector<std::vector<float>> arrays_;
  std::vector<std::unique_ptr<DeviceArray<float>>> copies_;
  Buffer workspace_;
  RewireArgs args_;
};

std::string name(const Case& of) {
  return fmt::format("{} × {}, {} of {}, numbers {}", of.pattern.rows(), of.pattern.cols(),
                     of.count, of.pattern.nnz(), static_cast<int>(of.kind));
}

TEST(GpuRewire, GrowsByGradientAsTheHost) {
  on_each_gpu([](Device& device, Stream& stream) {
    std::mt19937_64 random(5);
    for (const Case& of : cases(random)) {
      SCOPED_TRACE(name(of));
      const std::int64_t places = of.pattern.rows() * of.pattern.cols();
      const std::vector<float> gradient = numbers(of.kind, places, random);
      for (const std::int64_t rows_at_once : {of.pattern.rows() / 3 + 1, of.pattern.rows()}) {
        ChangeOnGpu change(of, device, stream, random);
        change.grow_largest(gradient, rows_at_once);
        std::vector<float> weighed = gradient;
        std::vector<float> scratch(gradient.size());
        change.expect_change_to(
            grow_largest(of.pattern, change.values().data(), of.count, weighed, scratch));
      }
    }
  });
}

TEST(GpuRewire, GrowsAtRandomAsTheHost) {
  on_each_gpu([](Device& device, Stream& stream) {
    std::mt19937_64 random(6);
    std::uint64_t number = 0;
    for (const Case& of : cases(random)) {
      SCOPED_TRACE(name(of));
      ChangeOnGpu change(of, device, stream, random);
      const Random draws(11, ++number);
      const std::int64_t places = of.pattern.rows() * of.pattern.cols();
      if (of.count > 1) {
        EXPECT_LT(change.draw(of.count - 1, draws), of.count);
      }
      EXPECT_EQ(change.draw(4 * places + 100, draws), of.count);
      change.expect_change_to(
          grow_random(of.pattern, change.values().data(), of.count, 11, number));
    }
  });
}

/// More keys than there are chunks for each thread to sum, all digits of them, and many ties.
TEST(GpuRewire, ManyConnectionsAsOnTheHost) {
  on_each_gpu([](Device& device, Stream& stream) {
    std::mt19937_64 random(7);
    for (const Numbers kind : {Numbers::unlike, Numbers::few}) {
      const Case of = {test::random_pattern(600, 500, 0.2, random), 17000, kind};
      const std::vector<float> gradient = numbers(kind, 600 * 500, random);
      ChangeOnGpu change(of, device, stream, random);
      change.grow_largest(gradient, 550);
      std::vector<float> weighed = gradient;
      std::vector<float> scratch(gradient.size());
      change.expect_change_to(
          grow_largest(of.pattern, change.values().data(), of.count, weighed, scratch));
    }
  });
}

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
  const LayerRows<float> expected = host.worker.rows(layer);
  const LayerRows<float> got = there.worker.rows(layer);
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
          const LayerRows<float> rows = side.worker.rows(l);
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
