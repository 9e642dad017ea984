// The CUDA convolution's and pooling's device code on the SIMT layer: windows × filters × chunks of
// channels × schedules, bit for bit against one chain an output.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>
#include <random>

#include "cuda/conv_tile.cuh"
#include "cuda/dispatch.hpp"
#include "spdnn/model.hpp"

namespace spdnn {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kUntouched = -77.0F;
constexpr std::int64_t kWidth = 64;

struct Case {
  Window2d window;
  std::int64_t filters;
  double density;
  std::int64_t batch, live;
  std::int64_t most_inputs;  ///< of a chunk
  bool shared_value = false, wide_index = false;
};

std::vector<Case> cases() {
  std::vector<Case> all;
  const std::array<Window2d, 10> windows = {
      make_window(3, 8, 8, 3, 1, {}), make_window(2, 7, 9, 3, 1, 0),
      make_window(3, 9, 6, 3, 2, {}), make_window(1, 11, 10, 5, 3, 2),
      make_window(7, 5, 5, 1, 1, 0),  make_window(2, 6, 7, 1, 2, 0),
      make_window(2, 7, 7, 2, 3, 1),  make_window(5, 4, 4, 3, 1, {}),
      make_window(2, 1, 1, 3, 1, {}), make_window(2, 9, 12, 3, 2, {})};
  for (const Window2d& window : windows) {
    for (const std::int64_t most : {1, 90, 100'000}) {
      all.push_back({window, 5, 0.4, 70, -1, most, most == 90, most == 1});
    }
  }
  const Window2d window = windows[0];
  for (const std::int64_t filters : {1, 2, 15, 16, 17, 33}) {
    all.push_back({window, filters, 0.2, 66, 65, 50});
  }
  for (const std::int64_t live : {0, 1, 64, 65}) all.push_back({window, 3, 1.0, 128, live, 80});
  all.push_back({window, 3, 0.0, 70, -1, 80});           // no connection at all
  all.push_back({windows[7], 4, 1.0, 66, -1, 100'000});  // more entries than a warp has lanes
  return all;
}

std::string name_of(const Case& c) {
  return fmt::format("{}x{}x{} by {}x{}/{} to {}x{}x{} density {} batch {} live {} inputs {}",
                     c.window.channels, c.window.in_height, c.window.in_width,
                     c.window.kernel_height, c.window.kernel_width, c.window.stride, c.filters,
                     c.window.out_height, c.window.out_width, c.density, c.batch, c.live,
                     c.most_inputs);
}

class Problem {
 public:
  Problem(const Case& c, std::uint64_t seed) : case_(c), random_(seed) {
    const std::int64_t cols = c.window.channels * c.window.taps();
    std::vector<std::int64_t> offsets = {0};
    std::vector<std::uint32_t> indices;
    std::vector<float> values;
    for (std::int64_t row = 0; row < c.filters; ++row) {
      for (std::int64_t col = 0; col < cols; ++col) {
        if (uniform() >= c.density) continue;
        indices.push_back(static_cast<std::uint32_t>(col));
        values.push_back(c.shared_value ? 0.75F : number());
      }
      offsets.push_back(std::ssize(indices));
    }
    wide_ = indices;
    weights_ = make_csr(c.filters, cols, std::move(offsets), std::move(indices), std::move(values));
    csr_ = weights_.view();
    if (c.wide_index) {
      csr_.col_indices = wide_.data();
      csr_.index_type = DType::u32;
    }
    x_.resize(static_cast<std::size_t>(panels() * c.window.inputs() * kWidth));
    for (std::size_t i = 0; i < x_.size(); ++i) x_[i] = i % kWidth == 2 ? 0.0F : number();
    bias_ = {c.live % 2 == 0 ? -0.25F : 0.0F};
    live_ = static_cast<std::int32_t>(c.live);
  }

  [[nodiscard]] std::int64_t panels() const { return (case_.batch + kWidth - 1) / kWidth; }
  [[nodiscard]] std::int64_t images() const {
    return case_.live < 0 ? case_.batch : std::min(case_.live, case_.batch);
  }
  [[nodiscard]] unsigned grid() { return 1 + static_cast<unsigned>(random_() % 5); }
  [[nodiscard]] const CsrView& csr() const { return csr_; }

  /// `units`: filters, or channels of a pooling.
  cuda::SpmmKernelArgs arguments(std::int64_t units) {
    const std::int64_t outputs = units * case_.window.out_pixels();
    y_.assign(static_cast<std::size_t>(panels() * outputs * kWidth), kUntouched);
    alive_.assign(static_cast<std::size_t>(case_.batch), 0);
    const std::int32_t* live = case_.live < 0 ? nullptr : &live_;
    return {csr_,
            {bias_.data(), 0},
            {0.0F, kInfinity},
            {x_.data(), case_.window.inputs(), case_.batch, kWidth, live},
            {y_.data(), outputs, case_.batch, kWidth, live},
            alive_.data()};
  }

  /// `expected(unit, oy, ox, image)` for every output of every living image.
  template <class Expected>
  void check(std::int64_t units, const Expected& expected) const {
    const Window2d& w = case_.window;
    const Panels<const float> y{y_.data(), units * w.out_pixels(), case_.batch, kWidth, nullptr};
    for (std::int64_t image = 0; image < images(); ++image) {
      bool any = false;
      for (std::int64_t f = 0; f < y.features; ++f) {
        const std::int64_t pixel = f % w.out_pixels();
        const float wanted =
            expected(f / w.out_pixels(), pixel / w.out_width, pixel % w.out_width, image);
        ASSERT_EQ(y.at(f, image), wanted) << "output " << f << " image " << image;
        any = any || wanted != 0.0F;
      }
      ASSERT_EQ(alive_[image], any ? 1 : 0) << "image " << image;
    }
    for (std::int64_t i = images(); i < case_.batch; ++i) ASSERT_EQ(alive_[i], 0) << "image " << i;
    for (std::int64_t p = (images() + kWidth - 1) / kWidth; p < panels(); ++p) {
      for (std::int64_t k = 0; k < y.features * kWidth; ++k) {
        ASSERT_EQ(y.panel(p)[k], kUntouched) << "a panel past the living images was written";
      }
    }
  }

  /// Calls `visit(x)` for what tap (ky, kx) meets in a channel, where that is inside.
  template <class Visit>
  void for_input(std::int64_t channel, std::int64_t oy, std::int64_t ox, std::int64_t tap,
                 std::int64_t image, const Visit& visit) const {
    const Window2d& w = case_.window;
    const std::int64_t y = oy * w.stride + tap / w.kernel_width - w.pad_top;
    const std::int64_t x = ox * w.stride + tap % w.kernel_width - w.pad_left;
    if (y < 0 || y >= w.in_height || x < 0 || x >= w.in_width) return;
    const Panels<const float> in{x_.data(), w.inputs(), case_.batch, kWidth, nullptr};
    visit(in.at((channel * w.in_height + y) * w.in_width + x, image));
  }

  [[nodiscard]] float convolved(std::int64_t row, std::int64_t oy, std::int64_t ox,
                                std::int64_t image) const {
    float sum = 0.0F;
    for (std::int64_t k = csr_.row_begin(row); k < csr_.row_begin(row + 1); ++k) {
      for_input(csr_.col(k) / case_.window.taps(), oy, ox, csr_.col(k) % case_.window.taps(), image,
                [&](float x) { sum = std::fma(static_cast<float>(csr_.value(k)), x, sum); });
    }
    return std::max(sum + bias_[0], 0.0F);
  }

  [[nodiscard]] float pooled(LayerKind kind, std::int64_t channel, std::int64_t oy, std::int64_t ox,
                             std::int64_t image) const {
    float most = -kInfinity;
    float sum = 0.0F;
    int inputs = 0;
    for (std::int64_t tap = 0; tap < case_.window.taps(); ++tap) {
      for_input(channel, oy, ox, tap, image, [&](float x) {
        most = std::max(most, x);
        sum += x;
        ++inputs;
      });
    }
    return kind == LayerKind::max_pool ? most : sum / static_cast<float>(inputs);
  }

 private:
  double uniform() { return static_cast<double>(random_() >> 11U) * 0x1p-53; }
  float number() { return static_cast<float>(2.0 * uniform() - 1.0); }

  Case case_;
  std::mt19937_64 random_;
  Csr weights_;
  CsrView csr_;
  std::vector<std::uint32_t> wide_;
  std::vector<float> x_, y_, bias_;
  std::vector<std::uint8_t> alive_;
  std::int32_t live_ = 0;
};

/// Runs `kernel(problem, case, schedule)` on every case under every schedule.
template <class Kernel>
void on_all_cases(const Kernel& kernel) {
  std::uint64_t seed = 1;
  for (const Case& c : cases()) {
    Problem problem(c, ++seed);
    for (const simt::Schedule schedule :
         {simt::Schedule{simt::Order::forward, 0}, simt::Schedule{simt::Order::reversed, 0},
          simt::Schedule{simt::Order::random, seed}}) {
      SCOPED_TRACE(fmt::format("seed {}, schedule {}: {}", seed, static_cast<int>(schedule.order),
                               name_of(c)));
      ASSERT_NO_FATAL_FAILURE(kernel(problem, c, schedule));
    }
  }
}

TEST(CudaSimt, ConvTile) {
  on_all_cases([](Problem& problem, const Case& c, const simt::Schedule& schedule) {
    const cuda::ConvView conv(c.window, c.filters, c.most_inputs);
    const std::size_t bytes = static_cast<std::size_t>(conv.channels_per_chunk) *
                              static_cast<std::size_t>(conv.tile.inputs()) * kWidth * sizeof(float);
    cuda::with_index(problem.csr().index_type, [&](auto index) {
      simt::launch({problem.grid(), cuda::ConvTraits::block, bytes, schedule},
                   &cuda::conv_tile_kernel<kWidth / cuda::kWarp, decltype(index)>,
                   problem.arguments(c.filters), conv);
    });
    problem.check(c.filters, [&](auto... at) { return problem.convolved(at...); });
  });
}

TEST(CudaSimt, Pool) {
  on_all_cases([](Problem& problem, const Case& c, const simt::Schedule& schedule) {
    for (const LayerKind kind : {LayerKind::max_pool, LayerKind::average_pool}) {
      simt::launch({problem.grid(), cuda::ConvTraits::pool_block, 0, schedule},
                   &cuda::pool_kernel<kWidth / cuda::kWarp>, problem.arguments(c.window.channels),
                   kind, c.window);
      problem.check(c.window.channels, [&](auto... at) { return problem.pooled(kind, at...); });
    }
  });
}

}  // namespace
}  // namespace spdnn
