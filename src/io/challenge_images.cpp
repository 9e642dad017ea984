// Graph Challenge input made of grey images, exactly as the official files were made of MNIST:
// all images are resized together by zero-padding a two-dimensional spectrum, along the width as
// one long signal, along the height each for itself; a pixel is on where the magnitude is more than
// half of the largest of all. The pixels of an image so depend, a little, on all others.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

#include "fft.hpp"
#include "owned_csr.hpp"
#include "parallel.hpp"
#include "spdnn/io.hpp"
#include "width_interpolation.hpp"

namespace spdnn {
namespace {

constexpr std::int64_t kMaxNeurons = std::int64_t{1} << 31;
constexpr std::int64_t kLanes = WidthInterpolation::kLanes;
/// Above the size from which allocators give freed memory straight back to the system.
constexpr std::int64_t kBlockBytes = std::int64_t{40} << 20;

/// Fourier interpolation of `from` samples at `to` points, as weights [to][from]: the real part,
/// with the term of the highest frequency kept, which an even size has only once, split in two.
std::vector<double> fourier_weights(std::int64_t from, std::int64_t to) {
  const std::int64_t kept = std::min(from, to);
  std::vector<double> weights;
  for (std::int64_t o = 0; o < to; ++o) {
    for (std::int64_t i = 0; i < from; ++i) {
      double sum = 1.0;
      for (std::int64_t f = 1; 2 * f <= kept; ++f) {
        sum += (2 * f == kept ? 1.0 : 2.0) * unit_root(f * (o * from - i * to), from * to).re;
      }
      weights.push_back(sum / static_cast<double>(from));
    }
  }
  return weights;
}

/// Images resized to side × side, one column of all of them at a time.
class ResizedImages {
 public:
  ResizedImages(const IdxImages& images, std::int64_t side)
      : count_(images.count),
        height_(images.height),
        side_(side),
        along_width_(images, side),
        weights_(fourier_weights(height_, side)),
        nyquist_(static_cast<std::size_t>(side)) {
    for (std::int64_t o = 0; o < side; ++o) {
      for (std::int64_t r = 0; r < height_; ++r) {
        nyquist_[o] += weights_[o * height_ + r] * along_width_.nyquist()[r];
      }
    }
  }

  /// Calls `body(worker, column, first image, images, powers)` for tiles of kLanes images, several
  /// threads at once; `powers[row][lane]` are squared magnitudes.
  template <class Body>
  void for_each_tile(const Body& body) const {
    constexpr std::int64_t kGroup = WidthInterpolation::kGroup;
    const int threads = reader_threads();
    std::vector<Work> works(static_cast<std::size_t>(threads));
    for_each_piece((side_ + kGroup - 1) / kGroup, threads, [&](std::int64_t i, std::size_t worker) {
      Work& work = works[worker];
      const std::int64_t first = i * kGroup;
      const std::int64_t n = std::min(kGroup, side_ - first);
      along_width_.columns(first, n, work.width, work.columns);
      work.powers.resize(static_cast<std::size_t>(side_ * kLanes));
      for (std::int64_t c = 0; c < n; ++c) {
        const double* column = work.columns.data() + c * height_ * along_width_.stride();
        for (std::int64_t q = 0; q < count_; q += kLanes) {
          fill_powers(column + q, first + c, q, work.powers.data());
          body(worker, first + c, q, std::min(kLanes, count_ - q), work.powers.data());
        }
      }
    });
  }

 private:
  struct Work {
    WidthInterpolation::Work width;
    std::vector<double> columns, powers;
  };

  /// `column` [height][stride], from image `q` on, resized along the height.
  void fill_powers(const double* column, std::int64_t c, std::int64_t q, double* powers) const {
    const std::int64_t stride = along_width_.stride();
    std::array<double, kLanes> phase, alternating{};
    for (std::int64_t l = 0; l < kLanes; ++l) phase[l] = along_width_.phase(c, q + l);
    double corner = 0.0;
    for (std::int64_t r = 0; r < height_; ++r) {
      const double sign = (r % 2 == 0 ? 1.0 : -1.0) / static_cast<double>(height_);
      for (std::int64_t l = 0; l < kLanes; ++l) alternating[l] += sign * column[r * stride + l];
      corner += sign * along_width_.nyquist()[r];
    }
    for (std::int64_t o = 0; o < side_; ++o) {
      std::array<double, kLanes> real{};
      for (std::int64_t r = 0; r < height_; ++r) {
        const double weight = weights_[o * height_ + r];
        for (std::int64_t l = 0; l < kLanes; ++l) real[l] += weight * column[r * stride + l];
      }
      const bool one_sided = side_ > height_ && height_ % 2 == 0;
      const double sine = one_sided ? unit_root(o * height_, 2 * side_).im : 0.0;
      for (std::int64_t l = 0; l < kLanes; ++l) {
        const double re = real[l] - corner * sine * phase[l];
        const double im = alternating[l] * sine + nyquist_[o] * phase[l];
        powers[o * kLanes + l] = re * re + im * im;
      }
    }
  }

  std::int64_t count_, height_, side_;
  WidthInterpolation along_width_;
  std::vector<double> weights_;  ///< [side][height]
  std::vector<double> nyquist_;  ///< [side]: of the width, resized along the height
};

/// One bit a pixel: `[image][column][row]`, each column in whole bytes so that threads can fill
/// different ones. In large blocks that are freed one by one.
class Bitmaps {
 public:
  Bitmaps(std::int64_t count, std::int64_t side)
      : column_bytes_((side + 7) / 8),
        image_bytes_(side * column_bytes_),
        per_block_(std::max<std::int64_t>(1, kBlockBytes / image_bytes_)) {
    for (std::int64_t q = 0; q < count; q += per_block_) {
      blocks_.emplace_back(
          static_cast<std::size_t>(std::min(per_block_, count - q) * image_bytes_));
    }
  }
  [[nodiscard]] std::int64_t per_block() const { return per_block_; }
  [[nodiscard]] std::int64_t column_bytes() const { return column_bytes_; }
  [[nodiscard]] std::int64_t image_bytes() const { return image_bytes_; }
  [[nodiscard]] std::uint8_t* image(std::int64_t q) {
    return blocks_[q / per_block_].data() + q % per_block_ * image_bytes_;
  }
  void free_block(std::int64_t block) { blocks_[block] = {}; }

 private:
  std::int64_t column_bytes_, image_bytes_, per_block_;
  std::vector<std::vector<std::uint8_t>> blocks_;
};

Bitmaps threshold_images(const IdxImages& images, std::int64_t side) {
  const ResizedImages resized(images, side);
  std::vector<double> largest(static_cast<std::size_t>(reader_threads()));
  resized.for_each_tile(
      [&](std::size_t worker, std::int64_t, std::int64_t, std::int64_t n, const double* powers) {
        for (std::int64_t o = 0; o < side; ++o) {
          const double* end = powers + o * kLanes + n;
          largest[worker] = std::max(largest[worker], *std::max_element(powers + o * kLanes, end));
        }
      });
  const double limit = *std::max_element(largest.begin(), largest.end()) / 4;  // half, squared
  Bitmaps bits(images.count, side);
  resized.for_each_tile(
      [&](std::size_t, std::int64_t column, std::int64_t q, std::int64_t n, const double* powers) {
        for (std::int64_t l = 0; l < n; ++l) {
          std::uint8_t* to = bits.image(q + l) + column * bits.column_bytes();
          for (std::int64_t o = 0; o < side; ++o) {
            const int on = powers[o * kLanes + l] > limit ? 1 : 0;
            to[o / 8] = static_cast<std::uint8_t>(to[o / 8] | on << o % 8);
          }
        }
      });
  return bits;
}

template <class Index>
Csr to_csr(Bitmaps bits, std::int64_t count, std::int64_t side) {
  std::vector<std::int64_t> row_offsets{0};
  for (std::int64_t q = 0; q < count; ++q) {
    const std::uint8_t* image = bits.image(q);
    std::int64_t on = 0;
    for (std::int64_t b = 0; b < bits.image_bytes(); ++b) on += std::popcount(image[b]);
    row_offsets.push_back(row_offsets.back() + on);
  }
  const std::int64_t nnz = row_offsets.back();
  auto arrays = std::make_shared<OwnedCsr<Index>>(nnz, 1.0F);
  Index* to = arrays->col_indices.get();
  for (std::int64_t q = 0; q < count; ++q) {
    const std::uint8_t* image = bits.image(q);
    for (std::int64_t b = 0; b < bits.image_bytes(); ++b) {
      const std::int64_t column = b / bits.column_bytes();
      const std::int64_t row = b % bits.column_bytes() * 8;
      for (unsigned left = image[b]; left != 0; left &= left - 1) {
        *to++ = static_cast<Index>(column * side + row + std::countr_zero(left));
      }
    }
    if ((q + 1) % bits.per_block() == 0) bits.free_block(q / bits.per_block());
  }
  if (!equally_long_rows(row_offsets)) arrays->row_offsets = std::move(row_offsets);
  return wrap_csr(count, side * side, nnz, std::move(arrays));
}

}  // namespace

Csr challenge_images(const IdxImages& images, std::int64_t neurons) {
  const auto side = static_cast<std::int64_t>(std::sqrt(static_cast<double>(neurons)));
  if (neurons < 1 || neurons > kMaxNeurons || side * side != neurons) {
    const std::int64_t below = neurons < 1 || neurons > kMaxNeurons ? 32 : side;
    throw InputError(fmt::format(
        "images for {} inputs: images are square, so inputs must be a square number of at most {}; "
        "give {} ({} × {}) or {} ({} × {})",
        neurons, kMaxNeurons, below * below, below, below, (below + 1) * (below + 1), below + 1,
        below + 1));
  }
  if (images.count < 1)
    throw InputError("no images to make Graph Challenge input of; give at least one");
  if (images.height < 1 || images.width < 1 ||
      std::ssize(images.pixels) != images.count * images.height * images.width) {
    throw InputError(fmt::format("images: {} of {} × {} pixels, but {} grey values", images.count,
                                 images.height, images.width, images.pixels.size()));
  }
  Bitmaps bits = threshold_images(images, side);
  return neurons <= kNarrowColumns ? to_csr<std::uint16_t>(std::move(bits), images.count, side)
                                   : to_csr<std::uint32_t>(std::move(bits), images.count, side);
}

}  // namespace spdnn
