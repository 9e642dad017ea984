// `partition` for a hypergraph file instead of a network.
#pragma once

#include <filesystem>
#include <vector>

#include "command.hpp"
#include "spdnn/partition.hpp"

namespace spdnn {

struct VertexOptions {
  std::filesystem::path file;  ///< .hgr
  std::vector<HypergraphRequest> requests;
  std::filesystem::path score;  ///< parts of the vertices, to be counted beside; empty: none
  std::filesystem::path save;   ///< folder for what was found; empty: none
  bool json = false;
};

/// Searches, prints a table or JSON, and writes a part a line as FILE.hgr.part.K, as hMETIS names
/// what it makes.
[[nodiscard]] ExitStatus partition_vertices_command(const VertexOptions& options);

}  // namespace spdnn
