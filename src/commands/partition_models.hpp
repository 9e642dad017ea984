// The ways of dividing rows that `partition` and `simulate` compare.
#pragma once

#include <filesystem>
#include <initializer_list>
#include <string>
#include <vector>

#include "command.hpp"
#include "spdnn/partition.hpp"

namespace spdnn {

/// Throws `InputError` for a name that is none.
void check_partition_models(const std::vector<std::string>& names);

/// What both commands ask for.
struct PartitionOptions {
  ConfigOptions config;
  std::vector<int> parts;
  std::vector<std::string> models = partition_models();
  HypergraphRequest request;
  std::int64_t layers = 0;  ///< only the first so many; 0: all
  bool json = false;
  std::filesystem::path chart;
};
void add_partition_options(CLI::App& command, PartitionOptions& options);

/// Throws `SystemError` where one of these could not be written; an empty name is none.
void check_outputs(std::initializer_list<std::filesystem::path> files);

/// The network of the configuration, cut to its first layers where that was asked for.
[[nodiscard]] Model network_of(const PartitionOptions& options);
/// One request for each number of parts.
[[nodiscard]] std::vector<HypergraphRequest> requests_of(const PartitionOptions& options);

}  // namespace spdnn
