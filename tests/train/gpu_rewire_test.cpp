// Connections changed in a GPU's memory, or where tests are built for the SIMT layer, in its: to
// the bits of the same change in the host's memory.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <span>

#include "rewire.hpp"
#include "topology.hpp"
#include "train/device_patterns.hpp"
#include "train/images.hpp"
#include "train/on_gpu.hpp"

namespace spdnn::train {
namespace {

using test::bits_of;
using test::DeviceArray;
using test::expect_arrays;
using test::on_each_gpu;

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

/// What the host makes of the gradient, so many rows at a time.
NextPattern on_host(const Case& of, const std::vector<float>& values,
                    const std::vector<float>& gradient, std::int64_t rows_at_once) {
  GrowLargest choice(of.pattern, values.data(), of.count);
  const std::span<const float> all(gradient);
  const auto part = static_cast<std::size_t>(rows_at_once * of.pattern.cols());
  for (std::size_t first = 0; first < all.size(); first += part) {
    choice.weigh(all.subspan(first, std::min(part, all.size() - first)));
  }
  return choice.finish();
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
        change.expect_change_to(on_host(of, change.values(), gradient, rows_at_once));
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
      change.expect_change_to(on_host(of, change.values(), gradient, 600));
    }
  });
}

}  // namespace
}  // namespace spdnn::train
