// The least time a layer can take on this machine, by the measured limits.
#pragma once

#include "spdnn/matrix.hpp"

namespace spdnn::bench {

/// What of a layer's pattern its floor depends on.
struct LayerWork {
  std::int64_t rows = 0, cols = 0, edges = 0;
  /// Entries of the distinct column lists: loads that remain where rows with equal lists share
  /// them.
  std::int64_t list_entries = 0;
};
[[nodiscard]] LayerWork work_of(const CsrView& weights);

struct Floor {
  double seconds = 0.0;
  const char* limit = "";  ///< "fma", "gather" or "stream": which one it is
};
/// The floor of a layer for `batch` images in panels of `width`. It is the largest of three times:
/// every edge as a multiply–add between registers; every list entry as a gather from one panel
/// (cols · width · 4 bytes); inputs and outputs once each at the load rate of their footprint.
[[nodiscard]] Floor floor_of(const LayerWork& work, std::int64_t batch, std::int64_t width,
                             int threads);

}  // namespace spdnn::bench
