// A chart of lines over logarithmic axes as one SVG that needs nothing beside it.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "spdnn/report.hpp"

namespace spdnn {
namespace {

constexpr double kWidth = 720.0;
constexpr double kHeight = 420.0;
constexpr double kLeft = 80.0;
constexpr double kRight = 190.0;
constexpr double kTop = 40.0;
constexpr double kBottom = 50.0;
/// Told apart by people who see few colours (Okabe and Ito, 2008).
constexpr std::array<const char*, 7> kColors = {"#0072B2", "#D55E00", "#009E73", "#CC79A7",
                                                "#E69F00", "#56B4E9", "#000000"};

std::string escaped(const std::string& text) {
  std::string safe;
  for (const char c : text) {
    if (c == '<')
      safe += "&lt;";
    else if (c == '>')
      safe += "&gt;";
    else if (c == '&')
      safe += "&amp;";
    else
      safe += c;
  }
  return safe;
}

/// A logarithmic axis from the least to the most of what is shown.
struct Axis {
  double low = std::numeric_limits<double>::infinity();
  double high = 0.0;
  double from = 0.0, to = 0.0;  ///< pixels
  void show(double value) {
    low = std::min(low, value);
    high = std::max(high, value);
  }
  /// A little room around, and some where all values are equal.
  void widen() {
    if (!(high > 0.0)) low = high = 1.0;
    low /= 1.15;
    high *= 1.15;
  }
  [[nodiscard]] double at(double value) const {
    return from + (to - from) * std::log(value / low) / std::log(high / low);
  }
  /// Values to mark: powers of `base`, not more than about ten.
  [[nodiscard]] std::vector<double> marks(double base) const {
    const double first = std::ceil(std::log(low) / std::log(base) - 1e-9);
    const double last = std::floor(std::log(high) / std::log(base) + 1e-9);
    const double step = std::max(1.0, std::ceil((last - first) / 10.0));
    std::vector<double> values;
    for (double e = first; e <= last; e += step) values.push_back(std::pow(base, e));
    return values;
  }
};

std::string text_at(double x, double y, const char* anchor, const std::string& text) {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\">{}</text>\n", x, y, anchor,
                     escaped(text));
}

std::string line_to(double x1, double y1, double x2, double y2) {
  return fmt::format(
      "<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"#ddd\"/>\n", x1, y1,
      x2, y2);
}

std::string series_svg(const ChartSeries& series, const Axis& x, const Axis& y, const char* color,
                       double key_y) {
  std::string points;
  std::string dots;
  for (const auto& [at_x, at_y] : series.points) {
    if (!(at_x > 0.0) || !(at_y > 0.0)) continue;
    points += fmt::format("{:.1f},{:.1f} ", x.at(at_x), y.at(at_y));
    dots += fmt::format(
        "<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3.5\" fill=\"{}\"><title>{}: {:g}, {:g}</title>"
        "</circle>\n",
        x.at(at_x), y.at(at_y), color, escaped(series.name), at_x, at_y);
  }
  return fmt::format("<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2\"/>\n",
                     points, color) +
         dots +
         fmt::format("<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"12\" height=\"12\" fill=\"{}\"/>\n",
                     kWidth - kRight + 15.0, key_y - 10.0, color) +
         text_at(kWidth - kRight + 33.0, key_y, "start", series.name);
}

}  // namespace

std::string chart_svg(const Chart& chart) {
  Axis x;
  Axis y;
  for (const ChartSeries& series : chart.series) {
    for (const auto& [at_x, at_y] : series.points) {
      if (!(at_x > 0.0) || !(at_y > 0.0)) continue;
      x.show(at_x);
      y.show(at_y);
    }
  }
  x.widen();
  y.widen();
  x.from = kLeft;
  x.to = kWidth - kRight;
  y.from = kHeight - kBottom;
  y.to = kTop;
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0:g} {1:g}\" width=\"{0:g}\" "
      "height=\"{1:g}\" font-family=\"sans-serif\" font-size=\"12\">\n"
      "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
      kWidth, kHeight);
  svg += text_at((x.from + x.to) / 2.0, 22.0, "middle", chart.title);
  svg += text_at((x.from + x.to) / 2.0, kHeight - 12.0, "middle", chart.x_label);
  svg += fmt::format("<g transform=\"rotate(-90 16 {0:g})\">{1}</g>\n", kHeight / 2.0,
                     text_at(16.0, kHeight / 2.0, "middle", chart.y_label));
  for (const double mark : x.marks(2.0)) {
    svg += line_to(x.at(mark), y.from, x.at(mark), y.to);
    svg += text_at(x.at(mark), y.from + 18.0, "middle", fmt::format("{:g}", mark));
  }
  for (const double mark : y.marks(y.high / y.low > 50.0 ? 10.0 : 2.0)) {
    svg += line_to(x.from, y.at(mark), x.to, y.at(mark));
    svg += text_at(x.from - 8.0, y.at(mark) + 4.0, "end", fmt::format("{:.3g}", mark));
  }
  for (std::size_t s = 0; s < chart.series.size(); ++s) {
    svg += series_svg(chart.series[s], x, y, kColors[s % kColors.size()],
                      kTop + 14.0 + 20.0 * static_cast<double>(s));
  }
  return svg + "</svg>\n";
}

}  // namespace spdnn
