// Counting a layer's operations and turning them into time.
#include "limits/floor.hpp"

#include <string_view>
#include <unordered_set>

#include "spdnn/limits.hpp"

namespace spdnn::bench {

LayerWork work_of(const CsrView& w) {
  LayerWork work = {w.rows, w.cols, w.nnz, 0};
  const std::size_t size = size_of(w.index_type);
  const char* lists = static_cast<const char*>(w.col_indices);
  std::unordered_set<std::string_view> seen;
  for (std::int64_t row = 0; row < w.rows; ++row) {
    const auto begin = static_cast<std::size_t>(w.row_begin(row));
    const auto end = static_cast<std::size_t>(w.row_begin(row + 1));
    const std::string_view list(lists + begin * size, (end - begin) * size);
    if (seen.insert(list).second) work.list_entries += static_cast<std::int64_t>(end - begin);
  }
  return work;
}

Floor floor_of(const LayerWork& work, std::int64_t batch, std::int64_t width, int threads) {
  const auto images = static_cast<double>(batch);
  const double fma = static_cast<double>(work.edges) * images / limits::fma_rate(threads);
  const double gather = static_cast<double>(work.list_entries) * images /
                        limits::gather_rate(work.cols * width * 4, threads);
  const std::int64_t bytes = (work.rows + work.cols) * batch * 4;
  const double stream = static_cast<double>(bytes) / limits::load_rate(bytes / threads, threads);
  if (stream > fma && stream > gather) return {stream, "stream"};
  return gather > fma ? Floor{gather, "gather"} : Floor{fma, "fma"};
}

}  // namespace spdnn::bench
