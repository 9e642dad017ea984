// SpMM: every kernel of the table × devices × shapes, within the float64 bound; canonical kernels
// bit for bit. A new kernel is tested by being listed.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "kernels/targets.hpp"
#include "support/networks.hpp"

namespace spdnn {
namespace {

using test::MatrixSpec;
using test::Rows;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kUntouched = -77.0F;

struct Case {
  MatrixSpec matrix;
  std::int64_t batch = 0;
  Epilogue epilogue;
  bool vector_bias = false;
  std::int64_t live = -1;  ///< images really there; −1 for all, with no device-side count
};

std::string name_of(const Case& c) {
  return fmt::format("{}x{} row {} pattern {} shared {} batch {} live {} h [{}, {}] bias {}",
                     c.matrix.rows, c.matrix.cols, c.matrix.row_nnz,
                     static_cast<int>(c.matrix.pattern), c.matrix.shared_value, c.batch, c.live,
                     c.epilogue.lower, c.epilogue.upper, c.vector_bias ? "each" : "one");
}

std::vector<Case> cases() {
  std::vector<Case> all;
  const Epilogue relu = {0.0F, kInfinity};
  const Epilogue clipped = {0.0F, 0.75F};
  const Epilogue identity = {-kInfinity, kInfinity};
  for (const std::int64_t batch : {0, 1, 31, 32, 33, 64, 97, 257}) {
    all.push_back({{37, 41, 7, Rows::irregular, false}, batch, relu, true, -1});
    all.push_back({{64, 64, 32, Rows::equal, true}, batch, clipped, false, -1});
  }
  for (const std::int64_t rows : {0, 1, 31, 32, 33, 101, 513}) {
    for (const Rows pattern : {Rows::equal, Rows::irregular, Rows::one_dense, Rows::empty}) {
      all.push_back({{rows, 67, 13, pattern, false}, 70, identity, true, -1});
      all.push_back({{rows, 33, 9, pattern, true}, 70, clipped, false, 45});
    }
  }
  all.push_back({{5, 0, 0, Rows::empty, false}, 40, relu, true, -1});
  all.push_back({{3, 1, 1, Rows::equal, false}, 40, relu, true, 0});
  all.push_back({{9, 70001, 40, Rows::irregular, false}, 33, relu, true, -1});  // 32-bit columns
  all.push_back({{7, 70001, 40, Rows::equal, true}, 33, relu, false, 32});
  // A bound of −0: outputs that are zeros of either sign are no sign of life.
  all.push_back({{64, 64, 5, Rows::irregular, false}, 33, {-0.0F, kInfinity}, false, -1});
  all.push_back({{1031, 1033, 64, Rows::irregular, false}, 130, clipped, true, 129});
  for (const std::int64_t rows : {17, 64, 300}) {
    all.push_back({{rows, 130, 70, Rows::grouped, false}, 97, relu, true, -1});
    all.push_back({{rows, 130, 33, Rows::grouped, true}, 97, clipped, true, 64});
  }
  return all;
}

/// Holds the outputs of one case, laid out as panels, against exact arithmetic.
void check(const Case& c, const CsrView& w, const std::vector<float>& bias,
           const SpmmKernel<float>& kernel, const Panels<const float>& x,
           const Panels<const float>& y, const std::vector<std::uint8_t>& alive) {
  const std::int64_t live = c.live < 0 ? c.batch : c.live;
  for (std::int64_t image = 0; image < live; ++image) {
    bool any = false;
    for (std::int64_t row = 0; row < w.rows; ++row) {
      const float b = bias[bias.size() == 1 ? 0 : row];
      const auto e = test::expected_output(w, row, b, c.epilogue,
                                           [&](std::int64_t col) { return x.at(col, image); });
      const float got = y.at(row, image);
      any = any || got != 0.0F;
      ASSERT_LE(std::abs(static_cast<double>(got) - e.exact),
                e.bound + product_error(kernel.precision) * e.magnitude)
          << "row " << row << " image " << image;
      if (kernel.order == Order::canonical) {
        ASSERT_EQ(got, e.canonical) << "row " << row << " image " << image;
      }
    }
    ASSERT_EQ(alive[image], any ? 1 : 0) << "image " << image;
  }
  const std::int64_t width = y.width;
  for (std::int64_t p = (live + width - 1) / width; p < y.count(); ++p) {
    for (std::int64_t i = 0; i < w.rows * width; ++i) {
      ASSERT_EQ(y.panel(p)[i], kUntouched) << "a panel past the living images was written";
    }
  }
}

void run_case(const Case& c, const SpmmKernel<float>& kernel, Device& device, Stream& stream,
              std::mt19937_64& random) {
  const Csr weights = test::random_csr(c.matrix, random);
  const CsrView& w = weights.view();
  const std::int64_t width = panel_width(device.info());
  SpmmShape shape = shape_of(w, c.batch, width);
  shape.precision = kernel.precision;
  if (kernel.declines(shape, device.info())) return;
  Panels<float> x = {nullptr, w.cols, c.batch, width, nullptr};
  Panels<float> y = {nullptr, w.rows, c.batch, width, nullptr};
  std::vector<float> x_host = test::random_floats(static_cast<std::size_t>(x.size()), random);
  for (std::int64_t f = 0; f < w.cols && c.batch > 2; ++f) {
    Panels<float>{x_host.data(), w.cols, c.batch, width, nullptr}.at(f, 2) = 0.0F;  // a dead image
  }
  const std::vector<float> bias =
      c.vector_bias
          ? test::random_floats(static_cast<std::size_t>(std::max<std::int64_t>(w.rows, 1)), random)
          : std::vector<float>{-0.25F};
  const test::DeviceArray<float> x_device(x_host, device, stream);
  const test::DeviceArray<float> y_device(
      std::vector<float>(static_cast<std::size_t>(y.size()), kUntouched), device, stream);
  const test::DeviceArray<float> bias_device(bias, device, stream);
  const test::DeviceArray<std::uint8_t> alive_device(
      std::vector<std::uint8_t>(static_cast<std::size_t>(y.count() * width), 9), device, stream);
  const test::DeviceArray<std::int32_t> live_device({static_cast<std::int32_t>(c.live)}, device,
                                                    stream);
  x.data = x_device.data();
  y.data = y_device.data();
  if (c.live >= 0) x.live = y.live = live_device.data();
  const PreparedWeights prepared = kernel.prepare(w, device, stream);
  kernel.run({&prepared,
              {bias_device.data(), c.vector_bias ? 1 : 0},
              c.epilogue,
              x,
              y,
              alive_device.data()},
             stream);
  stream.synchronize();
  const std::vector<float> y_host = y_device.read();
  x.data = x_host.data();
  check(c, w, bias, kernel, x, {y_host.data(), w.rows, c.batch, width, nullptr},
        alive_device.read());
}

TEST(Spmm, EveryKernelOnEveryShapeIsWithinTheFloat64Bound) {
  test::for_each_device([](Device& device, Stream& stream) {
    for (const SpmmKernel<float>& kernel : spmm_kernels<float>()) {
      if (kernel.device != device.info().kind) continue;
      std::uint64_t seed = 1;
      for (const Case& c : cases()) {
        SCOPED_TRACE(fmt::format("{}, seed {}: {}", kernel.name, seed, name_of(c)));
        std::mt19937_64 random(seed++);
        run_case(c, kernel, device, stream, random);
        if (testing::Test::HasFatalFailure()) return;
      }
    }
  });
}

/// A kernel that computes shares of the rows tells which rows they are.
TEST(Spmm, SharesAreTheRowsThatTheirKernelTells) {
  const std::unique_ptr<Device> device = open_device({});
  const std::unique_ptr<Stream> stream = device->make_stream();
  const std::int64_t width = panel_width(device->info());
  std::mt19937_64 random(11);
  for (const SpmmKernel<float>& kernel : spmm_kernels<float>()) {
    if (kernel.device != DeviceKind::cpu) continue;
    for (const Case& c : cases()) {
      SCOPED_TRACE(fmt::format("{}, {}", kernel.name, name_of(c)));
      const Csr w = test::random_csr(c.matrix, random);
      if (kernel.declines(shape_of(w.view(), 3, width), device->info())) continue;
      const PreparedWeights prepared = kernel.prepare(w.view(), *device, *stream);
      const Panels<const float> shape = {nullptr, w.cols(), 3, width, nullptr};
      const std::vector<float> x(static_cast<std::size_t>(shape.size()), 1.0F);
      std::vector<int> told(static_cast<std::size_t>(w.rows()));
      for (const RowShare& share : {RowShare{0, 3, 10}, RowShare{3, 3, 10}, RowShare{3, 10, 10}}) {
        std::vector<float> y(static_cast<std::size_t>(w.rows() * width), kUntouched);
        const float bias = 1.0F;
        SpmmArgs<float> args = {&prepared,
                                {&bias, 0},
                                c.epilogue,
                                {x.data(), w.cols(), 3, width, nullptr},
                                {y.data(), w.rows(), 3, width, nullptr}};
        args.rows = share;
        kernel.run(args, *stream);
        std::vector<bool> listed(told.size());
        const auto list = [&](std::size_t row) { listed[row] = true, ++told[row]; };
        if (kernel.rows_of != nullptr) {
          for (const std::uint32_t row : kernel.rows_of(prepared, share)) list(row);
        } else {
          for (std::int64_t row = w.rows() * share.begin / share.of;
               row < w.rows() * share.end / share.of; ++row) {
            list(static_cast<std::size_t>(row));
          }
        }
        for (std::size_t row = 0; row < told.size(); ++row) {
          ASSERT_EQ(y[row * static_cast<std::size_t>(width)] != kUntouched, listed[row]);
        }
      }
      EXPECT_EQ(std::count(told.begin(), told.end(), 1), w.rows());
    }
  }
}

TEST(Spmm, LowerPrecisionIsOnlyUsedWhereItIsAllowed) {
  std::mt19937_64 random(1);
  const Csr w = test::random_csr({64, 64, 32, Rows::equal, false}, random);
  for (const SpmmKernel<float>& kernel : spmm_kernels<float>()) {
    DeviceInfo device;
    device.kind = kernel.device;
    device.shared_bytes = device.memory_bytes = 1 << 30;
    const auto reason = kernel.declines(shape_of(w.view(), 64, panel_width(device)), device);
    if (kernel.precision != Precision::fp32) {
      ASSERT_TRUE(reason.has_value()) << kernel.name;
      EXPECT_NE(reason->find("precision"), std::string::npos) << *reason;
    }
  }
}

TEST(Spmm, EveryDeviceHasAKernelThatDeclinesNothing) {
  test::for_each_device([](Device& device, Stream& /*stream*/) {
    for (const Case& c : cases()) {
      std::mt19937_64 random(1);
      const Csr w = test::random_csr(c.matrix, random);
      const SpmmShape shape = shape_of(w.view(), c.batch, panel_width(device.info()));
      bool accepted = false;
      for (const SpmmKernel<float>& kernel : spmm_kernels<float>()) {
        accepted = accepted ||
                   (kernel.device == device.info().kind && !kernel.declines(shape, device.info()));
      }
      EXPECT_TRUE(accepted) << name_of(c);
    }
  });
}

TEST(ShapeOf, TellsWhatTheDataAllow) {
  std::mt19937_64 random(3);
  const SpmmShape even =
      shape_of(test::random_csr({6, 9, 4, Rows::equal, true}, random).view(), 5, 32);
  EXPECT_TRUE(even.equal_rows);
  EXPECT_TRUE(even.shared_value);
  EXPECT_EQ(even.max_row_nnz, 4);
  const SpmmShape dense =
      shape_of(test::random_csr({6, 9, 4, Rows::one_dense, false}, random).view(), 5, 32);
  EXPECT_FALSE(dense.equal_rows);
  EXPECT_EQ(dense.max_row_nnz, 9);
}

}  // namespace
}  // namespace spdnn
