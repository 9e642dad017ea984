// What `spdnn-gpu devices` shows: the devices that can be used, and what this build has.
#include <fmt/format.h>

#include "format.hpp"
#include "spdnn/report.hpp"

namespace spdnn {
namespace {

using report::Json;

std::string facts_of(const DeviceInfo& device) {
  std::string text = report::bytes(device.memory_bytes) + " memory";
  if (device.kind == DeviceKind::cpu) {
    return fmt::format("{} usable thread{}, {}", device.threads, device.threads == 1 ? "" : "s",
                       text);
  }
  return fmt::format("compute capability {}.{}, {} multiprocessors, {}",
                     device.compute_capability / 10, device.compute_capability % 10,
                     device.multiprocessors, text);
}

std::string state_of(const Feature& feature) {
  if (feature.usable) return feature.version.empty() ? "yes" : "yes, " + feature.version;
  return feature.built ? "built, not usable" : "not built";
}

}  // namespace

std::string devices_text() {
  std::vector<std::vector<std::string>> devices;
  for (const DeviceInfo& d : list_devices()) {
    devices.push_back(
        {d.kind == DeviceKind::cpu ? "cpu" : fmt::format("cuda {}", d.index), d.name, facts_of(d)});
  }
  std::vector<std::vector<std::string>> features;
  for (const Feature& f : list_features()) features.push_back({f.name, state_of(f), f.remedy});
  std::string text = "Devices\n" + report::table(devices, {false, false, false}, "  ");
  if (!features.empty()) {
    text += "\nBackends and libraries\n" + report::table(features, {false, false, false}, "  ");
  }
  return text;
}

std::string devices_json() {
  Json devices = Json::array();
  for (const DeviceInfo& d : list_devices()) {
    devices.push_back({{"kind", std::string(to_string(d.kind))},
                       {"index", d.index},
                       {"name", d.name},
                       {"threads", d.threads},
                       {"multiprocessors", d.multiprocessors},
                       {"compute_capability", d.compute_capability},
                       {"memory_bytes", d.memory_bytes},
                       {"shared_bytes", d.shared_bytes},
                       {"l2_bytes", d.l2_bytes},
                       {"l3_bytes", d.l3_bytes}});
  }
  Json features = Json::array();
  for (const Feature& f : list_features()) {
    features.push_back({{"name", f.name},
                        {"built", f.built},
                        {"usable", f.usable},
                        {"version", f.version},
                        {"remedy", f.remedy}});
  }
  return report::text_of({{"devices", std::move(devices)}, {"features", std::move(features)}});
}

}  // namespace spdnn
