// Choosing which connections go and which come, and moving what belongs to them.
#include "rewire.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>
#include <optional>
#include <unordered_set>
#include <utility>

#include "batch_pass.hpp"
#include "host_view.hpp"
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

/// All of a layer's inputs, where a rank's slice reads some of them. Ranks that share rows store
/// fp32.
class WholeInput {
 public:
  WholeInput(Worker& worker, std::size_t layer) {
    if (layer == 0 || worker.model().size() == 1) return;
    const Panels<const float> own =
        dynamic_cast<const BatchPass<float>&>(worker.pass()).output(layer - 1);
    const Halo halo =
        halo_of_all(worker.model(), worker.layers(), worker.partition(), worker.shard(), layer);
    Panels<float> all = {nullptr, halo.inputs, own.batch, own.width, nullptr};
    Device& device = worker.network().device();
    Stream& stream = worker.network().stream();
    data_ = device.allocate(static_cast<std::size_t>(all.size()) * sizeof(float));
    all.data = data_.as<float>();
    HaloExchange<float> exchange(halo, worker.model(), device, stream, own.batch);
    exchange.start_forward(own, all, {0, own.count()}, stream);
    exchange.finish_forward(all, {0, own.count()}, stream);
    view_ = all;
  }
  /// Null where the slice reads everything.
  [[nodiscard]] const Panels<const float>* view() const { return view_ ? &*view_ : nullptr; }

 private:
  Buffer data_;
  std::optional<Panels<const float>> view_;
};

}  // namespace

NextPattern grow_largest(const Pattern& pattern, const float* values, std::int64_t count,
                         std::span<float> gradient, std::span<float> scratch) {
  const std::vector<bool> kept = kept_entries(pattern, values, count);
  // What overflowed on the way back has no order.
  for (float& g : gradient) g = std::isnan(g) ? 0.0F : std::abs(g);
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

Rewirer::Rewirer(const TrainSpec& spec, Worker& worker, Communicator& data)
    : spec_(spec),
      worker_(worker),
      data_(data),
      all_(worker.layers().size()),
      next_(worker.layers().size()) {}

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

/// The gradient of every connection there could be, on the first rank.
std::vector<float> Rewirer::gradient_of_all(std::size_t layer,
                                            const AnyBatchPass<float>::GradientOn& gradient_on) {
  Network<float>& network = worker_.network();
  const TrainLayer& whole = worker_.layers()[layer];
  const std::int64_t cols = whole.pattern.cols();
  Stream& stream = network.stream();
  const TrainLayer own = {Pattern::dense(std::ssize(worker_.shard().units[layer]), cols),
                          whole.activation, whole.form};
  const std::int64_t places = own.pattern.nnz();
  const Buffer gradient = network.device().allocate(
      static_cast<std::size_t>(places + own.pattern.rows()) * sizeof(float));
  auto* values = gradient.as<float>();
  const WholeInput input(worker_, layer);
  gradient_on(own, input.view(), values, values + places);
  if (data_.size() > 1) {
    data_.all_reduce(values, values, places, DType::f32, Reduction::sum,
                     shares_memory(network.device()) ? nullptr : &stream);
  }
  const HostView<float> found(values, places, network.device(), stream);
  LayerRows<float> rows;
  rows.pattern = Pattern::dense(own.pattern.rows(), cols);
  rows.values.resize(1);
  std::vector<std::size_t> order = worker_.places(layer);
  rows.values[0].resize(static_cast<std::size_t>(places));
  for (std::size_t i = 0; i < order.size(); ++i) {
    std::copy_n(found.data() + static_cast<std::int64_t>(i) * cols, cols,
                rows.values[0].begin() + static_cast<std::int64_t>(order[i]) * cols);
  }
  rows.biases.emplace_back(order.size());
  LayerRows<float> all =
      move_rows(worker_.model(), worker_.partition()[layer],
                all_on(0, worker_.model().size(), whole.units()), std::move(rows));
  return std::move(all.values[0]);
}

void Rewirer::observe(std::size_t layer, const AnyBatchPass<float>::GradientOn& gradient_on,
                      double part_done) {
  if (!is_sparse(layer)) return;
  std::vector<float> gradient = gradient_of_all(layer, gradient_on);
  all_[layer] = worker_.gather(layer);
  if (worker_.model().rank() != 0) return;
  std::vector<float> scratch(gradient.size());
  const LayerRows<float>& rows = all_[layer];
  next_[layer] = grow_largest(rows.pattern, rows.values[0].data(),
                              count_for(rows.pattern, part_done), gradient, scratch);
  most_bytes_ =
      std::max(most_bytes_, 2 * std::ssize(gradient) * static_cast<std::int64_t>(sizeof(float)));
}

std::int64_t Rewirer::apply(double part_done) {
  Communicator& model = worker_.model();
  std::int64_t grown = 0;
  std::vector<LayerRows<float>> rows;
  for (std::size_t l = 0; l < next_.size(); ++l) {
    if (!is_sparse(l)) {
      rows.push_back(worker_.rows(l));
      continue;
    }
    LayerRows<float> all = needs_gradient() ? std::exchange(all_[l], {}) : worker_.gather(l);
    if (model.rank() == 0) {
      if (!needs_gradient()) {
        const auto stream =
            kGrowStream + static_cast<std::uint64_t>(worker_.optimizer().steps()) * next_.size();
        next_[l] = grow_random(all.pattern, all.values[0].data(), count_for(all.pattern, part_done),
                               spec_.seed, stream + l);
      }
      NextPattern next = std::exchange(next_[l], {});
      for (std::vector<float>& values : all.values) move_values(values.data(), next);
      grown += next.grown;
      all.pattern.replace(std::move(next.row_offsets), std::move(next.col_indices));
    }
    rows.push_back(move_rows(model, all_on(0, model.size(), worker_.layers()[l].units()),
                             worker_.partition()[l], std::move(all)));
  }
  worker_.load(worker_.partition(), std::move(rows));
  model.all_reduce(&grown, &grown, 1, DType::i64, Reduction::sum, nullptr);
  return grown;
}

}  // namespace spdnn::train
