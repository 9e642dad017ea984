// The long transform is done as the Cooley–Tukey scheme would, in three steps that need no array of
// its whole length: for each pixel a transform over the images, for each bin a small real matrix
// from the pixels of a row to the columns wanted, for each column a transform back.
#include "width_interpolation.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "parallel.hpp"

namespace spdnn {
namespace {

/// Bins of one tile of the matrix step: the sums of all columns stay in the L1 cache.
constexpr std::int64_t kBins = 256;

/// Σ exp(2πi·f·(column/side − pixel/width)) / width over the `kept` frequencies f around 0.
std::vector<double> alias_sums(std::int64_t width, std::int64_t side, std::int64_t kept) {
  std::vector<double> sums;
  for (std::int64_t column = 0; column < side; ++column) {
    for (std::int64_t pixel = 0; pixel < width; ++pixel) {
      double sum = kept % 2 == 0 ? 0.0 : 1.0;  // f = 0
      for (std::int64_t twice = 1 + kept % 2; twice < kept; twice += 2) {
        const std::int64_t turn = column * width - pixel * side;
        sum += 2.0 * unit_root(twice * turn, 2 * width * side).re;
      }
      sums.push_back(sum / static_cast<double>(width));
    }
  }
  return sums;
}

}  // namespace

WidthInterpolation::WidthInterpolation(const IdxImages& images, std::int64_t side)
    : count_(images.count),
      height_(images.height),
      width_(images.width),
      side_(side),
      kept_(std::min(images.width, side)),
      bins_(images.count / 2 + 1),
      fft_(images.count),
      mix_(alias_sums(images.width, side, kept_)),
      re_(static_cast<std::size_t>(height_ * width_ * bins_)),
      im_(re_.size()),
      nyquist_(static_cast<std::size_t>(height_)) {
  std::vector<Complex> twist;
  for (std::int64_t x = 0; x < width_; ++x) {
    for (std::int64_t k = 0; k < bins_; ++k) {
      twist.push_back(unit_root(-twice_base(k) * x, 2 * count_ * width_));
    }
  }
  for_each_piece(height_, reader_threads(),
                 [&](std::int64_t row, std::size_t) { transform_row(images, row, twist); });
}

void WidthInterpolation::transform_row(const IdxImages& images, std::int64_t row,
                                       const std::vector<Complex>& twist) {
  std::vector<Complex> pair(static_cast<std::size_t>(count_));
  std::vector<Complex> scratch;
  const auto pixel = [&](std::int64_t q, std::int64_t x) -> double {
    return x < width_ ? images.pixels[(q * height_ + row) * width_ + x] : 0;
  };
  std::int64_t alternating = 0;
  for (std::int64_t x = 0; x < width_; x += 2) {
    for (std::int64_t q = 0; q < count_; ++q) {
      pair[q] = {pixel(q, x), pixel(q, x + 1)};
      const auto sum = static_cast<std::int64_t>(pair[q].re - pair[q].im);
      alternating += q * width_ % 2 == 0 ? sum : -sum;
    }
    fft_.forward(pair, scratch);
    for (std::int64_t k = 0; k < bins_; ++k) {
      const Complex a = pair[k];
      const Complex b = conjugate(pair[k == 0 ? 0 : count_ - k]);
      const std::array<Complex, 2> apart{0.5 * (a + b), Complex{0.0, -0.5} * (a - b)};
      for (std::int64_t i = 0; i < std::min<std::int64_t>(2, width_ - x); ++i) {
        const Complex turned = apart[i] * twist[(x + i) * bins_ + k];
        const std::int64_t at = (row * width_ + x + i) * bins_ + k;
        re_[at] = turned.re;
        im_[at] = turned.im;
      }
    }
  }
  nyquist_[row] = static_cast<double>(alternating) / static_cast<double>(count_ * width_);
}

double WidthInterpolation::phase(std::int64_t column, std::int64_t image) const {
  if (side_ <= width_ || count_ * width_ % 2 != 0) return 0.0;
  const double sine = unit_root(column * width_, 2 * side_).im;
  return image * width_ % 2 == 0 ? sine : -sine;
}

void WidthInterpolation::add_row(std::int64_t row, std::int64_t first, std::int64_t n,
                                 const std::vector<Complex>& turns, Work& work) const {
  const bool second = row % 2 != 0;
  for (std::int64_t begin = 0; begin < bins_; begin += kBins) {
    const std::int64_t bins = std::min(kBins, bins_ - begin);
    std::array<std::array<double, kBins>, kGroup> re{}, im{};
    for (std::int64_t x = 0; x < width_; ++x) {
      const double* from_re = re_.data() + (row * width_ + x) * bins_ + begin;
      const double* from_im = im_.data() + (row * width_ + x) * bins_ + begin;
      for (std::int64_t c = 0; c < n; ++c) {
        const double mix = mix_[(first + c) * width_ + x];
        for (std::int64_t k = 0; k < bins; ++k) re[c][k] += mix * from_re[k];
        for (std::int64_t k = 0; k < bins; ++k) im[c][k] += mix * from_im[k];
      }
    }
    // Two rows share a transform, as real and imaginary part; conjugated, since it is to go back.
    for (std::int64_t c = 0; c < n; ++c) {
      std::vector<Complex>& spectrum = work.spectra[c];
      for (std::int64_t k = 0; k < bins; ++k) {
        const std::int64_t bin = begin + k;
        Complex y = Complex{re[c][k], im[c][k]} * turns[c * bins_ + bin];
        const std::int64_t mirrored = bin == 0 ? 0 : count_ - bin;
        if (mirrored == bin) y.im = 0.0;  // half of the Nyquist term on either side
        const Complex low = second ? Complex{-y.im, -y.re} : conjugate(y);
        const Complex high = second ? Complex{y.im, -y.re} : y;
        spectrum[bin] = second ? spectrum[bin] + low : low;
        if (mirrored != bin) spectrum[mirrored] = second ? spectrum[mirrored] + high : high;
      }
    }
  }
}

void WidthInterpolation::columns(std::int64_t first, std::int64_t n, Work& work,
                                 std::vector<double>& out) const {
  out.assign(static_cast<std::size_t>(n * height_ * stride()), 0.0);
  work.spectra.resize(kGroup);
  for (auto& spectrum : work.spectra) spectrum.resize(static_cast<std::size_t>(count_));
  std::vector<Complex> turns;
  for (std::int64_t c = 0; c < n; ++c) {
    for (std::int64_t k = 0; k < bins_; ++k) {
      turns.push_back(unit_root(twice_base(k) * (first + c), 2 * count_ * side_));
    }
  }
  const double scale = 1.0 / static_cast<double>(count_);
  for (std::int64_t row = 0; row < height_; row += 2) {
    const bool alone = row + 1 == height_;
    add_row(row, first, n, turns, work);
    if (!alone) add_row(row + 1, first, n, turns, work);
    for (std::int64_t c = 0; c < n; ++c) {
      fft_.forward(work.spectra[c], work.scratch);
      double* to = out.data() + (c * height_ + row) * stride();
      for (std::int64_t q = 0; q < count_; ++q) {
        to[q] = scale * work.spectra[c][q].re;
        if (!alone) to[stride() + q] = -scale * work.spectra[c][q].im;
      }
    }
  }
}

}  // namespace spdnn
