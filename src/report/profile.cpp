// What `spdnn-gpu profile` shows: every kernel's time on every distinct layer shape.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "format.hpp"
#include "spdnn/report.hpp"

namespace spdnn {
namespace {

using report::Json;

std::string describe(const SpmmShape& shape, std::int64_t layers) {
  return fmt::format("{} × {}, {} nonzeros, longest row {}{}{}, {} layer{}",
                     report::count(shape.rows), report::count(shape.cols), report::count(shape.nnz),
                     report::count(shape.max_row_nnz), shape.shared_value ? ", one value" : "",
                     shape.index_type == DType::u16 ? ", 16-bit columns" : "",
                     report::count(layers), layers == 1 ? "" : "s");
}

double edges_per_s(const SpmmShape& shape, const KernelTime& time) {
  return report::rate(static_cast<double>(shape.nnz), time.seconds_per_image);
}

std::int64_t layers_of(const Profile& profile, std::size_t shape) {
  return std::count(profile.shape_of_layer.begin(), profile.shape_of_layer.end(),
                    static_cast<std::int64_t>(shape));
}

/// The floor of a shape; 0 where it was not measured.
double floor_of(const DeviceProfile& device, std::size_t shape) {
  return shape < device.floors.size() ? device.floors[shape] * device.slowdown : 0.0;
}

/// One shape's kernels on one device. `floor`: seconds an image takes at least.
std::string kernel_table(const SpmmShape& shape, const std::vector<KernelTime>& times,
                         double floor) {
  std::vector<std::vector<std::string>> rows{{"kernel", "µs/image", "speed", "of floor", ""}};
  double best = 0.0;
  for (const KernelTime& time : times) best = std::max(best, edges_per_s(shape, time));
  for (const KernelTime& time : times) {
    if (!time.declined.empty()) {
      rows.push_back({time.kernel, "–", "–", "–", "declined: " + time.declined});
      continue;
    }
    if (!std::isfinite(time.seconds_per_image)) {
      rows.push_back({time.kernel, "–", "–", "–", "not timed, since another takes the shape"});
      continue;
    }
    const double speed = edges_per_s(shape, time);
    rows.push_back({time.kernel, fmt::format("{:.4g}", time.seconds_per_image * 1e6),
                    report::scaled(speed, "edges/s"),
                    floor > 0.0 && time.seconds_per_image > 0.0
                        ? fmt::format("{:.0f} %", 100.0 * floor / time.seconds_per_image)
                        : "–",
                    fmt::format("{} images at once{}", report::count(time.batch),
                                speed == best && speed > 0.0 ? ", fastest" : "")});
  }
  return report::table(rows, {false, true, true, true, false}, "    ");
}

Json shape_json(const SpmmShape& shape, std::int64_t layers) {
  return {{"rows", shape.rows},
          {"cols", shape.cols},
          {"nnz", shape.nnz},
          {"max_row_nnz", shape.max_row_nnz},
          {"index_bytes", size_of(shape.index_type)},
          {"value_bytes", size_of(shape.value_type)},
          {"shared_value", shape.shared_value},
          {"equal_rows", shape.equal_rows},
          {"layers", layers}};
}

Json kernel_json(const SpmmShape& shape, const KernelTime& time) {
  Json json{{"kernel", time.kernel}};
  if (!time.declined.empty()) {
    json["declined"] = time.declined;
    return json;
  }
  json["seconds_per_image"] = report::finite(time.seconds_per_image);
  json["edges_per_s"] = std::isfinite(time.seconds_per_image)
                            ? report::finite(edges_per_s(shape, time))
                            : Json(nullptr);
  json["batch"] = time.batch;
  return json;
}

}  // namespace

std::string profile_text(const Profile& profile) {
  std::string text;
  for (std::size_t rank = 0; rank < profile.ranks.size(); ++rank) {
    const DeviceProfile& device = profile.ranks[rank];
    text += fmt::format("{}Rank {}: {}", rank == 0 ? "" : "\n", rank, device.device.name);
    if (device.device.kind == DeviceKind::cpu) {
      text += fmt::format(", {} thread{}", device.device.threads,
                          device.device.threads == 1 ? "" : "s");
    }
    if (device.slowdown != 1.0) text += fmt::format(", slowed {:.4g}×", device.slowdown);
    text += fmt::format(", {} to use\n", report::bytes(device.memory_limit));
    for (std::size_t s = 0; s < std::min(profile.shapes.size(), device.times.size()); ++s) {
      text += "  " + describe(profile.shapes[s], layers_of(profile, s)) + '\n' +
              kernel_table(profile.shapes[s], device.times[s], floor_of(device, s));
    }
  }
  return text;
}

std::string profile_json(const Profile& profile) {
  Json shapes = Json::array();
  for (std::size_t s = 0; s < profile.shapes.size(); ++s) {
    shapes.push_back(shape_json(profile.shapes[s], layers_of(profile, s)));
  }
  Json ranks = Json::array();
  for (const DeviceProfile& device : profile.ranks) {
    Json times = Json::array();
    Json floors = Json::array();
    for (std::size_t s = 0; s < std::min(profile.shapes.size(), device.times.size()); ++s) {
      Json kernels = Json::array();
      for (const KernelTime& time : device.times[s]) {
        kernels.push_back(kernel_json(profile.shapes[s], time));
      }
      times.push_back(std::move(kernels));
      floors.push_back(report::finite(floor_of(device, s)));
    }
    ranks.push_back({{"device", device.device.name},
                     {"kind", std::string(to_string(device.device.kind))},
                     {"threads", device.device.threads},
                     {"slowdown", report::finite(device.slowdown)},
                     {"memory_limit", device.memory_limit},
                     {"floor_seconds_per_image", std::move(floors)},
                     {"times", std::move(times)}});
  }
  return report::text_of({{"shapes", std::move(shapes)}, {"ranks", std::move(ranks)}});
}

}  // namespace spdnn
