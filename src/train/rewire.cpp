// Choosing which connections go and which come, and how many.
#include "rewire.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numbers>
#include <numeric>
#include <unordered_set>

#include "spdnn/rewire_op.hpp"

namespace spdnn::train {
namespace {

constexpr std::uint64_t kGrowStream = std::uint64_t{1} << 33U;

/// Whether each entry stays: not the `count` smallest; NaNs are larger than all numbers.
std::vector<bool> kept_entries(const Pattern& pattern, const float* values, std::int64_t count) {
  std::vector<std::uint32_t> order(static_cast<std::size_t>(pattern.nnz()));
  std::iota(order.begin(), order.end(), 0U);
  const auto smaller = [&](std::uint32_t a, std::uint32_t b) {
    const std::uint32_t x = magnitude_order(std::bit_cast<std::uint32_t>(values[a]));
    const std::uint32_t y = magnitude_order(std::bit_cast<std::uint32_t>(values[b]));
    return x < y || (x == y && a < b);
  };
  std::nth_element(order.begin(), order.begin() + count, order.end(), smaller);
  std::vector<bool> kept(order.size(), true);
  for (std::int64_t i = 0; i < count; ++i) kept[order[i]] = false;
  return kept;
}

/// The kept entries and `grown` places (row · cols + col, ascending) as one pattern.
NextPattern merge(const Pattern& pattern, const std::vector<bool>& kept,
                  const std::vector<std::int64_t>& grown) {
  NextPattern next;
  next.grown = std::ssize(grown);
  next.row_offsets.push_back(0);
  auto place = grown.begin();
  for (std::int64_t row = 0; row < pattern.rows(); ++row) {
    const std::int64_t first = row * pattern.cols();
    const auto add_grown = [&](std::int64_t before) {
      for (; place != grown.end() && *place < before; ++place) {
        next.col_indices.push_back(static_cast<std::uint32_t>(*place - first));
        next.source.push_back(-1);
      }
    };
    for (std::int64_t k = pattern.row_offsets()[row]; k < pattern.row_offsets()[row + 1]; ++k) {
      if (!kept[k]) continue;
      add_grown(first + pattern.col_indices()[k]);
      next.col_indices.push_back(pattern.col_indices()[k]);
      next.source.push_back(k);
    }
    add_grown(first + pattern.cols());
    next.row_offsets.push_back(std::ssize(next.col_indices));
  }
  return next;
}

}  // namespace

GrowLargest::GrowLargest(const Pattern& pattern, const float* values, std::int64_t count)
    : pattern_(pattern), count_(count), kept_(kept_entries(pattern, values, count)) {
  candidates_.reserve(static_cast<std::size_t>(2 * count));
}

void GrowLargest::weigh(std::span<const float> gradient) {
  const std::int64_t cols = pattern_.cols();
  for (std::size_t first = 0; first < gradient.size() && count_ > 0; ++row_) {
    std::int64_t entry = pattern_.row_offsets()[row_];
    const std::int64_t end = pattern_.row_offsets()[row_ + 1];
    for (std::int64_t col = 0; col < cols; ++col) {
      const float g = gradient[first++];
      const bool connected = entry < end && pattern_.col_indices()[entry] == col;
      if (connected && kept_[entry++]) continue;
      // What overflowed on the way back has no order.
      const float size = std::isnan(g) ? 0.0F : std::abs(g);
      if (size <= least_) continue;  // of equal ones the first are there already
      candidates_.push_back({size, row_ * cols + col});
      if (std::ssize(candidates_) == 2 * count_) choose();
    }
  }
}

/// Leaves as many as are to grow.
void GrowLargest::choose() {
  if (std::ssize(candidates_) <= count_) return;
  const auto last = candidates_.begin() + count_ - 1;
  std::nth_element(candidates_.begin(), last, candidates_.end(),
                   [](const Candidate& a, const Candidate& b) {
                     return a.size > b.size || (a.size == b.size && a.place < b.place);
                   });
  least_ = last->size;
  candidates_.erase(last + 1, candidates_.end());
}

NextPattern GrowLargest::finish() {
  choose();
  std::vector<std::int64_t> grown;
  for (const Candidate& candidate : candidates_) grown.push_back(candidate.place);
  std::sort(grown.begin(), grown.end());
  return merge(pattern_, kept_, grown);
}

std::int64_t GrowLargest::bytes() const noexcept {
  return static_cast<std::int64_t>(candidates_.capacity() * sizeof(Candidate)) +
         std::ssize(kept_) / 8;
}

NextPattern grow_random(const Pattern& pattern, const float* values, std::int64_t count,
                        std::uint64_t seed, std::uint64_t stream) {
  const std::vector<bool> kept = kept_entries(pattern, values, count);
  const Random random(seed, stream);
  std::unordered_set<std::int64_t> chosen;
  for (std::int64_t draw = 0; std::ssize(chosen) < count; ++draw) {
    const std::int64_t place = drawn_place(random, draw, pattern.rows() * pattern.cols());
    const std::int64_t row = place / pattern.cols();
    const auto begin = pattern.col_indices().begin() + pattern.row_offsets()[row];
    const auto end = pattern.col_indices().begin() + pattern.row_offsets()[row + 1];
    if (!std::binary_search(begin, end, place % pattern.cols())) chosen.insert(place);
  }
  std::vector<std::int64_t> grown(chosen.begin(), chosen.end());
  std::sort(grown.begin(), grown.end());
  return merge(pattern, kept, grown);
}

bool Rewirer::is_sparse(std::size_t layer) const {
  const TrainLayer& of = worker_.layers()[layer];
  return !std::holds_alternative<PoolForm>(of.form) && !of.pattern.is_dense();
}

bool Rewirer::due(std::int64_t step, std::int64_t total) const {
  const RewireSpec& rewire = spec_.rewire;
  return rewire.method != RewireMethod::none && step > 0 && step % rewire.every == 0 &&
         static_cast<double>(step) < rewire.until * static_cast<double>(total);
}

std::int64_t Rewirer::count_for(const Pattern& pattern, double part_done) const {
  const double fraction =
      0.5 * spec_.rewire.fraction *
      (1.0 + std::cos(std::numbers::pi * std::min(part_done / spec_.rewire.until, 1.0)));
  const auto count = static_cast<std::int64_t>(fraction * static_cast<double>(pattern.nnz()));
  // Random growth needs as many places that were free, and finds them by trying.
  return std::min(count, (pattern.rows() * pattern.cols() - pattern.nnz()) / 2);
}

std::uint64_t Rewirer::grow_stream(std::size_t layer) const {
  return kGrowStream +
         static_cast<std::uint64_t>(worker_.optimizer().steps()) * worker_.layers().size() + layer;
}

std::unique_ptr<Rewirer> make_rewirer(const TrainSpec& spec, Worker& worker, Communicator& data) {
  const bool here =
      worker.model().size() == 1 && rewire_kernels(worker.device().info().kind) != nullptr;
  std::int64_t devices = here ? 1 : 0;
  if (spec.rewire.method != RewireMethod::none && data.size() > 1) {
    data.all_reduce(&devices, &devices, 1, DType::i64, Reduction::sum, nullptr);
  }
  return devices == data.size() ? make_device_rewirer(spec, worker, data)
                                : make_host_rewirer(spec, worker, data);
}

}  // namespace spdnn::train
