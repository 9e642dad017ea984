// SuiteSparse:GraphBLAS: the inference of the Graph Challenge as a sequence of matrix operations,
// activations as one sparse matrix [images × neurons] that loses what ReLU makes 0.
#include <errno.h>
#include <fmt/format.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmath>
#include <complex>

#include "end_to_end/peers.hpp"

// The header declares C functions without saying so. The standard headers it includes come first,
// so that they are not declared as C as well.
extern "C" {
#include <GraphBLAS.h>
}

namespace spdnn::bench {
namespace {

void check(GrB_Info info, const char* what) {
  if (info != GrB_SUCCESS) {
    throw DeviceError(fmt::format("GraphBLAS: {} failed ({})", what, static_cast<int>(info)));
  }
}

/// Starts the library once.
void start_library() {
  static const GrB_Info info = GrB_init(GrB_NONBLOCKING);
  check(info, "GrB_init");
}

/// A matrix and its owner.
class Matrix {
 public:
  Matrix() = default;
  Matrix(std::int64_t rows, std::int64_t cols) {
    check(GrB_Matrix_new(&matrix_, GrB_FP32, static_cast<GrB_Index>(rows),
                         static_cast<GrB_Index>(cols)),
          "GrB_Matrix_new");
  }
  Matrix(Matrix&& other) noexcept { std::swap(matrix_, other.matrix_); }
  Matrix& operator=(Matrix&& other) noexcept {
    std::swap(matrix_, other.matrix_);
    return *this;
  }
  ~Matrix() { GrB_Matrix_free(&matrix_); }
  [[nodiscard]] GrB_Matrix get() const { return matrix_; }

 private:
  GrB_Matrix matrix_ = nullptr;
};

/// A CSR matrix, or its transpose, as GraphBLAS keeps it; one value for all where there is but one.
Matrix build(const CsrView& from, bool transposed) {
  Matrix to = transposed ? Matrix(from.cols, from.rows) : Matrix(from.rows, from.cols);
  std::vector<GrB_Index> rows, cols;
  std::vector<float> values;
  for (std::int64_t row = 0; row < from.rows; ++row) {
    for (std::int64_t k = from.row_begin(row); k < from.row_begin(row + 1); ++k) {
      rows.push_back(static_cast<GrB_Index>(row));
      cols.push_back(static_cast<GrB_Index>(from.col(k)));
      values.push_back(static_cast<float>(from.value(k)));
    }
  }
  if (transposed) rows.swap(cols);
  check(GrB_Matrix_build_FP32(to.get(), rows.data(), cols.data(), values.data(), rows.size(),
                              GrB_PLUS_FP32),
        "GrB_Matrix_build");
  check(GrB_Matrix_wait(to.get(), GrB_MATERIALIZE), "GrB_Matrix_wait");
  return to;
}

/// The job in GraphBLAS' terms, shared by the peers of unlike thread counts.
struct Network {
  explicit Network(const Workload& workload)
      : images(build(workload.images.view(), false)), bias(workload.bias), clip(workload.clip) {
    for (const Csr& layer : workload.weights) weights.push_back(build(layer.view(), true));
  }
  Matrix images;
  std::vector<Matrix> weights;  ///< [inputs × outputs]
  float bias, clip;
};

class GraphBlas final : public Peer {
 public:
  GraphBlas(std::shared_ptr<const Network> network, int threads)
      : Peer("graphblas", threads), network_(std::move(network)) {}

  [[nodiscard]] Sample run(bool /*check*/) override {
    check(GxB_Global_Option_set(GxB_GLOBAL_NTHREADS, threads()), "setting the thread count");
    const double start = now_seconds();
    Sample sample;
    sample.categories = living_rows(infer());
    sample.seconds = now_seconds() - start;
    return sample;
  }

 private:
  [[nodiscard]] Matrix infer() const {
    GrB_Index images = 0, outputs = 0;
    check(GrB_Matrix_nrows(&images, network_->images.get()), "GrB_Matrix_nrows");
    Matrix y;
    for (const Matrix& w : network_->weights) {
      check(GrB_Matrix_ncols(&outputs, w.get()), "GrB_Matrix_ncols");
      GrB_Matrix in = y.get() == nullptr ? network_->images.get() : y.get();
      Matrix next(static_cast<std::int64_t>(images), static_cast<std::int64_t>(outputs));
      check(
          GrB_mxm(next.get(), nullptr, nullptr, GrB_PLUS_TIMES_SEMIRING_FP32, in, w.get(), nullptr),
          "GrB_mxm");
      y = std::move(next);
      activate(y.get());
    }
    check(GrB_Matrix_wait(y.get(), GrB_MATERIALIZE), "GrB_Matrix_wait");
    return y;
  }

  /// y = min(max(y + bias, 0), clip) of the entries there are; those that become 0 go.
  void activate(GrB_Matrix y) const {
    if (network_->bias != 0.0F) {
      check(GrB_Matrix_apply_BinaryOp2nd_FP32(y, nullptr, nullptr, GrB_PLUS_FP32, y, network_->bias,
                                              nullptr),
            "adding the bias");
    }
    check(GrB_Matrix_select_FP32(y, nullptr, nullptr, GrB_VALUEGT_FP32, y, 0.0F, nullptr),
          "selecting what is above 0");
    if (!std::isinf(network_->clip)) {
      check(GrB_Matrix_apply_BinaryOp2nd_FP32(y, nullptr, nullptr, GrB_MIN_FP32, y, network_->clip,
                                              nullptr),
            "clipping");
    }
  }

  [[nodiscard]] static std::vector<std::int64_t> living_rows(const Matrix& y) {
    GrB_Index rows = 0;
    check(GrB_Matrix_nrows(&rows, y.get()), "GrB_Matrix_nrows");
    GrB_Vector any = nullptr;
    check(GrB_Vector_new(&any, GrB_FP32, rows), "GrB_Vector_new");
    const std::unique_ptr<GrB_Vector, void (*)(GrB_Vector*)> owner(
        &any, [](GrB_Vector* v) { GrB_Vector_free(v); });
    check(GrB_Matrix_reduce_Monoid(any, nullptr, nullptr, GxB_ANY_FP32_MONOID, y.get(), nullptr),
          "reducing rows");
    GrB_Index count = 0;
    check(GrB_Vector_nvals(&count, any), "GrB_Vector_nvals");
    std::vector<GrB_Index> ids(count);
    std::vector<float> values(count);
    check(GrB_Vector_extractTuples_FP32(ids.data(), values.data(), &count, any),
          "reading the categories");
    return {ids.begin(), ids.end()};
  }

  std::shared_ptr<const Network> network_;
};

}  // namespace

std::vector<std::unique_ptr<Peer>> make_graphblas(const Workload& workload,
                                                  const std::vector<int>& threads) {
  start_library();
  const auto network = std::make_shared<const Network>(workload);
  std::vector<std::unique_ptr<Peer>> peers;
  for (const int count : threads) peers.push_back(std::make_unique<GraphBlas>(network, count));
  return peers;
}

}  // namespace spdnn::bench
