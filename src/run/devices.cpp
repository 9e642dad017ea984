// Resolving, naming and measuring the devices of a run.
#include "devices.hpp"

#include <fmt/format.h>

#include <cstdlib>
#include <map>

namespace spdnn {

std::string profile_cache_file() {
  if (const char* cache = std::getenv("XDG_CACHE_HOME"); cache != nullptr && *cache != '\0') {
    return std::string(cache) + "/spdnn-gpu/profile.json";
  }
  const char* home = std::getenv("HOME");
  return home == nullptr ? "" : std::string(home) + "/.cache/spdnn-gpu/profile.json";
}

void pin_cpu_ranks(std::vector<int> cores, std::vector<DeviceSpec>& specs) {
  std::size_t threads = 0;
  for (const DeviceSpec& spec : specs) {
    if (spec.kind == DeviceKind::cpu && spec.cores.empty()) {
      threads += static_cast<std::size_t>(spec.threads);
    }
    for (const int taken : spec.cores) std::erase(cores, taken);
  }
  if (threads > cores.size()) return;
  auto next = cores.begin();
  for (DeviceSpec& spec : specs) {
    if (spec.kind != DeviceKind::cpu || !spec.cores.empty()) continue;
    spec.cores.assign(next, next + spec.threads);
    next += spec.threads;
  }
}

void part_gpus(std::vector<DeviceSpec>& specs) {
  std::map<int, int> taken;  // of each GPU
  for (DeviceSpec& spec : specs) {
    spec.sms_before = taken[spec.index];
    if (spec.kind == DeviceKind::cuda) taken[spec.index] += spec.sms;
  }
}

std::vector<DeviceSpec> resolve_devices(const RunConfig& config) {
  std::vector<DeviceSpec> specs = config.devices;
  const std::vector<int> cores = usable_cores();
  if (specs.empty()) {
    for (const DeviceInfo& device : list_devices()) {
      if (device.kind == DeviceKind::cuda) {
        DeviceSpec spec;
        spec.kind = DeviceKind::cuda;
        spec.index = device.index;
        specs.push_back(spec);
      }
    }
  }
  if (specs.empty()) specs.resize(cores.size());
  pin_cpu_ranks(cores, specs);
  part_gpus(specs);
  return specs;
}

bool is_logical(const DeviceSpec& spec) {
  return spec.slowdown > 1.0 || !spec.slowdown_changes.empty() || spec.sms > 0;
}

std::string device_label(const DeviceSpec& spec, const DeviceInfo& info) {
  std::string label = info.name;
  if (spec.kind == DeviceKind::cpu) {
    label += fmt::format(", {} thread{}", spec.threads, spec.threads == 1 ? "" : "s");
  }
  if (spec.sms > 0) label += fmt::format(", {} multiprocessors", spec.sms);
  if (spec.slowdown > 1.0) label += fmt::format(", slowed {}×", spec.slowdown);
  for (const SlowdownChange& change : spec.slowdown_changes) {
    label += fmt::format(", {}× from {} {} on", change.factor,
                         spec.slowdown_by_seconds ? "second" : "step", change.at);
  }
  return label;
}

Profile profile_specs(const RunConfig& config, const Model& model,
                      const std::vector<DeviceSpec>& specs) {
  return measure_profile(model, {specs, config.memory_limit, profile_cache_file(), false,
                                 config.precision, false, config.plan.chains});
}

CostModel cost_of_specs(const RunConfig& config, const std::vector<DeviceSpec>& specs) {
  return measure_cost({specs, config.memory_limit, profile_cache_file(), false});
}

Profile profile_devices(const RunConfig& config, const Model& model, bool refresh) {
  return measure_profile(model, {resolve_devices(config), config.memory_limit, profile_cache_file(),
                                 refresh, config.precision, true, config.plan.chains});
}

}  // namespace spdnn
