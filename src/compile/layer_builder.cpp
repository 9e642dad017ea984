// Building layers row by row.
#include "layer_builder.hpp"

#include <algorithm>
#include <bit>

namespace spdnn::compiler {

void LayerBuilder::reserve(std::int64_t rows, std::int64_t entries) {
  offsets_.reserve(static_cast<std::size_t>(rows) + 1);
  bias_.reserve(static_cast<std::size_t>(rows));
  cols_.reserve(static_cast<std::size_t>(entries));
  values_.reserve(static_cast<std::size_t>(entries));
}

void LayerBuilder::add_row(const CsrView& w, std::int64_t row, const std::vector<Neuron>& to) {
  const std::int64_t begin = w.row_begin(row);
  const std::int64_t end = w.row_begin(row + 1);
  with_columns(w, [&](const auto* cols) {
    if (to.empty()) {
      cols_.insert(cols_.end(), cols + begin, cols + end);
    } else {
      for (std::int64_t k = begin; k < end; ++k) cols_.push_back(to[cols[k]]);
    }
  });
  const auto* values = static_cast<const float*>(w.values);
  if (w.shared_value) {
    values_.insert(values_.end(), static_cast<std::size_t>(end - begin), *values);
  } else {
    values_.insert(values_.end(), values + begin, values + end);
  }
}

LayerBuilder::Entries LayerBuilder::grow(std::int64_t count) {
  const std::size_t before = cols_.size();
  cols_.resize(before + static_cast<std::size_t>(count));
  values_.resize(cols_.size());
  return {cols_.data() + before, values_.data() + before};
}

void LayerBuilder::cut(std::int64_t count) {
  cols_.resize(cols_.size() - static_cast<std::size_t>(count));
  values_.resize(cols_.size());
}

void LayerBuilder::end_row(float bias) {
  offsets_.push_back(std::ssize(cols_));
  bias_.push_back(bias);
}

CsrView LayerBuilder::view(std::int64_t cols) const {
  CsrView view;
  view.rows = rows();
  view.cols = cols;
  view.nnz = std::ssize(cols_);
  view.row_offsets = offsets_.data();
  view.col_indices = cols_.data();
  view.values = values_.data();
  return view;
}

SparseLinear LayerBuilder::finish(std::int64_t cols, Epilogue activation) && {
  const auto same = [&](float b) {
    return std::bit_cast<std::uint32_t>(b) == std::bit_cast<std::uint32_t>(bias_.front());
  };
  if (std::all_of(bias_.begin(), bias_.end(), same)) bias_.resize(1);
  const std::int64_t rows = this->rows();
  return {make_csr(rows, cols, std::move(offsets_), std::move(cols_), std::move(values_)),
          std::move(bias_), activation};
}

}  // namespace spdnn::compiler
