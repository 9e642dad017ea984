// The fastest kernels of a profile, for one rank or for several together.
#include "kernel_choice.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <span>

namespace spdnn {
namespace {

std::span<const std::int64_t> shapes_of(const Profile& profile, const Range& layers) {
  return {profile.shape_of_layer.data() + layers.begin, static_cast<std::size_t>(layers.size())};
}

/// Seconds an image takes through layers of these shapes, each with the kernel for it.
double seconds_of(const DeviceProfile& device, std::span<const std::int64_t> shapes,
                  const std::string& wanted) {
  double sum = 0.0;
  for (const std::int64_t shape : shapes) {
    sum += choose_kernel(device, static_cast<std::size_t>(shape), wanted).seconds_per_image;
  }
  return sum;
}

/// The fastest chain kernel for layers of these shapes that takes less than `limit` seconds an
/// image, or null. Only `wanted` counts, where it is not "auto".
const KernelTime* fastest_chain(const Profile& profile, const DeviceProfile& device,
                                std::span<const std::int64_t> shapes, const std::string& wanted,
                                double limit) {
  const auto run = std::find_if(profile.runs.begin(), profile.runs.end(), [&](const auto& other) {
    return std::equal(other.begin(), other.end(), shapes.begin(), shapes.end());
  });
  if (run == profile.runs.end()) return nullptr;
  const KernelTime* best = nullptr;
  for (const KernelTime& time : device.chain_times[run - profile.runs.begin()]) {
    if (!time.declined.empty() || (wanted != "auto" && time.kernel != wanted)) continue;
    if (time.seconds_per_image < (best == nullptr ? limit : best->seconds_per_image)) best = &time;
  }
  return best;
}

}  // namespace

const KernelTime& choose_kernel(const DeviceProfile& rank, std::size_t shape,
                                const std::string& wanted) {
  const KernelTime* best = nullptr;
  std::string reasons;
  for (const KernelTime& time : rank.times[shape]) {
    if (wanted != "auto" && time.kernel != wanted) continue;
    if (!time.declined.empty()) {
      reasons += fmt::format("{}{}: {}", reasons.empty() ? "" : "; ", time.kernel, time.declined);
    } else if (best == nullptr || time.seconds_per_image < best->seconds_per_image) {
      best = &time;
    }
  }
  if (best != nullptr) return *best;
  std::string names;
  for (const KernelTime& time : rank.times[shape]) {
    names += (names.empty() ? "" : ", ") + time.kernel;
  }
  throw InputError(
      fmt::format("/kernel: '{}' takes no layer of this shape on {} ({}); kernels "
                  "there: {}",
                  wanted, rank.device.name, reasons.empty() ? "no such kernel" : reasons, names));
}

const KernelTime* common_kernel(const std::vector<DeviceProfile>& ranks, std::size_t shape,
                                const std::string& wanted) {
  const KernelTime* best = nullptr;
  double least = std::numeric_limits<double>::infinity();
  for (const KernelTime& time : ranks.front().times[shape]) {
    if (wanted != "auto" && time.kernel != wanted) continue;
    double sum = 0.0;
    const bool on_all = std::all_of(ranks.begin(), ranks.end(), [&](const DeviceProfile& rank) {
      return std::any_of(rank.times[shape].begin(), rank.times[shape].end(),
                         [&](const KernelTime& other) {
                           if (other.kernel != time.kernel || !other.declined.empty()) return false;
                           sum += other.seconds_per_image;
                           return true;
                         });
    });
    if (!on_all || (best != nullptr && sum >= least)) continue;
    best = &time;
    least = sum;
  }
  return best;
}

bool lists(const std::vector<std::vector<KernelTime>>& tables, const std::string& kernel) {
  return std::any_of(tables.begin(), tables.end(), [&](const std::vector<KernelTime>& table) {
    return std::any_of(table.begin(), table.end(),
                       [&](const KernelTime& time) { return time.kernel == kernel; });
  });
}

std::string wanted_on(const DeviceProfile& rank, const std::string& wanted) {
  if (wanted == "auto" || rank.times.empty()) return "auto";
  return lists(rank.times, wanted) ? wanted : "auto";
}

std::string choose_chain(const Profile& profile, const DeviceProfile& device, const Range& layers,
                         const std::string& wanted) {
  const auto shapes = shapes_of(profile, layers);
  const double limit = wanted == "auto" ? seconds_of(device, shapes, "auto")
                                        : std::numeric_limits<double>::infinity();
  const KernelTime* chain = fastest_chain(profile, device, shapes, wanted, limit);
  return chain == nullptr ? "" : chain->kernel;
}

double modelled_seconds_per_image(const Profile& profile, std::size_t rank) {
  const DeviceProfile& device = profile.ranks[rank];
  double sum = 0.0;
  for (const Range& layers : segment_layers(std::ssize(profile.shape_of_layer))) {
    const auto shapes = shapes_of(profile, layers);
    const double alone = seconds_of(device, shapes, "auto");
    const KernelTime* chain = fastest_chain(profile, device, shapes, "auto", alone);
    sum += chain == nullptr ? alone : chain->seconds_per_image;
  }
  return std::max(sum, 1e-12);
}

}  // namespace spdnn
