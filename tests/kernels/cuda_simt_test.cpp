// The CUDA SpMM kernels' device code, built for the host and run by the SIMT layer: every shape
// under every schedule, within the float64 bound, and canonical kernels bit for bit.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <array>
#include <bit>

#include "cuda/dispatch.hpp"
#include "cuda/epilogue.cuh"
#include "cuda/spmm_block_mma.cuh"
#include "cuda/spmm_reference.cuh"
#include "cuda/spmm_row_group.cuh"
#include "cuda/spmm_row_warp.cuh"
#include "cuda/spmm_tile.cuh"
#include "support/networks.hpp"

namespace spdnn {
namespace {

using test::MatrixSpec;
using test::Rows;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kUnused = 1e30F;  // in unused lanes: would show in any output it reached
constexpr float kUntouched = -77.0F;
constexpr Epilogue kRelu = {0.0F, kInfinity};
constexpr Epilogue kClipped = {0.0F, 0.75F};
constexpr Epilogue kIdentity = {-kInfinity, kInfinity};

struct Case {
  MatrixSpec matrix;
  std::int64_t batch = 0;
  std::int64_t width = 64;
  std::int64_t live = -1;  ///< images really there; −1: all, with no device-side count
  Epilogue epilogue = kRelu;
  bool vector_bias = true;
  bool wide_index = false;  ///< 32-bit columns where 16 would do
};

std::string name_of(const Case& c) {
  return fmt::format("{}x{} row {} pattern {} shared {} batch {} width {} live {} u32 {}",
                     c.matrix.rows, c.matrix.cols, c.matrix.row_nnz,
                     static_cast<int>(c.matrix.pattern), c.matrix.shared_value, c.batch, c.width,
                     c.live, c.wide_index);
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const std::int64_t width : {32, 64, 128}) {
    for (const bool shared : {false, true}) {
      for (const bool wide : {false, true}) {
        all.push_back(
            {{19, 41, 40, Rows::irregular, shared}, width + 7, width, -1, kRelu, !wide, wide});
      }
    }
  }
  for (const std::int64_t batch : {0, 1, 31, 32, 33, 63, 64, 65, 131, 257}) {
    all.push_back({{11, 23, 7, Rows::irregular, false}, batch, 64, -1, kRelu, true, false});
  }
  for (const std::int64_t rows : {0, 1, 31, 32, 33, 101, 149}) {
    all.push_back({{rows, 37, 9, Rows::equal, false}, 70, 64, -1, kIdentity, true, false});
    all.push_back({{rows, 67, 5, Rows::irregular, true}, 70, 64, 45, kClipped, false, true});
  }
  for (const std::int64_t cols : {1, 2, 31, 32, 33, 97}) {
    all.push_back({{9, cols, cols, Rows::equal, false}, 66, 64, 65, kRelu, true, false});
    all.push_back({{9, cols, 3, Rows::one_dense, true}, 40, 32, 32, kIdentity, true, false});
  }
  for (const std::int64_t live : {0, 1, 63, 64, 65, 128, 192, 500}) {
    all.push_back({{13, 29, 8, Rows::equal, true}, 192, 64, live, kClipped, true, false});
  }
  for (const std::int64_t rows : {16, 17, 31, 95}) {
    all.push_back({{rows, 90, 70, Rows::grouped, false}, 70, 64, -1, kRelu, true, rows == 17});
    all.push_back({{rows, 90, 33, Rows::grouped, true}, 70, 64, 65, kClipped, true, false});
  }
  all.push_back({{40, 60, 20, Rows::grouped, false}, 45, 32, -1, kIdentity, true, false});
  all.push_back({{40, 60, 20, Rows::grouped, false}, 135, 128, -1, kIdentity, false, true});
  all.push_back({{33, 50, 0, Rows::empty, false}, 70, 64, -1, kRelu, true, false});
  all.push_back({{5, 0, 0, Rows::empty, false}, 40, 64, -1, kRelu, true, false});
  all.push_back({{3, 70001, 40, Rows::irregular, false}, 65, 32, -1, kRelu, true, false});
  return all;
}

/// The cases' schedule is drawn from their seed, after the two fixed ones.
std::array<simt::Schedule, 3> schedules(std::uint64_t seed) {
  return {simt::Schedule{simt::Order::forward, 0}, simt::Schedule{simt::Order::reversed, 0},
          simt::Schedule{simt::Order::random, seed}};
}

/// A layer with its input and room for its output, in the form kernels take.
class Problem {
 public:
  Problem(const Case& c, std::uint64_t seed) : case_(c), random_(seed) {
    weights_ = test::random_csr(c.matrix, random_);
    csr_ = weights_.view();
    if (c.wide_index && csr_.index_type == DType::u16) {
      for (std::int64_t k = 0; k < csr_.nnz; ++k)
        wide_.push_back(static_cast<std::uint32_t>(csr_.col(k)));
      csr_.col_indices = wide_.data();
      csr_.index_type = DType::u32;
    }
    Panels<const float> shape{nullptr, csr_.cols, c.batch, c.width, nullptr};
    x_ = test::random_floats(static_cast<std::size_t>(shape.size()), random_);
    for (std::int64_t i = 0; i < shape.count() * c.width; ++i) {
      for (std::int64_t f = 0; f < csr_.cols; ++f) {
        float& value = Panels<float>{x_.data(), csr_.cols, c.batch, c.width, nullptr}.at(f, i);
        if (i >= images()) value = kUnused;
        if (i == 2) value = 0.0F;  // an image that may die
      }
    }
    x_.push_back(kUnused);  // so that an empty input has an address, too
    bias_ = c.vector_bias ? test::random_floats(static_cast<std::size_t>(csr_.rows + 1), random_)
                          : std::vector<float>{-0.25F};
    live_ = static_cast<std::int32_t>(c.live);
  }

  [[nodiscard]] const CsrView& csr() const { return csr_; }
  [[nodiscard]] std::int64_t images() const {
    return case_.live < 0 ? case_.batch : std::min(case_.live, case_.batch);
  }
  [[nodiscard]] std::int64_t panels() const {
    return (case_.batch + case_.width - 1) / case_.width;
  }
  [[nodiscard]] unsigned grid() { return 1 + static_cast<unsigned>(random_() % 7); }

  /// One image's inputs, by column.
  [[nodiscard]] auto input(std::int64_t image) const {
    const Panels<const float> x{x_.data(), csr_.cols, case_.batch, case_.width, nullptr};
    return [x, image](std::int64_t col) { return x.at(col, image); };
  }

  /// Fresh outputs and flags, and the arguments to fill them.
  cuda::SpmmKernelArgs arguments() {
    y_.assign(static_cast<std::size_t>(panels() * csr_.rows * case_.width) + 1, kUntouched);
    alive_.assign(static_cast<std::size_t>(case_.batch), 0);
    const std::int32_t* live = case_.live < 0 ? nullptr : &live_;
    return {csr_,
            {bias_.data(), case_.vector_bias ? 1 : 0},
            case_.epilogue,
            {x_.data(), csr_.cols, case_.batch, case_.width, live},
            {y_.data(), csr_.rows, case_.batch, case_.width, live},
            alive_.data()};
  }

  /// The products a library would leave in y, as canonical chains.
  void fill_products() {
    Panels<float> y{y_.data(), csr_.rows, case_.batch, case_.width, nullptr};
    for (std::int64_t i = 0; i < images(); ++i) {
      for (std::int64_t row = 0; row < csr_.rows; ++row) {
        y.at(row, i) = test::expected_output(csr_, row, 0.0F, kIdentity, input(i)).canonical;
      }
    }
  }

  /// `precision`: of the products, where the kernel is not canonical.
  void check(bool canonical, Precision precision = Precision::fp32) const {
    const Panels<const float> y{y_.data(), csr_.rows, case_.batch, case_.width, nullptr};
    for (std::int64_t i = 0; i < images(); ++i) {
      bool any = false;
      for (std::int64_t row = 0; row < csr_.rows; ++row) {
        const auto e = test::expected_output(csr_, row, bias_[case_.vector_bias ? row : 0],
                                             case_.epilogue, input(i));
        const float got = y.at(row, i);
        any = any || got != 0.0F;
        ASSERT_LE(std::abs(static_cast<double>(got) - e.exact),
                  e.bound + product_error(precision) * e.magnitude)
            << "row " << row << " image " << i;
        if (canonical) {
          ASSERT_EQ(got, e.canonical) << "row " << row << " image " << i;
        }
      }
      ASSERT_EQ(alive_[i], any ? 1 : 0) << "image " << i;
    }
    for (std::int64_t i = images(); i < case_.batch; ++i) ASSERT_EQ(alive_[i], 0) << "image " << i;
    for (std::int64_t p = (images() + case_.width - 1) / case_.width; p < panels(); ++p) {
      for (std::int64_t k = 0; k < csr_.rows * case_.width; ++k) {
        ASSERT_EQ(y.panel(p)[k], kUntouched) << "a panel past the living images was written";
      }
    }
  }

 private:
  Case case_;
  std::mt19937_64 random_;
  Csr weights_;
  CsrView csr_;
  std::vector<std::uint32_t> wide_;
  std::vector<float> x_, y_, bias_;
  std::vector<std::uint8_t> alive_;
  std::int32_t live_ = 0;
};

/// Runs `kernel(problem, case, schedule, seed)` on every case under every schedule.
template <class Kernel>
void on_all_cases(bool canonical, const Kernel& kernel) {
  std::uint64_t seed = 1;
  for (const Case& c : cases()) {
    Problem problem(c, ++seed);
    for (const simt::Schedule& schedule : schedules(seed)) {
      SCOPED_TRACE(fmt::format("seed {}, schedule {}: {}", seed, static_cast<int>(schedule.order),
                               name_of(c)));
      ASSERT_NO_THROW(kernel(problem, c, schedule, seed));
      ASSERT_NO_FATAL_FAILURE(problem.check(canonical));
    }
  }
}

TEST(CudaSimt, ThereAreManyShapes) { EXPECT_GE(cases().size(), 40U); }

TEST(CudaSimt, RowWarp) {
  on_all_cases(true, [](Problem& problem, const Case& c, const simt::Schedule& schedule,
                        std::uint64_t seed) {
    cuda::with_width(c.width, [&](auto v) {
      cuda::with_index(problem.csr().index_type, [&](auto index) {
        cuda::with_bool(problem.csr().shared_value, [&](auto shared) {
          simt::launch({problem.grid(), cuda::RowWarpTraits::block, 0, schedule},
                       &cuda::spmm_row_warp_kernel<decltype(v)::value, decltype(index),
                                                   decltype(shared)::value>,
                       problem.arguments(), static_cast<int>(1 + seed % 3));
        });
      });
    });
  });
}

TEST(CudaSimt, RowGroup) {
  on_all_cases(true, [](Problem& problem, const Case& c, const simt::Schedule& schedule,
                        std::uint64_t seed) {
    const cuda::RowBlocks made = cuda::make_row_blocks(problem.csr(), cuda::kMostBlockRows);
    const cuda::RowGroupView view{made.blocks.data(), made.rows.data(), made.values.data(),
                                  std::ssize(made.blocks), 0};
    cuda::with_width(c.width, [&](auto v) {
      cuda::with_index(problem.csr().index_type, [&](auto index) {
        cuda::with_bool(problem.csr().shared_value, [&](auto shared) {
          simt::launch({problem.grid(), cuda::RowGroupTraits::block, 0, schedule},
                       &cuda::spmm_row_group_kernel<decltype(v)::value, decltype(index),
                                                    decltype(shared)::value>,
                       problem.arguments(), view, static_cast<int>(1 + seed % 3));
        });
      });
    });
  });
}

/// Tiles small enough that most cases have several.
cuda::TileLimits small_tiles(const Case& c, std::uint64_t seed) {
  return {static_cast<std::int64_t>(5 + seed % 40), std::max<std::int64_t>(c.matrix.cols, 1),
          static_cast<std::int64_t>(1 + seed % 50)};
}

TEST(CudaSimt, Tile) {
  on_all_cases(true, [](Problem& problem, const Case& c, const simt::Schedule& schedule,
                        std::uint64_t seed) {
    const cuda::TileFormat format = cuda::build_tiles(problem.csr(), small_tiles(c, seed));
    const std::size_t bytes =
        static_cast<std::size_t>(format.max_footprint * c.width) * sizeof(float);
    cuda::with_width(c.width, [&](auto v) {
      cuda::with_bool(problem.csr().shared_value, [&](auto shared) {
        simt::launch({problem.grid(), cuda::TileTraits::block, bytes, schedule},
                     &cuda::spmm_tile_kernel<decltype(v)::value, decltype(shared)::value>,
                     problem.arguments(), format.view());
      });
    });
  });
}

float first_of(std::uint32_t word) { return std::bit_cast<float>(word); }

TEST(CudaSimt, FactorsAreRoundedToTheNearest) {
  const float tf32[] = {1.0F,      1.0F + 0x1p-11F, 1.0F + 0x1.8p-11F, -1.0F - 0x1p-11F,
                        0x1p-130F, kInfinity};
  const float expected[] = {1.0F,      1.0F + 0x1p-10F, 1.0F + 0x1p-10F, -1.0F - 0x1p-10F,
                            0x1p-130F, kInfinity};
  for (int i = 0; i < 6; ++i) EXPECT_EQ(first_of(cuda::Tf32::pack(tf32 + i)), expected[i]) << i;
  // Two to a word; halves go to the even neighbour.
  const float bf16[] = {1.0F + 0x1p-8F, 1.0F + 0x1.8p-7F, -kInfinity, 1.0F + 0x1.01p-8F};
  const std::uint32_t words[] = {cuda::Bf16::pack(bf16), cuda::Bf16::pack(bf16 + 2)};
  EXPECT_EQ(first_of(words[0] << 16), 1.0F);
  EXPECT_EQ(first_of(words[0] & 0xffff0000U), 1.0F + 0x1p-6F);
  EXPECT_EQ(first_of(words[1] << 16), -kInfinity);
  EXPECT_EQ(first_of(words[1] & 0xffff0000U), 1.0F + 0x1p-7F);
  const float nan[] = {std::numeric_limits<float>::quiet_NaN(), 0.0F};
  EXPECT_TRUE(std::isnan(first_of(cuda::Tf32::pack(nan))));
  EXPECT_TRUE(std::isnan(first_of(cuda::Bf16::pack(nan) << 16)));
}

double halves_of(float value) {
  const float both[] = {value, 0.0F};
  const std::uint32_t first = cuda::Fp16::pack(both);
  const std::uint32_t rest = cuda::Fp16::pack_rest(both, first);
  return static_cast<double>(cuda::Fp16::half_value(first & 0xffffU)) +
         static_cast<double>(cuda::Fp16::half_value(rest & 0xffffU)) / 2048.0;
}

std::uint32_t bits_of_half(float value) { return Half(value).bits; }

TEST(CudaSimt, TwoHalvesHold22BitsOfNormalNumbersAndTheRangeOfHalf) {
  std::mt19937_64 random(6);
  for (int exponent = -30; exponent < 16; ++exponent) {
    for (int i = 0; i < 200; ++i) {
      const float value =
          std::ldexp(1.0F + static_cast<float>(random() % (1U << 23)) * 0x1p-23F, exponent) *
          (i % 2 == 0 ? 1.0F : -1.0F);
      if (std::abs(value) > 65504.0F) continue;
      const double exact = static_cast<double>(value);
      const double most = std::max(std::abs(exact) * 0x1p-22, 0x1p-36);
      ASSERT_LE(std::abs(halves_of(value) - exact), most) << value;
    }
  }
  // Every half is its own nearest one.
  for (std::uint32_t bits = 0; bits < 0x7c00U; ++bits) {
    ASSERT_EQ(bits_of_half(cuda::Fp16::half_value(bits)), bits);
    ASSERT_EQ(bits_of_half(-cuda::Fp16::half_value(bits)), bits | 0x8000U);
  }
  // Ties go to the even neighbour, and what rounds past the largest half is infinite.
  EXPECT_EQ(bits_of_half(1.0F + 0x1p-11F), 0x3c00U);
  EXPECT_EQ(bits_of_half(1.0F + 0x1.8p-10F), 0x3c02U);
  EXPECT_EQ(bits_of_half(65519.0F), 0x7bffU);
  EXPECT_EQ(bits_of_half(65520.0F), 0x7c00U);
  EXPECT_TRUE(std::isnan(cuda::Fp16::half_value(bits_of_half(NAN))));
}

/// Only panels of the width it is written for; schedules differ in warps alone, which do not meet.
template <class Kind>
void run_block_mma() {
  std::uint64_t seed = 1;
  for (const Case& c : cases()) {
    ++seed;
    if (c.width != cuda::BlockMmaTraits::width) continue;
    Problem problem(c, seed);
    const cuda::MmaFormat format = cuda::build_mma<Kind>(problem.csr());
    const cuda::MmaView view{format.blocks.data(),      format.rows.data(),
                             format.columns.data(),     format.weights.data(),
                             std::ssize(format.blocks), format.unscale};
    const simt::Schedule schedule = schedules(seed)[seed % 3];
    SCOPED_TRACE(fmt::format("seed {}: {}", seed, name_of(c)));
    ASSERT_NO_THROW(simt::launch({problem.grid(), cuda::BlockMmaTraits::block, 0, schedule},
                                 &cuda::spmm_block_mma_kernel<Kind>, problem.arguments(), view,
                                 static_cast<int>(1 + seed % 3)));
    ASSERT_NO_FATAL_FAILURE(problem.check(false, Kind::precision));
  }
}

TEST(CudaSimt, BlockMmaFp16) { run_block_mma<cuda::Fp16>(); }
TEST(CudaSimt, BlockMmaTf32) { run_block_mma<cuda::Tf32>(); }
TEST(CudaSimt, BlockMmaBf16) { run_block_mma<cuda::Bf16>(); }

TEST(CudaSimt, Epilogue) {
  on_all_cases(true, [](Problem& problem, const Case& c, const simt::Schedule& schedule,
                        std::uint64_t seed) {
    const cuda::SpmmKernelArgs args = problem.arguments();
    const std::vector<float> untouched(args.y.data, args.y.data + args.y.size());
    problem.fill_products();
    std::vector<float> products(args.y.data, args.y.data + args.y.size());
    const bool in_place = seed % 2 == 0;
    if (!in_place) std::copy(untouched.begin(), untouched.end(), args.y.data);
    cuda::with_width(c.width, [&](auto v) {
      simt::launch({problem.grid(), cuda::EpilogueTraits::block, 0, schedule},
                   &cuda::epilogue_kernel<decltype(v)::value>, args,
                   in_place ? args.y.data : products.data());
    });
  });
}

TEST(CudaSimt, Reference) {
  on_all_cases(
      false, [](Problem& problem, const Case&, const simt::Schedule& schedule, std::uint64_t seed) {
        cuda::SpmmKernelArgs args = problem.arguments();
        std::vector<double> values;
        for (std::int64_t k = 0; k < args.csr.stored_values(); ++k)
          values.push_back(args.csr.value(k));
        const bool in_double = seed % 2 == 0;
        if (in_double) {
          args.csr.values = values.data();
          args.csr.value_type = DType::f64;
        }
        cuda::with_index(args.csr.index_type, [&](auto index) {
          cuda::with_bool(in_double, [&](auto is_double) {
            using Value = std::conditional_t<decltype(is_double)::value, double, float>;
            simt::launch({problem.grid(), cuda::ReferenceTraits::block, 0, schedule},
                         &cuda::spmm_reference_kernel<decltype(index), Value>, args);
          });
        });
      });
}

TEST(CudaSimt, FlagsMayBeLeftOut) {
  const Case c{{9, 12, 5, Rows::equal, false}, 70, 64, -1, kRelu, true, false};
  Problem problem(c, 5);
  cuda::SpmmKernelArgs args = problem.arguments();
  args.alive = nullptr;
  EXPECT_NO_THROW(simt::launch({2, cuda::RowWarpTraits::block, 0, {}},
                               &cuda::spmm_row_warp_kernel<2, std::uint16_t, false>, args, 1));
}

}  // namespace
}  // namespace spdnn
