// `spdnn-gpu bench node --html`: one page with bar charts, drawn as SVG, that needs no other file.
#include <fmt/format.h>

#include <algorithm>

#include "format.hpp"
#include "spdnn/report.hpp"

namespace spdnn {
namespace {

constexpr std::string_view kHead = R"(<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Node</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.5em } h2 { font-size: 1.1em; margin-top: 2em }
svg { width: 100%; height: auto } svg text { font-size: 12px; fill: currentColor }
.bar { fill: #3b76b8 } .limit { fill: #3b76b8; opacity: .25 }
@media (prefers-color-scheme: dark) { body { background: #181818; color: #ddd } }
</style></head><body>
)";

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      default: out += c;
    }
  }
  return out;
}

struct Bar {
  std::string label;
  double value = 0.0;
  std::string text;    ///< the value, as people read it
  double limit = 0.0;  ///< drawn behind the bar; 0: none
};

/// Horizontal bars, the longest of them or of their limits as wide as the drawing.
std::string chart(const std::string& title, const std::vector<Bar>& bars) {
  constexpr int kLabel = 330;
  constexpr int kBar = 420;
  constexpr int kRow = 24;
  double most = 0.0;
  for (const Bar& bar : bars) most = std::max({most, bar.value, bar.limit});
  if (!(most > 0.0)) return "";
  std::string svg = fmt::format("<h2>{}</h2>\n<svg viewBox=\"0 0 900 {}\" role=\"img\">\n",
                                escaped(title), kRow * bars.size() + 4);
  int y = 2;
  for (const Bar& bar : bars) {
    const double width = kBar * bar.value / most;
    const double limit = kBar * bar.limit / most;
    svg += fmt::format("<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>", kLabel - 8, y + 15,
                       escaped(bar.label));
    if (bar.limit > 0.0) {
      svg += fmt::format(R"(<rect class="limit" x="{}" y="{}" width="{:.1f}" height="18"/>)",
                         kLabel, y + 1, limit);
    }
    svg += fmt::format(R"(<rect class="bar" x="{}" y="{}" width="{:.1f}" height="18"/>)", kLabel,
                       y + 1, width);
    svg += fmt::format("<text x=\"{:.1f}\" y=\"{}\">{}</text>\n",
                       kLabel + std::max(width, limit) + 6.0, y + 15, escaped(bar.text));
    y += kRow;
  }
  return svg + "</svg>\n";
}

std::string label_of(const NodeReport& node, std::size_t rank) {
  return fmt::format("{}: {}", rank,
                     report::labels_of({node.devices.begin(), node.devices.end()})[rank]);
}

std::string shares_chart(const NodeReport& node) {
  std::vector<Bar> bars;
  for (std::size_t r = 0; r < node.devices.size(); ++r) {
    const DeviceSpeed& d = node.devices[r];
    const double part = node.part_of(d);
    std::string text = report::count(d.share);
    if (d.rows < 1.0) text += fmt::format(" × {:.1f} % of the rows", 100.0 * d.rows);
    bars.push_back({label_of(node, r), part, fmt::format("{} ({:.1f} %)", text, 100.0 * part)});
  }
  return chart(fmt::format("Shares of the {} {}", report::count(node.count), node.items), bars);
}

/// One value of every device.
template <class Value>
std::string devices_chart(const NodeReport& node, const std::string& title, std::string_view unit,
                          const Value& value) {
  std::vector<Bar> bars;
  for (std::size_t r = 0; r < node.devices.size(); ++r) {
    const double v = value(node.devices[r]);
    if (v > 0.0) bars.push_back({label_of(node, r), v, report::scaled(v, unit)});
  }
  return chart(title, bars);
}

std::string works_charts(const NodeReport& node) {
  std::string text;
  for (std::size_t r = 0; r < node.devices.size(); ++r) {
    std::vector<Bar> bars;
    for (const WorkSpeed& w : node.devices[r].works) {
      const double limit = w.of_limit > 0.0 ? w.edges_per_s / w.of_limit : 0.0;
      std::string value = report::scaled(w.edges_per_s, "edges/s");
      if (w.of_limit > 0.0) value += fmt::format(", {:.0f} % of the limit", 100.0 * w.of_limit);
      bars.push_back({w.work, w.edges_per_s, std::move(value), limit});
    }
    text += chart("Work of " + label_of(node, r), bars);
  }
  return text;
}

std::string links_charts(const NodeReport& node) {
  std::vector<Bar> rates;
  std::vector<Bar> latencies;
  const auto add = [&](const std::string& label, double rate, double latency) {
    rates.push_back({label, rate, report::scaled(rate, "B/s")});
    latencies.push_back({label, latency, report::seconds(latency)});
  };
  for (const LinkSpeed& link : node.links) {
    add(fmt::format("{} → {}", link.from, link.to), link.bytes_per_s, link.latency_s);
  }
  for (const CollectiveSpeed& c : node.collectives) add(c.name, c.bytes_per_s, c.latency_s);
  return chart("Bandwidth between ranks", rates) + chart("Latency between ranks", latencies);
}

}  // namespace

std::string node_html(const NodeReport& node) {
  std::string page(kHead);
  page += fmt::format(
      "<h1>What these devices can do</h1>\n<p>{} device{}. Predicted time of the {} {}: {}.</p>\n",
      node.devices.size(), node.devices.size() == 1 ? "" : "s", report::count(node.count),
      node.items, report::seconds(node.predicted_s));
  page += shares_chart(node);
  page += works_charts(node);
  page += devices_chart(node, "Multiply–adds at best", "/s",
                        [](const DeviceSpeed& d) { return d.fma_per_s; });
  page += devices_chart(node, "Loads from memory at best", "B/s",
                        [](const DeviceSpeed& d) { return d.memory_bytes_per_s; });
  page += devices_chart(node, "Copies within the device", "B/s",
                        [](const DeviceSpeed& d) { return d.copy_bytes_per_s; });
  page += devices_chart(node, "Copies from the host", "B/s",
                        [](const DeviceSpeed& d) { return d.host_bytes_per_s; });
  page += links_charts(node);
  for (const std::string& note : node.notes) page += "<p>" + escaped(note) + "</p>\n";
  return page + "</body></html>\n";
}

}  // namespace spdnn
