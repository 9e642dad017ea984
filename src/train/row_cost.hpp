// What rows of layers cost on a rank's device, measured on the layers that are to be trained.
#pragma once

#include "any_pass.hpp"
#include "step_clock.hpp"

namespace spdnn::train {

/// Parts of a layer's units that are measured, from the smallest to all of them: small slices are
/// slower a row.
inline constexpr std::int64_t row_parts[] = {16, 4, 2, 1};  // one of so many

/// How many units each of `row_parts` is, ascending, none twice; none of a pooling.
[[nodiscard]] std::vector<std::int64_t> measured_units(const TrainLayer& layer);

/// Images of a trial, in whole panels: half of a batch, as ranks that share rows take through a
/// layer together, or as many as fill the caches, beyond which an image costs the same.
[[nodiscard]] std::int64_t trial_images(const TrainLayer& layer, std::int64_t batch,
                                        const DeviceInfo& device);

/// A slice of a layer on made-up images, stored as fp32, bf16 or fp16.
class SliceTrial {
 public:
  SliceTrial(const TrainLayer& layer, std::int64_t units, std::int64_t images,
             const TrainKernels<float>& kernels, Precision stored, Device& device);
  /// Takes all images there, and back.
  void forward();
  void backward();

 private:
  /// So many zeros, of what is stored or of what sums are.
  [[nodiscard]] Buffer zeros(std::int64_t count, std::int64_t each);
  [[nodiscard]] Buffer zeros(std::int64_t count) { return zeros(count, stored_bytes(stored_)); }
  [[nodiscard]] Buffer wide_zeros(std::int64_t count) { return zeros(count, sizeof(float)); }
  /// Calls `use` with the kernels of what is stored, and waits.
  template <class Use>
  void with_kernels(const Use& use);
  template <class T>
  [[nodiscard]] LinearView<T> weights() const;
  template <class T>
  [[nodiscard]] Panels<T> inputs(const Buffer& buffer) const;
  template <class T>
  [[nodiscard]] Panels<T> outputs(const Buffer& buffer) const;

  TrainLayer slice_;
  const TrainKernels<float>& kernels_;
  Precision stored_;
  Device& device_;
  std::int64_t width_, images_;
  std::unique_ptr<Stream> stream_;
  Buffer x_, dx_, y_, dz_, values_, gradient_, bias_, bias_gradient_, workspace_;
  DevicePattern pattern_;
};

/// Seconds that an image takes a device through so many units of the layer and back, among so many.
/// The way back begins with cold caches: the layers between have used them.
[[nodiscard]] double measure_units(const TrainLayer& layer, std::int64_t units, std::int64_t images,
                                   const TrainKernels<float>& kernels, Precision stored,
                                   Device& device, StepClock& clock);

}  // namespace spdnn::train
