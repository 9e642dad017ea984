// The Graph Challenge's interpolation of images along their width; private to this folder.
#pragma once

#include <cstdint>
#include <vector>

#include "fft.hpp"
#include "spdnn/io.hpp"

namespace spdnn {

/// Interpolates all images at once along their width: the images, side by side in one long row of
/// pixels for each height, are one periodic signal. Its spectrum is zero-padded to `side` columns
/// an image (or cut to it), the Nyquist term being put on one side alone, so that the result is
/// complex: the real part comes from `columns`, the imaginary one is `nyquist()[row] · phase(…)`.
class WidthInterpolation {
 public:
  WidthInterpolation(const IdxImages& images, std::int64_t side);

  /// Columns made at once by one thread: each pixel's spectrum is read once for all of them.
  static constexpr std::int64_t kGroup = 4;
  /// Images from one row to the next in what `columns` gives, a multiple of `kLanes`.
  static constexpr std::int64_t kLanes = 64;
  [[nodiscard]] std::int64_t stride() const { return (count_ + kLanes - 1) / kLanes * kLanes; }

  struct Work {
    std::vector<std::vector<Complex>> spectra;  ///< one for each column
    std::vector<Complex> scratch;
  };
  /// Columns first … first + n − 1, n ≤ kGroup, of all images: `out[column][row][stride]`.
  void columns(std::int64_t first, std::int64_t n, Work& work, std::vector<double>& out) const;

  [[nodiscard]] const std::vector<double>& nyquist() const { return nyquist_; }
  [[nodiscard]] double phase(std::int64_t column, std::int64_t image) const;

 private:
  /// Twice the frequency of bin k's middle alias, in turns over all images.
  [[nodiscard]] std::int64_t twice_base(std::int64_t k) const {
    return 2 * k - (kept_ % 2 == 0 ? count_ : 0);
  }
  void transform_row(const IdxImages& images, std::int64_t row, const std::vector<Complex>& twist);
  void add_row(std::int64_t row, std::int64_t first, std::int64_t n,
               const std::vector<Complex>& turns, Work& work) const;

  std::int64_t count_, height_, width_, side_, kept_, bins_;
  Fft fft_;
  std::vector<double> mix_;      ///< [side][width]: aliases of a bin summed up
  std::vector<double> re_, im_;  ///< [height][width][bins]: spectra over the images, turned
  std::vector<double> nyquist_;  ///< [height]
};

}  // namespace spdnn
