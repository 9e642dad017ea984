// The ways of dividing rows by their names, and the one that a run chose.
#include <fmt/format.h>

#include <algorithm>
#include <thread>

#include "spdnn/partition.hpp"

namespace spdnn {
namespace {

/// A way of dividing rows, by its name.
using Maker = Partition (*)(const Model&, const HypergraphRequest&);
int parts_of(const HypergraphRequest& request) {
  return static_cast<int>(std::ssize(request.speeds));
}

const std::vector<std::pair<std::string, Maker>>& makers() {
  static const std::vector<std::pair<std::string, Maker>> all = {
      {"random",
       [](const Model& m, const HypergraphRequest& r) {
         return random_partition(m, parts_of(r), r.seed);
       }},
      {"block", [](const Model& m,
                   const HypergraphRequest& r) { return proportional_partition(m, r.speeds); }},
      {"cyclic",
       [](const Model& m, const HypergraphRequest& r) { return cyclic_partition(m, parts_of(r)); }},
      {"hypergraph", hypergraph_partition},
      {"zoltan", zoltan_partition}};
  return all;
}

}  // namespace

std::vector<std::string> partition_models() {
  std::vector<std::string> names;
  for (const auto& [name, maker] : makers()) {
    if (maker != &zoltan_partition || have_zoltan()) names.push_back(name);
  }
  return names;
}

Partition make_partition(const std::string& name, const Model& model,
                         const HypergraphRequest& request) {
  std::string names;
  for (const auto& [known, maker] : makers()) {
    if (known == name) return maker(model, request);
    names += (names.empty() ? "" : ", ") + known;
  }
  throw InputError(fmt::format("'{}' is no way of dividing rows; there are {}", name, names));
}

Partition choose_partition(const PartitionSpec& spec, const Model& model,
                           const std::vector<double>& speeds) {
  if (spec.model == "file") {
    return read_partition(spec.file, model, static_cast<int>(std::ssize(speeds)));
  }
  HypergraphRequest request;
  request.speeds = speeds;
  request.seed = spec.seed;
  request.threads = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  return make_partition(spec.model == "auto" ? "block" : spec.model, model, request);
}

}  // namespace spdnn
