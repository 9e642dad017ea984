// Builds blocks of rows with equal lists.
#include "cuda/row_blocks.hpp"

#include <algorithm>

#include "equal_lists.hpp"

namespace spdnn::cuda {
namespace {

/// A block before its place is known.
struct Draft {
  std::int64_t smallest_column = 0;
  const std::uint32_t* rows = nullptr;
  int count = 0;
};

std::vector<Draft> make_drafts(const CsrView& w, const RowsByList& groups, int most_rows) {
  std::vector<Draft> drafts;
  for (std::size_t g = 0; g + 1 < groups.begins.size(); ++g) {
    const std::uint32_t* next = groups.rows.data() + groups.begins[g];
    const std::uint32_t* end = groups.rows.data() + groups.begins[g + 1];
    std::int64_t smallest = w.cols;
    for (std::int64_t k = w.row_begin(*next); k < w.row_begin(*next + 1); ++k) {
      smallest = std::min(smallest, w.col(k));
    }
    for (int size = most_rows; size >= 1; size /= 2) {
      for (; end - next >= size; next += size) drafts.push_back({smallest, next, size});
    }
  }
  std::stable_sort(drafts.begin(), drafts.end(), [](const Draft& a, const Draft& b) {
    return a.smallest_column < b.smallest_column;
  });
  return drafts;
}

void add_values(const CsrView& w, const Draft& draft, std::int64_t entries, RowBlocks& blocks) {
  const auto* values = static_cast<const float*>(w.values);
  for (std::int64_t k = 0; k < entries; ++k) {
    for (int r = 0; r < draft.count; ++r) {
      blocks.values.push_back(values[w.row_begin(draft.rows[r]) + k]);
    }
  }
  while (blocks.values.size() % 4 != 0) blocks.values.push_back(0.0F);
}

}  // namespace

RowBlocks make_row_blocks(const CsrView& w, int most_rows) {
  const RowsByList groups = group_by_list(w);
  RowBlocks made;
  for (const Draft& draft : make_drafts(w, groups, most_rows)) {
    RowBlock& block = made.blocks.emplace_back();
    block.list = w.row_begin(*draft.rows);
    block.entries = w.row_begin(*draft.rows + 1) - block.list;
    block.values = std::ssize(made.values);
    block.first = static_cast<std::uint32_t>(made.rows.size());
    block.rows = draft.count;
    made.rows.insert(made.rows.end(), draft.rows, draft.rows + draft.count);
    if (draft.count > 1 && !w.shared_value) add_values(w, draft, block.entries, made);
  }
  return made;
}

}  // namespace spdnn::cuda
