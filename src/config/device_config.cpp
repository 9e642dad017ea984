// Reads devices, their slowdowns and the cores they are pinned to.
#include "device_config.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace spdnn::config {
namespace {

/// A factor, or a list of pairs: when, and how many times slower from then on.
void load_slowdown(const Json& from, const std::string& pointer, bool trains, const Fail& fail,
                   DeviceSpec& to) {
  const Json& slowdown = from["slowdown"];
  if (!slowdown.is_array()) {
    to.slowdown = slowdown;
    return;
  }
  to.slowdown_by_seconds = from["slowdown_by"] == "seconds";
  if (!to.slowdown_by_seconds && !trains) {
    fail(pointer + "/slowdown",
         "changes at steps, which only job 'train' has; set slowdown_by to 'seconds'");
  }
  double last = -1.0;
  for (std::size_t i = 0; i < slowdown.size(); ++i) {
    const std::string at = fmt::format("{}/slowdown/{}", pointer, i);
    if (slowdown[i].size() != 2) {
      fail(at, fmt::format("has {} numbers; expected when, and how many times slower",
                           slowdown[i].size()));
    }
    const SlowdownChange change = {slowdown[i][0], slowdown[i][1]};
    if (change.at <= last) fail(at, "does not come after the change before it");
    if (change.factor < 1.0) {
      fail(at, fmt::format("makes the device {} times slower; expected at least 1", change.factor));
    }
    last = change.at;
    if (change.at == 0.0) {
      to.slowdown = change.factor;
    } else {
      to.slowdown_changes.push_back(change);
    }
  }
}

void check_cores(const DeviceSpec& spec, const std::string& pointer, const Fail& fail) {
  std::vector<int> sorted = spec.cores;
  std::sort(sorted.begin(), sorted.end());
  if (std::adjacent_find(sorted.begin(), sorted.end()) != sorted.end()) {
    fail(pointer, "names a core twice");
  }
  if (!sorted.empty() && sorted.size() != static_cast<std::size_t>(spec.threads)) {
    fail(pointer, fmt::format("names {} cores for {} threads; expected one for each thread",
                              sorted.size(), spec.threads));
  }
}

/// Ranks divide a GPU, or each of them has all of it.
void check_parts(const std::vector<DeviceSpec>& specs, const Fail& fail) {
  for (std::size_t i = 0; i < specs.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      const bool one_gpu = specs[i].kind == DeviceKind::cuda && specs[j].kind == DeviceKind::cuda &&
                           specs[i].index == specs[j].index;
      if (!one_gpu || (specs[i].sms > 0) == (specs[j].sms > 0)) continue;
      const std::size_t whole = specs[i].sms > 0 ? j : i;
      fail(fmt::format("/devices/{}", whole),
           fmt::format("takes all of GPU {}, of which another rank has a part; give it `sms` too",
                       specs[whole].index));
    }
  }
}

}  // namespace

std::vector<DeviceSpec> device_specs(const Json& root, const Fail& fail) {
  const Json& devices = root["devices"];
  std::vector<DeviceSpec> specs;
  if (devices.is_string()) return specs;
  const bool trains = root["job"] == "train";
  for (std::size_t i = 0; i < devices.size(); ++i) {
    const Json& from = devices[i];
    DeviceSpec to;
    if (from.contains("cuda")) {
      to.kind = DeviceKind::cuda;
      to.index = from["cuda"];
      if (from.contains("sms")) to.sms = from["sms"];
      load_slowdown(from, fmt::format("/devices/{}", i), trains, fail, to);
    } else {
      const Json& cpu = from["cpu"];
      to.kind = DeviceKind::cpu;
      to.threads = cpu["threads"];
      load_slowdown(cpu, fmt::format("/devices/{}/cpu", i), trains, fail, to);
      if (cpu.contains("cores")) to.cores = cpu["cores"].get<std::vector<int>>();
      check_cores(to, fmt::format("/devices/{}/cpu/cores", i), fail);
    }
    specs.push_back(std::move(to));
  }
  check_parts(specs, fail);
  return specs;
}

}  // namespace spdnn::config
