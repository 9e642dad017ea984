// Digits drawn as a pen would: strokes through a few points each, moved, scaled and slanted at
// random. Only +, −, ×, ÷ and √ on doubles, so that every machine draws the same pixels.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "parallel.hpp"
#include "spdnn/io.hpp"
#include "spdnn/random.hpp"

namespace spdnn {
namespace {

constexpr std::int64_t kSide = 28;
constexpr std::int64_t kPixels = kSide * kSide;
constexpr std::int64_t kMaxImages = std::int64_t{1} << 24;
/// Straight pieces a curve is drawn with between two of its points.
constexpr int kPieces = 6;
/// Pixels over which a stroke's edge fades.
constexpr double kFade = 1.3;

struct Point {
  double x = 0.0, y = 0.0;
};
Point operator+(Point a, Point b) { return {a.x + b.x, a.y + b.y}; }
Point operator-(Point a, Point b) { return {a.x - b.x, a.y - b.y}; }
Point operator*(double s, Point a) { return {s * a.x, s * a.y}; }

/// A curve through `points`, in a box of width and height 1 with y downwards.
struct Stroke {
  std::vector<Point> points;
  bool closed = false;
};
using Glyph = std::vector<Stroke>;

const std::array<Glyph, 10>& glyphs() {
  static const std::array<Glyph, 10> all{{
      {{{{.52, 0}, {.22, .14}, {.1, .5}, {.2, .86}, {.5, 1}, {.8, .84}, {.9, .48}, {.8, .14}},
        true}},
      {{{{.36, .18}, {.54, 0}}}, {{{.54, 0}, {.52, .5}, {.5, 1}}}},
      {{{{.12, .24}, {.3, .04}, {.6, .0}, {.8, .2}, {.68, .5}, {.38, .78}, {.08, 1}}},
       {{{.08, 1}, {.5, .95}, {.92, .98}}}},
      {{{{.14, .1}, {.46, 0}, {.78, .12}, {.74, .36}, {.4, .47}}},
       {{{.4, .47}, {.78, .56}, {.86, .8}, {.52, 1}, {.1, .9}}}},
      {{{{.28, .02}, {.18, .32}, {.1, .58}}},
       {{{.1, .58}, {.5, .56}, {.92, .54}}},
       {{{.74, .1}, {.7, .5}, {.66, 1}}}},
      {{{{.86, .02}, {.28, .04}}},
       {{{.28, .04}, {.2, .42}}},
       {{{.2, .42}, {.54, .36}, {.84, .56}, {.8, .86}, {.46, 1}, {.1, .9}}}},
      {{{{.72, 0},
         {.38, .22},
         {.16, .6},
         {.26, .92},
         {.58, .99},
         {.82, .76},
         {.6, .52},
         {.2, .7}}}},
      {{{{.08, .06}, {.46, .05}, {.9, .02}}}, {{{.9, .02}, {.62, .46}, {.42, 1}}}},
      {{{{.5, .46}, {.2, .24}, {.5, 0}, {.8, .22}, {.5, .46}, {.14, .76}, {.5, 1}, {.86, .74}},
        true}},
      {{{{.84, .26}, {.58, 0}, {.22, .12}, {.2, .4}, {.52, .52}, {.84, .26}}},
       {{{.84, .26}, {.78, .64}, {.6, 1}}}},
  }};
  return all;
}

/// Where a stroke's points come to lie in the image, in pixels, and how wide the pen is.
struct Hand {
  explicit Hand(Random& random)
      : centre{random.between(13.0, 15.0), random.between(13.0, 15.0)},
        width(random.between(11.5, 17.0)),
        height(random.between(17.0, 20.0)),
        slant(random.between(-0.1, 0.35)),
        tilt(random.between(-0.12, 0.12)),
        radius(random.between(0.7, 1.5)) {}

  [[nodiscard]] Point place(Point p) const {
    const double x = (p.x - 0.5) * width;
    const double y = (p.y - 0.5) * height;
    return {centre.x + x - slant * y, centre.y + y + tilt * x};
  }

  Point centre;
  double width, height, slant, tilt, radius;
};

/// Point at `t` in [0, 1] between b and c of the Catmull–Rom curve through a, b, c, d.
Point on_curve(Point a, Point b, Point c, Point d, double t) {
  const Point linear = c - a;
  const Point square = 2.0 * a - 5.0 * b + 4.0 * c - d;
  const Point cubic = 3.0 * (b - c) + d - a;
  return b + 0.5 * (t * (linear + t * (square + t * cubic)));
}

double distance(Point p, Point a, Point b) {
  const Point along = b - a;
  const Point from = p - a;
  const double length2 = along.x * along.x + along.y * along.y;
  const double dot = from.x * along.x + from.y * along.y;
  const double t = length2 > 0.0 ? std::clamp(dot / length2, 0.0, 1.0) : 0.0;
  const Point off = from - t * along;
  return std::sqrt(off.x * off.x + off.y * off.y);
}

/// Draws a straight piece; its edge fades over `kFade` pixels and ink never gets lighter.
void draw_piece(Point a, Point b, double radius, std::uint8_t* pixels) {
  const auto first = [&](double low) {
    return std::clamp<std::int64_t>(static_cast<std::int64_t>(low - radius - 1.0), 0, kSide);
  };
  const auto last = [&](double high) {
    return std::clamp<std::int64_t>(static_cast<std::int64_t>(high + radius + 2.0), 0, kSide);
  };
  const std::int64_t x_end = last(std::max(a.x, b.x));
  const std::int64_t y_end = last(std::max(a.y, b.y));
  for (std::int64_t y = first(std::min(a.y, b.y)); y < y_end; ++y) {
    for (std::int64_t x = first(std::min(a.x, b.x)); x < x_end; ++x) {
      const Point centre{static_cast<double>(x) + 0.5, static_cast<double>(y) + 0.5};
      const double cover = std::clamp(0.5 + (radius - distance(centre, a, b)) / kFade, 0.0, 1.0);
      const auto grey = static_cast<std::uint8_t>(std::lround(255.0 * cover));
      pixels[y * kSide + x] = std::max(pixels[y * kSide + x], grey);
    }
  }
}

void draw_stroke(const Stroke& stroke, const Hand& hand, Random& random, std::uint8_t* pixels) {
  constexpr double kWobble = 0.03;
  std::vector<Point> points;
  for (const Point p : stroke.points) {
    const double dx = random.between(-kWobble, kWobble);
    const double dy = random.between(-kWobble, kWobble);
    points.push_back(hand.place(p + Point{dx, dy}));
  }
  const std::int64_t count = std::ssize(points);
  const auto at = [&](std::int64_t i) {
    return points[stroke.closed ? (i + count) % count : std::clamp<std::int64_t>(i, 0, count - 1)];
  };
  for (std::int64_t i = 0; i < (stroke.closed ? count : count - 1); ++i) {
    Point from = at(i);
    for (int piece = 1; piece <= kPieces; ++piece) {
      const double t = static_cast<double>(piece) / kPieces;
      const Point to = on_curve(at(i - 1), at(i), at(i + 1), at(i + 2), t);
      draw_piece(from, to, hand.radius, pixels);
      from = to;
    }
  }
}

}  // namespace

IdxImages draw_digits(std::int64_t count, std::uint64_t seed) {
  if (count < 1 || count > kMaxImages) {
    throw InputError(fmt::format("{} digits to draw; give 1 to {}", count, kMaxImages));
  }
  IdxImages images{count, kSide, kSide, {}};
  images.pixels.resize(static_cast<std::size_t>(count * kPixels));
  constexpr std::int64_t kGrain = 64;
  for_each_piece(
      (count + kGrain - 1) / kGrain, reader_threads(), [&](std::int64_t piece, std::size_t) {
        for (std::int64_t i = piece * kGrain; i < std::min(count, (piece + 1) * kGrain); ++i) {
          Random random(seed, static_cast<std::uint64_t>(i));
          const Glyph& glyph = glyphs()[random.below(10)];
          const Hand hand(random);
          for (const Stroke& stroke : glyph) {
            draw_stroke(stroke, hand, random, images.pixels.data() + i * kPixels);
          }
        }
      });
  return images;
}

}  // namespace spdnn
