// Numbers, tables and JSON text for all reports.
#include "format.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

namespace spdnn::report {

Json finite(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

double rate(double numerator, double denominator) {
  return denominator > 0.0 && std::isfinite(denominator) ? numerator / denominator : 0.0;
}

std::string seconds(double value) {
  if (!std::isfinite(value) || value < 0.0) return "?";
  if (value == 0.0) return "0 s";
  if (value < 1e-3) return fmt::format("{:.3g} µs", value * 1e6);
  if (value < 0.9995) return fmt::format("{:.3g} ms", value * 1e3);
  if (value < 9.995) return fmt::format("{:.2f} s", value);
  if (value < 119.95) return fmt::format("{:.1f} s", value);
  const auto whole = static_cast<std::int64_t>(std::min(std::round(value), 1e15));
  if (whole < 3600) return fmt::format("{} min {} s", whole / 60, whole % 60);
  return fmt::format("{} h {} min", whole / 3600, whole % 3600 / 60);
}

std::string scaled(double value, std::string_view unit) {
  constexpr std::array<std::pair<double, const char*>, 6> prefixes{
      {{1e18, "E"}, {1e15, "P"}, {1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e3, "k"}}};
  if (!std::isfinite(value)) return fmt::format("? {}", unit);
  for (const auto& [factor, prefix] : prefixes) {
    // 999.5 of the prefix below rounds up to this one.
    if (std::abs(value) >= factor * 0.9995) {
      const double part = value / factor;
      const int decimals = std::abs(part) < 9.995 ? 2 : std::abs(part) < 99.95 ? 1 : 0;
      return fmt::format("{:.{}f} {}{}", part, decimals, prefix, unit);
    }
  }
  return fmt::format("{:.3g} {}", value, unit);
}

std::string bytes(std::int64_t value) { return scaled(static_cast<double>(value), "B"); }

std::string count(std::int64_t value) {
  const std::string digits = std::to_string(value);
  const std::size_t first = value < 0 ? 1 : 0;
  std::string text;
  for (std::size_t i = 0; i < digits.size(); ++i) {
    if (i > first && (digits.size() - i) % 3 == 0) text += ',';
    text += digits[i];
  }
  return text;
}

std::size_t width(std::string_view text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U;
  }));
}

std::string table(const std::vector<std::vector<std::string>>& rows, const std::vector<bool>& right,
                  std::string_view indent) {
  std::vector<std::size_t> widths(right.size(), 0);
  for (const auto& row : rows) {
    // The last cell of a short row may run on.
    const std::size_t cells = row.size() == right.size() ? row.size() : row.size() - 1;
    for (std::size_t c = 0; c < cells; ++c) widths[c] = std::max(widths[c], width(row[c]));
  }
  std::string text;
  for (const auto& row : rows) {
    std::string line(indent);
    for (std::size_t c = 0; c < row.size(); ++c) {
      const std::size_t padding = widths[c] - std::min(widths[c], width(row[c]));
      if (c > 0) line += "  ";
      if (right[c]) line.append(padding, ' ');
      line += row[c];
      if (!right[c]) line.append(padding, ' ');
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + '\n';
  }
  return text;
}

std::vector<std::string> labels_of(const std::vector<RankDevice>& devices) {
  const bool hosts = std::any_of(devices.begin(), devices.end(), [&](const RankDevice& device) {
    return device.host != devices.front().host;
  });
  std::vector<std::string> labels;
  for (const RankDevice& device : devices) {
    std::string& label = labels.emplace_back(device.name);
    if (hosts) label += " on " + device.host;
    if (device.logical) label += " (logical)";
  }
  return labels;
}

std::string text_of(const Json& json) {
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace spdnn::report
