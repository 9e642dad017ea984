// Resolving, naming and measuring the devices of a run.
#include "devices.hpp"

#include <fmt/format.h>

#include <cstdlib>
#include <map>

namespace spdnn {

std::filesystem::path cache_folder() {
  namespace fs = std::filesystem;
  const char* const cache = std::getenv("XDG_CACHE_HOME");
  if (cache != nullptr && fs::path(cache).is_absolute()) return fs::path(cache) / "spdnn-gpu";
  const char* const home = std::getenv("HOME");
  const bool has_home = home != nullptr && fs::path(home).is_absolute();
  return has_home ? fs::path(home) / ".cache" / "spdnn-gpu" : fs::path();
}

std::string profile_cache_file() {
  // Hosts may share a folder, and devices of one name need not be as fast on all of them.
  const std::filesystem::path folder = cache_folder();
  return folder.empty() ? "" : (folder / ("profile-" + host_name() + ".json")).string();
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

RankDevice named(const DeviceSpec& spec) {
  RankDevice device;
  for (const DeviceInfo& listed : list_devices()) {
    if (listed.kind == spec.kind && listed.index == spec.index) device.name = listed.name;
  }
  if (spec.kind == DeviceKind::cpu) {
    device.name += fmt::format(", {} thread{}", spec.threads, spec.threads == 1 ? "" : "s");
  }
  if (spec.sms > 0) device.name += fmt::format(", {} multiprocessors", spec.sms);
  if (spec.slowdown > 1.0) device.name += fmt::format(", slowed {}×", spec.slowdown);
  for (const SlowdownChange& change : spec.slowdown_changes) {
    device.name += fmt::format(", {}× from {} {} on", change.factor,
                               spec.slowdown_by_seconds ? "second" : "step", change.at);
  }
  device.kind = to_string(spec.kind);
  device.host = host_name();
  device.logical = spec.slowdown > 1.0 || !spec.slowdown_changes.empty() || spec.sms > 0;
  return device;
}

ProfileRequest profile_request(const RunConfig& config, const std::vector<DeviceSpec>& specs) {
  return {specs, config.memory_limit, profile_cache_file(), false, config.precision,
          false, config.plan.chains};
}

CostModel cost_of_specs(const RunConfig& config, const std::vector<DeviceSpec>& specs) {
  return measure_cost({specs, config.memory_limit, profile_cache_file(), false});
}

Profile profile_devices(const RunConfig& config, const Model& model, bool refresh) {
  ProfileRequest request = profile_request(config, resolve_devices(config));
  request.refresh = refresh;
  request.floors = true;
  return measure_profile(model, request);
}

}  // namespace spdnn
