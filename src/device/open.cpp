// Finding and opening devices, and the cores this process may use.
#include <fmt/format.h>
#include <sched.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <ctime>
#include <fstream>

#include "backend.hpp"

namespace spdnn {
namespace {

/// Whole cores the cgroup's CPU quota (version 2) allows, at least 1; a large number without one.
std::int64_t quota_cores() {
  std::ifstream file("/sys/fs/cgroup/cpu.max");
  std::int64_t quota = 0;
  std::int64_t period = 0;
  if (file >> quota >> period && quota > 0 && period > 0) {
    return std::max<std::int64_t>(quota / period, 1);
  }
  return 1 << 20;
}

std::int64_t openmp_threads() {
  const char* text = std::getenv("OMP_NUM_THREADS");
  const std::int64_t threads = text == nullptr ? 0 : std::strtol(text, nullptr, 10);
  return threads > 0 ? threads : 1 << 20;
}

}  // namespace

std::string_view to_string(DeviceKind kind) { return kind == DeviceKind::cuda ? "cuda" : "cpu"; }

std::string name_of_kind(const DeviceInfo& info) {
  return fmt::format("{} x{}", info.name,
                     info.kind == DeviceKind::cuda ? info.multiprocessors : info.threads);
}

bool same_device(const DeviceSpec& a, const DeviceSpec& b) {
  return a.kind == b.kind && a.index == b.index && a.threads == b.threads && a.sms == b.sms;
}

ThreadTeam& Stream::team() { throw DeviceError("this stream has no CPU threads"); }
int Stream::multiprocessors() const { throw DeviceError("this stream is none of a GPU"); }

std::unique_ptr<Device> open_device(const DeviceSpec& spec) {
  if (spec.kind == DeviceKind::cuda) return open_cuda(spec);
  if (spec.threads < 1) {
    throw DeviceError(fmt::format("cpu device with {} threads; give at least 1", spec.threads));
  }
  return open_cpu(spec);
}

std::vector<DeviceInfo> list_devices() {
  std::vector<DeviceInfo> devices = {cpu_info(static_cast<int>(usable_cores().size()))};
  for (DeviceInfo& device : list_cuda_devices()) devices.push_back(std::move(device));
  return devices;
}

std::vector<int> usable_cores() {
  std::vector<int> cores;
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) == 0) {
    for (std::size_t core = 0; core < CPU_SETSIZE; ++core) {
      if (CPU_ISSET(core, &set)) cores.push_back(static_cast<int>(core));
    }
  }
  if (cores.empty()) cores.push_back(0);
  const std::int64_t most = std::min(quota_cores(), openmp_threads());
  if (std::ssize(cores) > most) cores.resize(static_cast<std::size_t>(most));
  return cores;
}

double thread_cpu_seconds() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

double now_seconds() {
  const auto time = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double>(time).count();
}

}  // namespace spdnn
