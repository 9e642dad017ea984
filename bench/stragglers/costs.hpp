// What the steps of a run cost on one core, measured with the kernels and batches of a plan.
#pragma once

#include <cstdint>
#include <vector>

#include "spdnn/model.hpp"
#include "stragglers/simulate.hpp"

namespace spdnn::bench {

/// Where images die, and what was measured on the way there.
struct Fates {
  std::vector<std::int32_t> last_segment;  ///< by image; the number of segments where it lives on
  double load_s = 0.0;                     ///< an image
  double pack_s = 0.0;                     ///< a living image
};
/// Takes `images` through the segments of `plan` on `core`, batch by batch, as a rank does.
[[nodiscard]] Fates run_images(const Model& model, const Csr& images, const Plan& plan, int core);

/// Seconds of every segment by groups of `kSideBySide` images, up to one and a half batches:
/// medians of `repetitions` passes over all segments on `core`, in which no image is dropped.
[[nodiscard]] std::vector<std::vector<double>> measure_segments(const Model& model,
                                                                const Csr& images, const Plan& plan,
                                                                int core, int repetitions);

/// What sleeping twice as long as a segment took adds to the CPU time of the next one: medians over
/// all segments, of one group of images and of a batch.
[[nodiscard]] Nap measure_nap(const Model& model, const Csr& images, const Plan& plan, int core,
                              int repetitions);

/// Seconds to copy an image of `features` activations to another rank's panels.
[[nodiscard]] double measure_copy(std::int64_t features, std::int64_t width);

/// Seconds until a thread that blocks in a condition variable runs after it was notified.
[[nodiscard]] double measure_wake();

}  // namespace spdnn::bench
