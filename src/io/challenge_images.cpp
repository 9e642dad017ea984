// Graph Challenge input made of grey images: transpose, Fourier interpolation, threshold.
//
// Interpolation in each dimension is linear, so it is two small matrix products for each image:
// first along the width for every row, then along the height for one resized column after another,
// which is also the order the challenge numbers its neurons in. Sums are in float32 in a fixed
// order, so that the pixels are equal for any number of threads.
#include <fmt/format.h>

#include <array>
#include <cmath>
#include <numbers>

#include "owned_csr.hpp"
#include "parallel.hpp"
#include "spdnn/io.hpp"

namespace spdnn {
namespace {

/// Grey value above which a resized pixel counts as ink; fits the official images best.
constexpr float kThreshold = 184.5F;
/// Outputs of one register tile of the second product.
constexpr std::int64_t kTile = 16;
constexpr std::int64_t kMaxNeurons = std::int64_t{1} << 31;
/// Above the size from which allocators give freed memory straight back to the system.
constexpr std::int64_t kBlockBytes = std::int64_t{40} << 20;

/// Fourier interpolation of `from` samples at `to` points, as weights [from][padded], padded ≥ to,
/// zeros past `to`. Frequencies up to half the smaller size are kept; that one itself, which an
/// even size has only once, is split between +f and −f.
std::vector<float> fourier_weights(std::int64_t from, std::int64_t to, std::int64_t padded) {
  const std::int64_t kept = std::min(from, to);
  const std::int64_t circle = from * to;
  std::vector<float> weights(static_cast<std::size_t>(from * padded));
  for (std::int64_t i = 0; i < from; ++i) {
    for (std::int64_t o = 0; o < to; ++o) {
      const std::int64_t turn = ((o * from - i * to) % circle + circle) % circle;
      double sum = 1.0;
      for (std::int64_t f = 1; 2 * f <= kept; ++f) {
        const double angle = 2.0 * std::numbers::pi * static_cast<double>(f * turn % circle) /
                             static_cast<double>(circle);
        sum += (2 * f == kept ? 1.0 : 2.0) * std::cos(angle);
      }
      weights[i * padded + o] = static_cast<float>(sum / static_cast<double>(from));
    }
  }
  return weights;
}

/// Resizes images of one size to side × side and lists the pixels above the threshold.
template <class Index>
class Resizer {
 public:
  Resizer(std::int64_t height, std::int64_t width, std::int64_t side)
      : height_(height),
        width_(width),
        side_(side),
        padded_((side + kTile - 1) / kTile * kTile),
        along_width_(fourier_weights(width, side, side)),
        along_height_(fourier_weights(height, side, padded_)) {}

  /// Working memory of one thread.
  struct Scratch {
    std::vector<float> rows;    ///< [side][height]: resized along the width, transposed
    std::vector<float> column;  ///< [padded]: one resized column
    std::vector<Index> ids;     ///< neurons above the threshold, ascending
  };

  /// Fills `scratch.ids` from `pixels` [height][width]; returns how many there are.
  std::int64_t resize(const std::uint8_t* pixels, Scratch& scratch) const {
    const Range inked = inked_rows(pixels);
    resize_rows(pixels, inked, scratch);
    scratch.column.resize(static_cast<std::size_t>(padded_));
    std::int64_t count = 0;
    for (std::int64_t c = 0; c < side_; ++c) {
      resize_column(scratch.rows.data() + c * height_, inked, scratch.column.data());
      if (std::ssize(scratch.ids) < count + side_) scratch.ids.resize(2 * count + side_);
      Index* ids = scratch.ids.data();
      for (std::int64_t r = 0; r < side_; ++r) {
        ids[count] = static_cast<Index>(c * side_ + r);
        count += scratch.column[r] > kThreshold ? 1 : 0;
      }
    }
    return count;
  }

 private:
  /// From the first to the last row that is not all 0: others add nothing.
  [[nodiscard]] Range inked_rows(const std::uint8_t* pixels) const {
    Range inked{height_, 0};
    for (std::int64_t y = 0; y < height_; ++y) {
      const std::uint8_t* row = pixels + y * width_;
      if (std::all_of(row, row + width_, [](std::uint8_t grey) { return grey == 0; })) continue;
      inked.begin = std::min(inked.begin, y);
      inked.end = y + 1;
    }
    return inked;
  }

  void resize_rows(const std::uint8_t* pixels, Range inked, Scratch& scratch) const {
    scratch.rows.assign(static_cast<std::size_t>(side_ * height_), 0.0F);
    for (std::int64_t y = inked.begin; y < inked.end; ++y) {
      for (std::int64_t x = 0; x < width_; ++x) {
        const auto grey = static_cast<float>(pixels[y * width_ + x]);
        if (grey == 0.0F) continue;
        const float* weights = along_width_.data() + x * side_;
        float* rows = scratch.rows.data() + y;
        for (std::int64_t c = 0; c < side_; ++c) rows[c * height_] += grey * weights[c];
      }
    }
  }

  void resize_column(const float* samples, Range inked, float* column) const {
    for (std::int64_t r = 0; r < padded_; r += kTile) {
      std::array<float, kTile> sums{};
      for (std::int64_t y = inked.begin; y < inked.end; ++y) {
        const float* weights = along_height_.data() + y * padded_ + r;
        for (std::int64_t t = 0; t < kTile; ++t) sums[t] += samples[y] * weights[t];
      }
      std::copy(sums.begin(), sums.end(), column + r);
    }
  }

  std::int64_t height_, width_, side_, padded_;
  std::vector<float> along_width_, along_height_;
};

/// One thread's finished rows: packed into large blocks, each freed with the last row in it, so
/// that putting all rows together takes little more memory than the result.
template <class Index>
class RowPacker {
 public:
  using Row = std::shared_ptr<const Index>;
  Row pack(const Index* ids, std::int64_t count) {
    if (count > capacity_ - used_) {
      capacity_ =
          std::max<std::int64_t>(count, kBlockBytes / static_cast<std::int64_t>(sizeof(Index)));
      block_.reset(new Index[static_cast<std::size_t>(capacity_)]);
      used_ = 0;
    }
    Index* place = block_.get() + used_;
    std::copy(ids, ids + count, place);
    used_ += count;
    return Row(block_, place);
  }

 private:
  std::shared_ptr<Index[]> block_;
  std::int64_t capacity_ = 0, used_ = 0;
};

template <class Index>
struct Worker {
  typename Resizer<Index>::Scratch scratch;
  RowPacker<Index> packer;
};

template <class Index>
Csr threshold_images(const IdxImages& images, std::int64_t side) {
  const Resizer<Index> resizer(images.height, images.width, side);
  std::vector<typename RowPacker<Index>::Row> rows(static_cast<std::size_t>(images.count));
  std::vector<std::int64_t> row_offsets(static_cast<std::size_t>(images.count) + 1);
  const int threads = reader_threads();
  std::vector<Worker<Index>> workers(static_cast<std::size_t>(threads));
  for_each_piece(images.count, threads, [&](std::int64_t i, std::size_t w) {
    const std::uint8_t* pixels = images.pixels.data() + i * images.height * images.width;
    const std::int64_t count = resizer.resize(pixels, workers[w].scratch);
    rows[i] = workers[w].packer.pack(workers[w].scratch.ids.data(), count);
    row_offsets[i + 1] = count;
  });
  workers.clear();
  for (std::int64_t i = 0; i < images.count; ++i) row_offsets[i + 1] += row_offsets[i];
  const std::int64_t nnz = row_offsets.back();
  auto arrays = std::make_shared<OwnedCsr<Index>>(nnz, 1.0F);
  for (std::int64_t i = 0; i < images.count; ++i) {
    const auto row = std::move(rows[i]);
    std::copy(row.get(), row.get() + (row_offsets[i + 1] - row_offsets[i]),
              arrays->col_indices.get() + row_offsets[i]);
  }
  if (!equally_long_rows(row_offsets)) arrays->row_offsets = std::move(row_offsets);
  return wrap_csr(images.count, side * side, nnz, std::move(arrays));
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
  if (images.count < 0 || images.height < 1 || images.width < 1 ||
      std::ssize(images.pixels) != images.count * images.height * images.width) {
    throw InputError(fmt::format("images: {} of {} × {} pixels, but {} grey values", images.count,
                                 images.height, images.width, images.pixels.size()));
  }
  return neurons <= kNarrowColumns ? threshold_images<std::uint16_t>(images, side)
                                   : threshold_images<std::uint32_t>(images, side);
}

}  // namespace spdnn
