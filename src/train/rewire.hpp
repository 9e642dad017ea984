// Dynamic sparse training: dropping the smallest connections of a layer and growing as many.
#pragma once

#include <vector>

#include "worker.hpp"

namespace spdnn::train {

/// A layer's next connections: its old ones but the dropped, and the grown.
struct NextPattern {
  std::vector<std::int64_t> row_offsets;
  std::vector<std::uint32_t> col_indices;
  std::vector<std::int64_t> source;  ///< entry in the old pattern, −1 for a grown one
  std::int64_t grown = 0;
};

/// Keeps all but the `count` smallest of `values` (by magnitude, of equal ones the first go), and
/// grows `count` where `gradient`, one for each place, is largest by magnitude, among places not
/// kept. `gradient` is overwritten, and so is `scratch`, which has room for as many.
[[nodiscard]] NextPattern grow_largest(const Pattern& pattern, const float* values,
                                       std::int64_t count, std::span<float> gradient,
                                       std::span<float> scratch);
/// The same, but grows at random places that were not connected.
[[nodiscard]] NextPattern grow_random(const Pattern& pattern, const float* values,
                                      std::int64_t count, std::uint64_t seed, std::uint64_t stream);

/// Rewires the layers of a network. All of a layer's connections are weighed together, wherever its
/// rows are: the first of the ranks that share them gathers them, decides, and gives each rank its
/// rows back. All ranks call it alike.
class Rewirer {
 public:
  /// `data` joins the ranks that have the same rows and other images.
  Rewirer(const TrainSpec& spec, Worker& worker, Communicator& data);

  /// Whether the connections change after step `step` (from 0) of `total`.
  [[nodiscard]] bool due(std::int64_t step, std::int64_t total) const;
  /// Whether the way back must show each layer's gradient to `observe` in such a step.
  [[nodiscard]] bool needs_gradient() const { return spec_.rewire.method == RewireMethod::rigl; }
  /// Finds a layer's next connections from the gradient of all that could be.
  void observe(std::size_t layer, const AnyBatchPass<float>::GradientOn& gradient,
               double part_done);
  /// Gives every sparse layer its next connections, with the parameters and the optimiser's state
  /// moved along; grown ones are 0. Returns how many were grown.
  std::int64_t apply(double part_done);

  /// Most bytes it took at once.
  [[nodiscard]] std::int64_t bytes() const { return most_bytes_; }

 private:
  [[nodiscard]] bool is_sparse(std::size_t layer) const;
  [[nodiscard]] std::int64_t count_for(const Pattern& pattern, double part_done) const;
  [[nodiscard]] std::vector<float> gradient_of_all(std::size_t layer,
                                                   const AnyBatchPass<float>::GradientOn& gradient);

  const TrainSpec& spec_;
  Worker& worker_;
  Communicator& data_;
  /// On the first rank: the rows of each layer and what becomes of them.
  std::vector<LayerRows<float>> all_;
  std::vector<NextPattern> next_;
  std::int64_t most_bytes_ = 0;
};

}  // namespace spdnn::train
