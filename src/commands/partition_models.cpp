// The options by which ways of dividing rows are chosen.
#include "partition_models.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdio>

#include "spdnn/io.hpp"

namespace spdnn {
namespace {

void add_search_options(CLI::App& command, HypergraphRequest& request) {
  command
      .add_option("--imbalance", request.imbalance,
                  "How far a part may exceed its share of a layer's weights")
      ->type_name("PART")
      ->capture_default_str();
  command.add_option("--seed", request.seed, "Seed of random partitions and searches")
      ->check(whole_number(0))
      ->type_name("S")
      ->capture_default_str();
  command.add_option("--effort", request.effort, "How long to search, relative")
      ->type_name("E")
      ->capture_default_str();
  command.add_option("--searches", request.searches, "Searches, of which the best is kept")
      ->type_name("N")
      ->capture_default_str();
  command.add_option("--threads", request.threads, "Searches at a time")
      ->type_name("T")
      ->capture_default_str();
  command
      .add_option("--phase-layers", request.phase_layers,
                  "Layers partitioned at once, those before them fixed; 0: as many as memory and "
                  "caches are fine with")
      ->type_name("L")
      ->capture_default_str();
}

}  // namespace

void check_partition_models(const std::vector<std::string>& names) {
  const std::vector<std::string> known = partition_models();
  for (const std::string& name : names) {
    if (std::find(known.begin(), known.end(), name) == known.end()) {
      throw InputError(fmt::format("--models: '{}' is none of {}", name, fmt::join(known, ", ")));
    }
  }
}

void add_partition_options(CLI::App& command, PartitionOptions& options) {
  options.request.threads = static_cast<int>(usable_cores().size());
  add_config_options(command, options.config);
  command.add_option("--parts", options.parts, "Numbers of parts, with commas between")
      ->delimiter(',')
      ->type_name("K,…")
      ->capture_default_str();
  command.add_option("--models", options.models, "Ways of dividing, with commas between")
      ->delimiter(',')
      ->type_name("NAME,…")
      ->capture_default_str();
  command.add_option("--layers", options.layers, "Only the first so many layers; 0: all")
      ->type_name("L");
  add_search_options(command, options.request);
  command.add_option("--chart", options.chart, "Draw a chart over the parts")
      ->type_name("FILE.svg");
  command.add_flag("--json", options.json, "Print JSON");
}

void check_outputs(std::initializer_list<std::filesystem::path> files) {
  for (const std::filesystem::path& file : files) {
    if (!file.empty()) check_writable(file);
  }
}

Model network_of(const PartitionOptions& options) {
  if (options.layers < 0) {
    throw InputError(fmt::format("--layers: {}; give 1 or more, or 0 for all", options.layers));
  }
  std::vector<std::string> notes;
  Model model = load_model(load_config(options.config.file, options.config.overrides), notes);
  for (const std::string& note : notes) std::fprintf(stderr, "note: %s\n", note.c_str());
  if (options.layers > 0 && options.layers < std::ssize(model.layers)) {
    model.layers.resize(static_cast<std::size_t>(options.layers));
  }
  return model;
}

std::vector<HypergraphRequest> requests_of(const PartitionOptions& options) {
  if (options.request.threads < 1) {
    throw InputError(fmt::format("--threads: {}; give 1 or more", options.request.threads));
  }
  if (options.request.phase_layers < 0) {
    throw InputError(fmt::format("--phase-layers: {}; give 1 or more, or 0 for as many as fit",
                                 options.request.phase_layers));
  }
  std::vector<HypergraphRequest> requests;
  for (const int parts : options.parts) {
    if (parts < 1 || parts > kMaxParts) {
      throw InputError(fmt::format("--parts: {}; give 1 to {}", parts, kMaxParts));
    }
    requests.push_back(options.request);
    requests.back().speeds.assign(static_cast<std::size_t>(parts), 1.0);
  }
  return requests;
}

}  // namespace spdnn
