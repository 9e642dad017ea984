// Dynamic sparse training: dropping the smallest connections of a layer and growing as many.
#pragma once

#include <algorithm>
#include <memory>
#include <span>
#include <vector>

#include "worker.hpp"

namespace spdnn::train {

/// A layer's next connections: its old ones but the dropped, and the grown.
struct NextPattern {
  std::vector<std::int64_t> row_offsets;
  std::vector<std::uint32_t> col_indices;
  std::vector<std::int64_t> source;  ///< entry in the old pattern, −1 for a grown one
  std::int64_t grown = 0;

  /// What belonged to the old connections, in the order of the next ones; grown ones are 0.
  [[nodiscard]] std::vector<float> move(const float* values) const;
  [[nodiscard]] std::int64_t bytes() const noexcept;
};

/// Keeps all but the `count` smallest of a layer's values (by magnitude, of equal ones the first
/// go), and grows `count` connections where the gradient is largest by magnitude (of equal ones the
/// first), among places that are not kept. Holds little more than what may still be chosen.
class GrowLargest {
 public:
  /// `pattern` must live as long; `values` are looked at here alone.
  GrowLargest(const Pattern& pattern, const float* values, std::int64_t count);
  /// The gradients of all places of the next rows, from the first one on.
  void weigh(std::span<const float> gradient);
  /// When all rows were weighed.
  [[nodiscard]] NextPattern finish();
  /// Bytes that it takes.
  [[nodiscard]] std::int64_t bytes() const noexcept;

 private:
  struct Candidate {
    float size;
    std::int64_t place;  ///< row · cols + col
  };
  void choose();

  const Pattern& pattern_;
  std::int64_t count_;
  std::vector<bool> kept_;             ///< by entry
  std::vector<Candidate> candidates_;  ///< at most twice as many as are to grow
  float least_ = -1.0F;                ///< what a candidate must exceed by now
  std::int64_t row_ = 0;
};
/// The same, but grows at random places that were not connected.
[[nodiscard]] NextPattern grow_random(const Pattern& pattern, const float* values,
                                      std::int64_t count, std::uint64_t seed, std::uint64_t stream);

/// Rewires the layers of a network. All ranks call it alike.
class Rewirer {
 public:
  /// `data` joins the ranks that have the same rows and other images.
  Rewirer(const TrainSpec& spec, Worker& worker, Communicator& data)
      : spec_(spec), worker_(worker), data_(data) {}
  Rewirer(const Rewirer&) = delete;
  Rewirer& operator=(const Rewirer&) = delete;
  virtual ~Rewirer() = default;

  /// Whether the connections change after step `step` (from 0) of `total`.
  [[nodiscard]] bool due(std::int64_t step, std::int64_t total) const;
  /// Whether the way back must show each layer's gradient to `observe` in such a step.
  [[nodiscard]] bool needs_gradient() const { return spec_.rewire.method == RewireMethod::rigl; }
  /// Finds a layer's next connections from the gradient of all that could be.
  virtual void observe(std::size_t layer, const AnyBatchPass<float>::GradientOn& gradient,
                       double part_done) = 0;
  /// Gives every sparse layer that has not got them its next connections, with the parameters and
  /// the optimiser's state moved along; grown ones are 0. Returns how many were grown since it was
  /// last called.
  virtual std::int64_t apply(double part_done) = 0;

  /// Most bytes it took at once, of the host's memory and of a GPU's.
  [[nodiscard]] std::int64_t host_bytes() const noexcept { return host_bytes_; }
  [[nodiscard]] std::int64_t device_bytes() const noexcept { return device_bytes_; }

 protected:
  [[nodiscard]] bool is_sparse(std::size_t layer) const;
  /// How many of a layer's connections change.
  [[nodiscard]] std::int64_t count_for(const Pattern& pattern, double part_done) const;
  /// The stream of random numbers that a layer grows by in this step.
  [[nodiscard]] std::uint64_t grow_stream(std::size_t layer) const;
  /// Adds up gradients in the device's memory over the ranks with other images.
  void sum(float* gradient, std::int64_t places);
  /// Gives the decision of the first rank with other images to all of them: unlike devices round
  /// unlike, and of two connections that are nearly as small one could drop this one and one that.
  void tell(const Pattern& pattern, NextPattern& next);
  /// A layer's values in the parameters and in each array of the optimiser's state.
  [[nodiscard]] std::vector<float*> arrays_of(std::size_t layer) const;
  /// Of the host's memory, at once.
  void count_bytes(std::int64_t bytes) noexcept { host_bytes_ = std::max(host_bytes_, bytes); }

  const TrainSpec& spec_;
  Worker& worker_;
  Communicator& data_;
  std::int64_t host_bytes_ = 0, device_bytes_ = 0;
};

/// Decided on the host, where a rank has all rows: layer by layer, and everything stays where it
/// is.
[[nodiscard]] std::unique_ptr<Rewirer> make_host_rewirer(const TrainSpec& spec, Worker& worker,
                                                         Communicator& data);
/// On the host, where ranks share rows. All of a layer's connections are weighed together, wherever
/// its rows are: the first of these ranks gathers them, decides, and gives each its rows back.
[[nodiscard]] std::unique_ptr<Rewirer> make_shared_rewirer(const TrainSpec& spec, Worker& worker,
                                                           Communicator& data);

/// What a change in a device's memory takes at once.
struct RewireRoom {
  /// Places whose gradients are there at a time, where a layer has no more connections.
  std::int64_t places = std::int64_t{1} << 22U;
  /// Draws of a random growth, as a part of those that it takes as a rule.
  double draws = 1.0;
};
/// In the memory of a device that has kernels for it, to the same bits, where ranks do not share
/// rows. What the kernels take stays where it is, so that work which a GPU keeps stays good; the
/// host forgets the patterns.
[[nodiscard]] std::unique_ptr<Rewirer> make_device_rewirer(const TrainSpec& spec, Worker& worker,
                                                           Communicator& data,
                                                           const RewireRoom& room = {});

/// The one that goes with how rows are held: on the device where it can be done there on all ranks
/// of `data`. They call it alike.
[[nodiscard]] std::unique_ptr<Rewirer> make_rewirer(const TrainSpec& spec, Worker& worker,
                                                    Communicator& data);

}  // namespace spdnn::train
