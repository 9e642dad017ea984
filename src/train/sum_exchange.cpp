// The end of a layer split by inputs: its sums become outputs where all parts have come together.
#include "sum_exchange.hpp"

#include <algorithm>

namespace spdnn::train {
namespace {

/// Features whose activation is worth handing to another thread.
constexpr std::int64_t kGrain = 256;

}  // namespace

template <class T>
void SumExchange<T>::finish_sums(const Panels<T>& own, Range panels, Stream& stream) {
  exchange_.finish_backward(own, panels, stream);
  const auto lower = static_cast<T>(sums_.activation.lower);
  const auto upper = static_cast<T>(sums_.activation.upper);
  for (std::int64_t panel = panels.begin; panel < panels.end; ++panel) {
    stream.team().parallel_for(own.features, kGrain, [&](std::int64_t begin, std::int64_t end) {
      T* const first = own.panel(panel) + begin * own.width;
      std::transform(first, first + (end - begin) * own.width, first,
                     [&](T sum) { return std::min(std::max(sum, lower), upper); });
    });
  }
}

template class SumExchange<float>;
template class SumExchange<double>;

}  // namespace spdnn::train
