// Choosing which connections go and which come, and moving what belongs to them.
#include "rewire.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>
#include <unordered_set>

#include "spdnn/random.hpp"

namespace spdnn::train {
namespace {

constexpr std::uint64_t kGrowStream = std::uint64_t{1} << 33U;

/// Whether each entry stays: not the `count` smallest.
std::vector<bool> kept_entries(const Pattern& pattern, const float* values, std::int64_t count) {
  std::vector<std::uint32_t> order(static_cast<std::size_t>(pattern.nnz()));
  std::iota(order.begin(), order.end(), 0U);
  const auto smaller = [&](std::uint32_t a, std::uint32_t b) {
    const float x = std::abs(values[a]);
    const float y = std::abs(values[b]);
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

void move_values(float* values, const NextPattern& next) {
  const std::vector<float> old(values, values + next.source.size());
  for (std::size_t i = 0; i < next.source.size(); ++i) {
    values[i] = next.source[i] < 0 ? 0.0F : old[next.source[i]];
  }
}

}  // namespace

NextPattern grow_largest(const Pattern& pattern, const float* values, std::int64_t count,
                         std::span<float> gradient, std::span<float> scratch) {
  const std::vector<bool> kept = kept_entries(pattern, values, count);
  for (float& g : gradient) g = std::abs(g);
  for (std::int64_t row = 0; row < pattern.rows(); ++row) {
    for (std::int64_t k = pattern.row_offsets()[row]; k < pattern.row_offsets()[row + 1]; ++k) {
      if (kept[k]) gradient[row * pattern.cols() + pattern.col_indices()[k]] = -1.0F;
    }
  }
  std::vector<std::int64_t> grown;
  if (count > 0) {
    std::copy(gradient.begin(), gradient.end(), scratch.begin());
    const auto bar = scratch.end() - count;
    std::nth_element(scratch.begin(), bar, scratch.end());
    const float least = *bar;
    std::int64_t equal = std::count(bar, scratch.end(), least);
    for (std::int64_t place = 0; place < std::ssize(gradient); ++place) {
      if (gradient[place] > least || (gradient[place] == least && equal-- > 0)) {
        grown.push_back(place);
      }
    }
  }
  return merge(pattern, kept, grown);
}

NextPattern grow_random(const Pattern& pattern, const float* values, std::int64_t count,
                        std::uint64_t seed, std::uint64_t stream) {
  const std::vector<bool> kept = kept_entries(pattern, values, count);
  Random random(seed, stream);
  std::unordered_set<std::int64_t> chosen;
  while (std::ssize(chosen) < count) {
    const auto row = std::int64_t{random.below(static_cast<std::uint32_t>(pattern.rows()))};
    const auto col = random.below(static_cast<std::uint32_t>(pattern.cols()));
    const auto begin = pattern.col_indices().begin() + pattern.row_offsets()[row];
    const auto end = pattern.col_indices().begin() + pattern.row_offsets()[row + 1];
    if (!std::binary_search(begin, end, col)) chosen.insert(row * pattern.cols() + col);
  }
  std::vector<std::int64_t> grown(chosen.begin(), chosen.end());
  std::sort(grown.begin(), grown.end());
  return merge(pattern, kept, grown);
}

Rewirer::Rewirer(const TrainSpec& spec, Network<float>& network, Communicator& comm)
    : spec_(spec), network_(network), comm_(comm), next_(network.layers().size()) {
  if (!needs_gradient()) return;
  std::int64_t most = 0;
  for (const TrainLayer& layer : network.layers()) {
    const Pattern& p = layer.pattern;
    if (!p.is_dense()) most = std::max(most, p.rows() * p.cols() + p.rows());
  }
  dense_ = network.device().allocate(static_cast<std::size_t>(most) * sizeof(float));
  scratch_.resize(static_cast<std::size_t>(most));
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

void Rewirer::observe(std::size_t layer, const Panels<const float>& dz,
                      const Panels<const float>& x, double part_done) {
  const TrainLayer& observed = network_.layers()[layer];
  const Pattern& pattern = observed.pattern;
  if (pattern.is_dense()) return;
  const std::int64_t places = pattern.rows() * pattern.cols();
  auto* gradient = dense_.as<float>();
  backward_weights(observed, network_.kernels(),
                   Pattern::dense(pattern.rows(), pattern.cols()).view(), dz, x, gradient,
                   gradient + places, network_.stream());
  if (comm_.size() > 1) {
    comm_.all_reduce(gradient, gradient, places, DType::f32, Reduction::sum, nullptr);
  }
  const auto count = static_cast<std::size_t>(places);
  next_[layer] = grow_largest(pattern, network_.view(layer).values, count_for(pattern, part_done),
                              {gradient, count}, std::span(scratch_).first(count));
}

std::int64_t Rewirer::apply(Optimizer& optimizer, double part_done) {
  std::int64_t grown = 0;
  for (std::size_t l = 0; l < next_.size(); ++l) {
    const Pattern& pattern = network_.layers()[l].pattern;
    if (pattern.is_dense()) continue;
    if (!needs_gradient()) {
      const auto stream =
          kGrowStream + static_cast<std::uint64_t>(optimizer.steps()) * next_.size();
      next_[l] = grow_random(pattern, network_.view(l).values, count_for(pattern, part_done),
                             spec_.seed, stream + l);
    }
    const std::int64_t begin = network_.values_of(l).begin;
    move_values(network_.parameters() + begin, next_[l]);
    for (float* state : optimizer.state()) move_values(state + begin, next_[l]);
    grown += next_[l].grown;
    network_.replace_pattern(l, std::move(next_[l].row_offsets), std::move(next_[l].col_indices));
    next_[l] = {};
  }
  return grown;
}

}  // namespace spdnn::train
