// Eigen: one sparse × sparse product a layer, row-major, on one thread.
#include <Eigen/SparseCore>

#include "end_to_end/peers.hpp"

namespace spdnn::bench {
namespace {

using Sparse = Eigen::SparseMatrix<float, Eigen::RowMajor>;

/// Images taken through all layers together: bounds the memory of the products.
constexpr std::int64_t kImagesAtOnce = 2000;

std::vector<Eigen::Triplet<float>> entries_of(const CsrView& from, Range rows, bool transposed) {
  std::vector<Eigen::Triplet<float>> entries;
  for (std::int64_t row = rows.begin; row < rows.end; ++row) {
    for (std::int64_t k = from.row_begin(row); k < from.row_begin(row + 1); ++k) {
      const auto r = static_cast<int>(row - rows.begin);
      const auto c = static_cast<int>(from.col(k));
      entries.emplace_back(transposed ? c : r, transposed ? r : c,
                           static_cast<float>(from.value(k)));
    }
  }
  return entries;
}

class EigenPeer final : public Peer {
 public:
  explicit EigenPeer(const Workload& workload)
      : Peer("eigen", 1), bias_(workload.bias), clip_(workload.clip) {
    for (const Csr& layer : workload.weights) {
      const auto entries = entries_of(layer.view(), {0, layer.rows()}, true);
      weights_.emplace_back(layer.cols(), layer.rows());
      weights_.back().setFromTriplets(entries.begin(), entries.end());
    }
    for (std::int64_t first = 0; first < workload.images.rows(); first += kImagesAtOnce) {
      const Range rows = {first, std::min(first + kImagesAtOnce, workload.images.rows())};
      const auto entries = entries_of(workload.images.view(), rows, false);
      images_.emplace_back(rows.size(), workload.images.cols());
      images_.back().setFromTriplets(entries.begin(), entries.end());
    }
  }

  [[nodiscard]] Sample run(bool /*check*/) override {
    const double start = now_seconds();
    Sample sample;
    std::int64_t first = 0;
    for (const Sparse& images : images_) {
      Sparse y = images;
      for (const Sparse& w : weights_) {
        y = Sparse(y * w);
        activate(y);
      }
      for (Eigen::Index row = 0; row < y.rows(); ++row) {
        if (y.outerIndexPtr()[row + 1] > y.outerIndexPtr()[row]) {
          sample.categories.push_back(first + row);
        }
      }
      first += images.rows();
    }
    sample.seconds = now_seconds() - start;
    return sample;
  }

 private:
  void activate(Sparse& y) const {
    y.coeffs() += bias_;
    y.prune([](Eigen::Index, Eigen::Index, float value) { return value > 0.0F; });
    y.coeffs() = y.coeffs().min(clip_);
  }

  std::vector<Sparse> weights_;  ///< [inputs × outputs]
  std::vector<Sparse> images_;   ///< by block of images
  float bias_, clip_;
};

}  // namespace

std::unique_ptr<Peer> make_eigen(const Workload& workload) {
  return std::make_unique<EigenPeer>(workload);
}

}  // namespace spdnn::bench
