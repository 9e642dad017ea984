// Choosing which connections go and which come, and how many.
#include "rewire.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numbers>
#include <numeric>

#include "host_view.hpp"
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
  next.row_offsets.reserve(static_cast<std::size_t>(pattern.rows() + 1));
  next.col_indices.reserve(kept.size());
  next.source.reserve(kept.size());
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

std::vector<float> NextPattern::move(const float* values) const {
  std::vector<float> moved;
  moved.reserve(source.size());
  for (const std::int64_t from : source) moved.push_back(from < 0 ? 0.0F : values[from]);
  return moved;
}

std::int64_t NextPattern::bytes() const noexcept {
  const std::size_t wide = row_offsets.size() + source.size();
  return static_cast<std::int64_t>(wide * sizeof(std::int64_t) +
                                   col_indices.size() * sizeof(std::uint32_t));
}

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
  grown.reserve(candidates_.size());
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
  std::vector<std::int64_t> grown;
  grown.reserve(static_cast<std::size_t>(count));
  // As many draws at a time as places are missing: the last of the last ones is the one that fills.
  for (std::int64_t draw = 0; std::ssize(grown) < count;) {
    const std::int64_t end = draw + count - std::ssize(grown);
    for (; draw < end; ++draw) {
      const std::int64_t place = drawn_place(random, draw, pattern.rows() * pattern.cols());
      const std::int64_t row = place / pattern.cols();
      const auto first = pattern.col_indices().begin() + pattern.row_offsets()[row];
      const auto last = pattern.col_indices().begin() + pattern.row_offsets()[row + 1];
      if (!std::binary_search(first, last, place % pattern.cols())) grown.push_back(place);
    }
    std::sort(grown.begin(), grown.end());
    grown.erase(std::unique(grown.begin(), grown.end()), grown.end());
  }
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

void Rewirer::sum(float* gradient, std::int64_t places) {
  if (data_.size() == 1) return;
  Network<float>& network = worker_.network();
  data_.all_reduce(gradient, gradient, places, DType::f32, Reduction::sum,
                   shares_memory(network.device()) ? nullptr : &network.stream());
}

void Rewirer::tell(const Pattern& pattern, NextPattern& next) {
  if (data_.size() == 1) return;
  const std::int64_t rows = pattern.rows();
  const std::int64_t nnz = pattern.nnz();
  std::vector<std::int64_t> words = std::move(next.row_offsets);
  words.reserve(static_cast<std::size_t>(rows + 1 + 2 * nnz));
  words.insert(words.end(), next.source.begin(), next.source.end());
  words.insert(words.end(), next.col_indices.begin(), next.col_indices.end());
  words.resize(static_cast<std::size_t>(rows + 1 + 2 * nnz));
  std::vector<std::int64_t> counts(static_cast<std::size_t>(data_.size()));
  counts[0] = std::ssize(words);
  data_.all_gather(words.data(), words.data(), counts, DType::i64, nullptr);
  const auto source = words.begin() + rows + 1;
  next.row_offsets.assign(words.begin(), source);
  next.source.assign(source, source + nnz);
  next.col_indices.assign(source + nnz, words.end());
  next.grown = std::count(source, source + nnz, -1);
  count_bytes(std::ssize(words) * static_cast<std::int64_t>(sizeof(std::int64_t)) + next.bytes());
}

std::vector<float*> Rewirer::arrays_of(std::size_t layer) const {
  const std::int64_t begin = worker_.network().values_of(layer).begin;
  std::vector<float*> arrays = {worker_.network().parameters() + begin};
  for (float* const state : worker_.optimizer().state()) arrays.push_back(state + begin);
  return arrays;
}

std::unique_ptr<Rewirer> make_rewirer(const TrainSpec& spec, Worker& worker, Communicator& data) {
  if (worker.model().size() > 1) return make_shared_rewirer(spec, worker, data);
  std::int64_t devices = rewire_kernels(worker.device().info().kind) != nullptr ? 1 : 0;
  if (spec.rewire.method != RewireMethod::none && data.size() > 1) {
    data.all_reduce(&devices, &devices, 1, DType::i64, Reduction::sum, nullptr);
  }
  return devices == data.size() ? make_device_rewirer(spec, worker, data)
                                : make_host_rewirer(spec, worker, data);
}

}  // namespace spdnn::train
