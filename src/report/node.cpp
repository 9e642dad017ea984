// What `spdnn-gpu bench node` prints: tables for people, JSON for scripts.
#include <fmt/format.h>

#include <cmath>

#include "format.hpp"
#include "spdnn/report.hpp"

namespace spdnn {
namespace {

using report::Json;

/// A rate, or a dash where it is not known.
std::string speed(double value, std::string_view unit) {
  return value > 0.0 ? report::scaled(value, unit) : "–";
}

std::string percent(double part) {
  return part > 0.0 ? fmt::format("{:.0f} %", 100.0 * part) : "–";
}

std::string devices_table(const NodeReport& node) {
  std::vector<std::vector<std::string>> rows{
      {"", "device", "multiply–adds", "memory", "copy", "from host", "share", "rows", "work"}};
  const auto labels = report::labels_of({node.devices.begin(), node.devices.end()});
  for (std::size_t r = 0; r < node.devices.size(); ++r) {
    const DeviceSpeed& d = node.devices[r];
    rows.push_back({std::to_string(r), labels[r], speed(d.fma_per_s, "/s"),
                    speed(d.memory_bytes_per_s, "B/s"), speed(d.copy_bytes_per_s, "B/s"),
                    speed(d.host_bytes_per_s, "B/s"), report::count(d.share),
                    fmt::format("{:.1f} %", 100.0 * d.rows),
                    fmt::format("{:.1f} %", 100.0 * node.part_of(d))});
  }
  return report::table(rows, {false, false, true, true, true, true, true, true, true}, "  ");
}

std::string works_table(const NodeReport& node) {
  std::vector<std::vector<std::string>> rows{{"", "work", "time", "speed", "of limit", "kernel"}};
  for (std::size_t r = 0; r < node.devices.size(); ++r) {
    for (const WorkSpeed& w : node.devices[r].works) {
      rows.push_back({std::to_string(r), w.work, report::seconds(w.seconds),
                      speed(w.edges_per_s, "edges/s"), percent(w.of_limit), w.kernel});
    }
  }
  return report::table(rows, {false, false, true, true, true, false}, "  ");
}

std::string links_table(const NodeReport& node) {
  std::vector<std::vector<std::string>> rows{{"", "latency", "bandwidth"}};
  for (const LinkSpeed& link : node.links) {
    rows.push_back({fmt::format("{} → {}", link.from, link.to), report::seconds(link.latency_s),
                    speed(link.bytes_per_s, "B/s")});
  }
  for (const CollectiveSpeed& c : node.collectives) {
    rows.push_back({c.name, report::seconds(c.latency_s), speed(c.bytes_per_s, "B/s")});
  }
  return report::table(rows, {false, true, true}, "  ");
}

Json device_json(const DeviceSpeed& d) {
  Json works = Json::array();
  for (const WorkSpeed& w : d.works) {
    works.push_back({{"work", w.work},
                     {"kernel", w.kernel},
                     {"seconds", report::finite(w.seconds)},
                     {"edges_per_s", report::finite(w.edges_per_s)},
                     {"of_limit", report::finite(w.of_limit)}});
  }
  return {{"name", d.name},
          {"kind", d.kind},
          {"host", d.host},
          {"logical", d.logical},
          {"fma_per_s", report::finite(d.fma_per_s)},
          {"memory_bytes_per_s", report::finite(d.memory_bytes_per_s)},
          {"copy_bytes_per_s", report::finite(d.copy_bytes_per_s)},
          {"host_bytes_per_s", report::finite(d.host_bytes_per_s)},
          {"works", std::move(works)},
          {"share", d.share},
          {"rows", report::finite(d.rows)}};
}

}  // namespace

std::string node_text(const NodeReport& node) {
  std::string text = "Devices, their limits, and their shares of the " + report::count(node.count) +
                     " " + node.items + "\n" + devices_table(node);
  text += fmt::format("  predicted: {}\n", report::seconds(node.predicted_s));
  text += "\nWhat they do, slowdowns contained\n" + works_table(node);
  if (!node.links.empty()) text += "\nBetween ranks\n" + links_table(node);
  for (const std::string& note : node.notes) text += "note: " + note + '\n';
  return text;
}

std::string node_json(const NodeReport& node) {
  Json devices = Json::array();
  for (const DeviceSpeed& device : node.devices) devices.push_back(device_json(device));
  Json links = Json::array();
  for (const LinkSpeed& link : node.links) {
    links.push_back({{"from", link.from},
                     {"to", link.to},
                     {"latency_s", report::finite(link.latency_s)},
                     {"bytes_per_s", report::finite(link.bytes_per_s)}});
  }
  Json collectives = Json::array();
  for (const CollectiveSpeed& c : node.collectives) {
    collectives.push_back({{"name", c.name},
                           {"latency_s", report::finite(c.latency_s)},
                           {"bytes_per_s", report::finite(c.bytes_per_s)}});
  }
  return report::text_of({{"job", node.job},
                          {"shares_of", {{"what", node.items}, {"count", node.count}}},
                          {"predicted_s", report::finite(node.predicted_s)},
                          {"devices", std::move(devices)},
                          {"links", std::move(links)},
                          {"collectives", std::move(collectives)},
                          {"notes", node.notes}});
}

}  // namespace spdnn
