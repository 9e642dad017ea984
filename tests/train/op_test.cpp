// The kernels of training: every one of the table × shapes × float and double, against sums in
// double within the rounding bound; one thread and three give the same bits.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "train/problems.hpp"

namespace spdnn {
namespace {

using test::expect_within;
using test::OwnedPanels;
using test::Sum;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Case {
  std::int64_t rows, cols;
  double density;  ///< 1: a dense layer
  std::int64_t batch;
  Epilogue activation;
  bool skewed = false;  ///< one row and one column with every connection, few elsewhere
};

std::string name_of(const Case& c) {
  return fmt::format("{}x{} density {}{} batch {} h [{}, {}]", c.rows, c.cols, c.density,
                     c.skewed ? ", skewed" : "", c.batch, c.activation.lower, c.activation.upper);
}

std::vector<Case> cases() {
  const Epilogue relu = {0.0F, kInfinity};
  const Epilogue clipped = {0.0F, 0.75F};
  const Epilogue identity = {-kInfinity, kInfinity};
  std::vector<Case> all;
  for (const double density : {0.2, 1.0}) {
    for (const std::int64_t batch : {0, 1, 31, 32, 33, 97, 300}) {
      all.push_back({37, 41, density, batch, relu});
    }
    for (const std::int64_t rows : {1, 3, 8, 31, 33, 101}) {
      all.push_back({rows, 67, density, 70, identity});
      all.push_back({67, rows, density, 70, clipped});
    }
  }
  all.push_back({513, 211, 0.02, 130, clipped});
  all.push_back({40, 50, 0.0, 40, relu});   // no connection at all
  all.push_back({2, 9000, 0.3, 64, relu});  // panels past the second-level cache
  all.push_back({150, 170, 0.02, 113, relu, true});
  return all;
}

train::Pattern pattern_of(const Case& c, std::mt19937_64& random) {
  if (c.density >= 1.0) return train::Pattern::dense(c.rows, c.cols);
  if (!c.skewed) return test::random_pattern(c.rows, c.cols, c.density, random);
  std::bernoulli_distribution there(c.density);
  std::vector<std::int64_t> offsets = {0};
  std::vector<std::uint32_t> indices;
  for (std::int64_t row = 0; row < c.rows; ++row) {
    for (std::int64_t col = 0; col < c.cols; ++col) {
      if (row == c.rows / 3 || col == c.cols / 2 || there(random)) {
        indices.push_back(static_cast<std::uint32_t>(col));
      }
    }
    offsets.push_back(std::ssize(indices));
  }
  return {c.rows, c.cols, std::move(offsets), std::move(indices)};
}

/// A layer with its inputs and a gradient, and sums over its connections in long double.
template <class T>
struct Problem {
  train::Pattern pattern;
  std::vector<T> values, bias;
  OwnedPanels<T> x, dz;
  Epilogue activation;

  Problem(const Case& c, std::int64_t width, std::mt19937_64& random)
      : pattern(pattern_of(c, random)),
        values(test::random_values<T>(pattern.nnz(), random)),
        bias(test::random_values<T>(c.rows, random)),
        x(c.cols, c.batch, width),
        dz(c.rows, c.batch, width),
        activation(c.activation) {
    test::fill_random(x, T{3}, random);
    test::fill_random(dz, T{0}, random);
  }

  [[nodiscard]] LinearView<T> layer() const { return {pattern.view(), values.data(), bias.data()}; }
  [[nodiscard]] std::int64_t column(std::int64_t row, std::int64_t k) const {
    return pattern.is_dense() ? k - row * pattern.cols() : pattern.col_indices()[k];
  }
  [[nodiscard]] std::int64_t begin(std::int64_t row) const {
    return pattern.is_dense() ? row * pattern.cols() : pattern.row_offsets()[row];
  }
};

/// What a backend computes of a problem.
template <class T>
struct Outputs {
  OwnedPanels<T> y, dx;
  std::vector<T> dvalues, dbias;
  std::vector<T> dvalues_twice, dbias_twice;  ///< after the same was added to it
};

template <class T>
std::unique_ptr<Outputs<T>> compute(const Problem<T>& problem, const LinearKernels<T>& kernels,
                                    Stream& stream) {
  const std::int64_t batch = problem.x.view.batch;
  const std::int64_t width = problem.x.view.width;
  const train::Pattern& pattern = problem.pattern;
  auto out = std::unique_ptr<Outputs<T>>(
      new Outputs<T>{{pattern.rows(), batch, width},
                     {pattern.cols(), batch, width},
                     std::vector<T>(static_cast<std::size_t>(pattern.nnz()), T{9}),
                     std::vector<T>(static_cast<std::size_t>(pattern.rows()), T{9}),
                     {},
                     {}});
  std::vector<T> workspace(static_cast<std::size_t>(pattern.nnz()));
  kernels.forward({problem.layer(), problem.activation, problem.x.view, out->y.view}, stream);
  kernels.backward_data({problem.layer(), problem.dz.view, problem.activation, problem.x.view,
                         out->dx.view, workspace.data()},
                        stream);
  const auto weights = [&](std::vector<T>& dvalues, std::vector<T>& dbias, bool adds_up) {
    kernels.backward_weights(
        {pattern.view(), problem.dz.view, problem.x.view, {dvalues.data(), dbias.data(), adds_up}},
        stream);
  };
  weights(out->dvalues, out->dbias, false);
  out->dvalues_twice = out->dvalues;
  out->dbias_twice = out->dbias;
  weights(out->dvalues_twice, out->dbias_twice, true);
  return out;
}

/// Both gradients at once have the bits of one after the other.
template <class T>
void check_both(const Problem<T>& problem, const LinearKernels<T>& kernels, const Outputs<T>& out,
                Stream& stream) {
  if (kernels.backward == nullptr) return;
  const auto nnz = static_cast<std::size_t>(problem.pattern.nnz());
  OwnedPanels<T> dx(problem.pattern.cols(), problem.x.view.batch, problem.x.view.width);
  std::vector<T> dvalues(nnz, T{9});
  std::vector<T> dbias(problem.bias.size(), T{9});
  std::vector<T> workspace(2 * nnz, std::numeric_limits<T>::quiet_NaN());
  std::fill(dx.data.begin(), dx.data.end(), T{9});
  const auto both = [&](bool adds_up) {
    kernels.backward({problem.layer(), problem.dz.view, problem.activation, problem.x.view, dx.view,
                      workspace.data()},
                     {dvalues.data(), dbias.data(), adds_up}, stream);
  };
  both(false);
  EXPECT_EQ(out.dx.data, dx.data);
  EXPECT_EQ(out.dvalues, dvalues);
  EXPECT_EQ(out.dbias, dbias);
  both(true);
  EXPECT_EQ(out.dvalues_twice, dvalues);
  EXPECT_EQ(out.dbias_twice, dbias);
}

template <class T>
void check_images(const Problem<T>& p, const Outputs<T>& out) {
  const Epilogue& h = p.activation;
  for (std::int64_t image = 0; image < p.x.view.batch; ++image) {
    std::vector<Sum> back(static_cast<std::size_t>(p.pattern.cols()));
    for (std::int64_t row = 0; row < p.pattern.rows(); ++row) {
      Sum sum;
      for (std::int64_t k = p.begin(row); k < p.begin(row) + p.pattern.fan_in(row); ++k) {
        const std::int64_t col = p.column(row, k);
        sum.add(p.values[k], p.x.view.at(col, image));
        back[col].add(p.values[k], p.dz.view.at(row, image));
      }
      sum.add(1.0, p.bias[row]);
      const double exact =
          std::min<double>(std::max<double>(static_cast<double>(sum.value), h.lower), h.upper);
      expect_within<T>(out.y.view.at(row, image), sum, exact);
    }
    for (std::int64_t col = 0; col < p.pattern.cols(); ++col) {
      const T x = p.x.view.at(col, image);
      const bool inside = x > T{h.lower} && x < T{h.upper};
      const double exact = inside ? static_cast<double>(back[col].value) : 0.0;
      expect_within<T>(out.dx.view.at(col, image), back[col], exact);
    }
  }
}

template <class T>
void check_weights(const Problem<T>& p, const Outputs<T>& out) {
  for (std::int64_t row = 0; row < p.pattern.rows(); ++row) {
    Sum bias;
    for (std::int64_t image = 0; image < p.x.view.batch; ++image) {
      bias.add(1.0, p.dz.view.at(row, image));
    }
    expect_within<T>(out.dbias[row], bias, static_cast<double>(bias.value));
    expect_within<T>(out.dbias_twice[row], bias.twice(), static_cast<double>(2 * bias.value));
    for (std::int64_t k = p.begin(row); k < p.begin(row) + p.pattern.fan_in(row); ++k) {
      Sum sum;
      for (std::int64_t image = 0; image < p.x.view.batch; ++image) {
        sum.add(p.dz.view.at(row, image), p.x.view.at(p.column(row, k), image));
      }
      expect_within<T>(out.dvalues[k], sum, static_cast<double>(sum.value));
      expect_within<T>(out.dvalues_twice[k], sum.twice(), static_cast<double>(2 * sum.value));
    }
  }
}

template <class T>
void run_all_cases() {
  const std::unique_ptr<Device> device = open_device({});
  DeviceSpec threaded;
  threaded.threads = 3;
  const std::unique_ptr<Device> team = open_device(threaded);
  const auto stream = device->make_stream();
  const auto team_stream = team->make_stream();
  for (const TrainKernels<T>& kernels : train_kernels<T>()) {
    if (kernels.device != DeviceKind::cpu) continue;
    std::mt19937_64 random(7);
    for (const Case& c : cases()) {
      SCOPED_TRACE(fmt::format("{} {}", kernels.name, name_of(c)));
      const Problem<T> problem(c, panel_width(device->info()), random);
      const LinearKernels<T>& linear = c.density < 1.0 ? kernels.sparse : kernels.dense;
      const auto one = compute(problem, linear, *stream);
      ASSERT_NO_FATAL_FAILURE(check_images(problem, *one));
      ASSERT_NO_FATAL_FAILURE(check_weights(problem, *one));
      const auto three = compute(problem, linear, *team_stream);
      EXPECT_EQ(one->y.data, three->y.data);
      EXPECT_EQ(one->dx.data, three->dx.data);
      EXPECT_EQ(one->dvalues, three->dvalues);
      EXPECT_EQ(one->dbias, three->dbias);
      check_both(problem, linear, *one, *stream);
      check_both(problem, linear, *one, *team_stream);
    }
  }
}

TEST(TrainOp, LayersInFloat) { run_all_cases<float>(); }
TEST(TrainOp, LayersInDouble) { run_all_cases<double>(); }

template <class T>
class TrainUpdate : public testing::Test {};
using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(TrainUpdate, Types);

/// Every optimiser takes the same three steps as the reference, up to rounding.
TYPED_TEST(TrainUpdate, AllOptimisersAgreeWithTheReference) {
  using T = TypeParam;
  const std::unique_ptr<Device> device = open_device({});
  const auto stream = device->make_stream();
  constexpr std::int64_t kCount = 20'011;
  constexpr double squares = 4.0;  // clipped at 1: half of the gradient
  for (const OptimizerKind kind :
       {OptimizerKind::sgd, OptimizerKind::momentum, OptimizerKind::nesterov, OptimizerKind::adam,
        OptimizerKind::adamw}) {
    std::vector<std::vector<T>> results;
    for (const TrainKernels<T>& kernels : train_kernels<T>()) {
      if (kernels.device != DeviceKind::cpu) continue;
      std::mt19937_64 random(3);
      std::vector<T> p = test::random_values<T>(kCount, random);
      std::vector<T> m(p.size());
      std::vector<T> v(p.size());
      for (int step = 1; step <= 3; ++step) {
        const std::vector<T> g = test::random_values<T>(kCount, random);
        const auto t = static_cast<T>(step);
        kernels.update({kind, kCount, p.data(), g.data(), m.data(), v.data(), T(0.1), T(0.9),
                        T(0.9), T(0.999), T(1e-8), T(0.01), T(1) - std::pow(T(0.9), t),
                        T(1) - std::pow(T(0.999), t), &squares, 1.0},
                       *stream);
      }
      results.push_back(p);
    }
    ASSERT_EQ(results.size(), 2U);
    const double tolerance = 64.0 * static_cast<double>(std::numeric_limits<T>::epsilon());
    for (std::int64_t i = 0; i < kCount; ++i) {
      ASSERT_NEAR(results[0][i], results[1][i], tolerance * (1.0 + std::abs(results[1][i])))
          << "optimiser " << static_cast<int>(kind) << " element " << i;
    }
  }
}

TYPED_TEST(TrainUpdate, SumOfSquaresDoesNotDependOnThreads) {
  using T = TypeParam;
  std::mt19937_64 random(5);
  const std::vector<T> x = test::random_values<T>(100'003, random);
  double exact = 0.0;
  for (const T value : x) exact += static_cast<double>(value) * static_cast<double>(value);
  for (const TrainKernels<T>& kernels : train_kernels<T>()) {
    if (kernels.device != DeviceKind::cpu) continue;
    double results[2][kSquaresRoom];
    for (int i = 0; i < 2; ++i) {
      DeviceSpec spec;
      spec.threads = 1 + 2 * i;
      const std::unique_ptr<Device> device = open_device(spec);
      const auto stream = device->make_stream();
      kernels.sum_of_squares(x.data(), std::ssize(x), results[i], *stream);
    }
    EXPECT_EQ(results[0][0], results[1][0]);
    EXPECT_NEAR(results[0][0], exact, 1e-9 * exact);
  }
}

/// Outputs of a thousand overflow the plain exponential.
TYPED_TEST(TrainUpdate, CrossEntropyIsStable) {
  using T = TypeParam;
  const std::unique_ptr<Device> device = open_device({});
  const auto stream = device->make_stream();
  for (const TrainKernels<T>& kernels : train_kernels<T>()) {
    if (kernels.device != DeviceKind::cpu) continue;
    OwnedPanels<T> y(3, 2, 32);
    OwnedPanels<T> dz(3, 2, 32);
    const T outputs[3][2] = {{T(1000), T(-1000)}, {T(999), T(-1001)}, {T(-1000), T(-3000)}};
    for (std::int64_t c = 0; c < 3; ++c) {
      for (std::int64_t image = 0; image < 2; ++image) y.view.at(c, image) = outputs[c][image];
    }
    const std::int32_t labels[2] = {1, 2};
    std::int32_t predictions[2] = {9, 9};
    double loss = 0.0;
    OwnedPanels<T> part(LossPart::words, 2, 32);
    const LossArgs<T> args{.activation = {-kInfinity, kInfinity},
                           .y = y.view,
                           .part = part.view,
                           .parts = part.view,
                           .outputs = 3,
                           .labels = labels,
                           .dz = dz.view,
                           .loss_sum = &loss,
                           .predictions = predictions};
    kernels.loss_part(args, *stream);
    kernels.loss(args, *stream);
    // −log softmax: 1 + log(1 + e⁻¹), and 2000 + the same.
    EXPECT_NEAR(loss, 2001.0 + 2.0 * std::log1p(std::exp(-1.0)), 1e-3);
    EXPECT_EQ(predictions[0], 0);
    EXPECT_EQ(predictions[1], 0);
    EXPECT_NEAR(dz.view.at(1, 0), 1.0 / (1.0 + std::exp(1.0)) - 1.0, 1e-6);
    EXPECT_NEAR(dz.view.at(2, 1), -1.0, 1e-6);
    EXPECT_EQ(dz.view.at(0, 2), T(0));
  }
}

}  // namespace
}  // namespace spdnn
