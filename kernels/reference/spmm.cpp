// SpMM by a few plain loops: one thread, every sum in double, rounded once at the end.
#include <cmath>

#include "reference/reference.hpp"

namespace spdnn {
namespace {

std::optional<std::string> declines(const SpmmShape& /*shape*/, const DeviceInfo& /*device*/) {
  return std::nullopt;
}

template <class T>
void run(const SpmmArgs<T>& args, Stream& /*stream*/) {
  const CsrView& w = args.weights->csr;
  const std::int64_t batch = args.x.live == nullptr ? args.x.batch : *args.x.live;
  const Range rows = {w.rows * args.rows.begin / args.rows.of,
                      w.rows * args.rows.end / args.rows.of};
  for (std::int64_t image = 0; image < batch; ++image) {
    bool alive = false;
    for (std::int64_t row = rows.begin; row < rows.end; ++row) {
      double sum = 0.0;
      for (std::int64_t k = w.row_begin(row); k < w.row_begin(row + 1); ++k) {
        sum += w.value(k) * static_cast<double>(args.x.at(w.col(k), image));
      }
      sum += static_cast<double>(args.bias.at(row));
      const double y = std::fmin(std::fmax(sum, static_cast<double>(args.epilogue.lower)),
                                 static_cast<double>(args.epilogue.upper));
      args.y.at(row, image) = static_cast<T>(y);
      alive = alive || static_cast<T>(y) != T{0};
    }
    if (args.alive != nullptr) args.alive[image] = alive ? 1 : 0;
  }
}

}  // namespace

template <class T>
const SpmmKernel<T>& spmm_reference() {
  static constexpr SpmmKernel<T> kernel = {"reference", DeviceKind::cpu, Order::other,
                                           declines,    upload_csr,      run<T>};
  return kernel;
}

template const SpmmKernel<float>& spmm_reference<float>();
template const SpmmKernel<double>& spmm_reference<double>();

}  // namespace spdnn
