// spdnn-gpu partition FILE.hgr: vertices of any hypergraph, divided or counted.
#include "partition_vertices.hpp"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "spdnn/hypergraph.hpp"
#include "stopwatch.hpp"

namespace spdnn {
namespace {

using Json = nlohmann::ordered_json;

/// One line of the table.
struct Row {
  std::string model;
  int parts = 0;
  VertexScore score;
  Elapsed elapsed;
};

std::string table(const std::vector<Row>& rows) {
  std::string text = fmt::format("{:<16}{:>6}{:>14}{:>12}{:>11}{:>10}{:>10}\n", "model", "parts",
                                 "connectivity", "cut", "imbalance", "seconds", "CPU s");
  for (const Row& row : rows) {
    text += fmt::format("{:<16}{:>6}{:>14}{:>12}{:>10.2f}%{:>10.2f}{:>10.2f}\n", row.model,
                        row.parts, row.score.connectivity, row.score.cut,
                        100.0 * row.score.imbalance, row.elapsed.seconds, row.elapsed.cpu_seconds);
  }
  return text;
}

Json json_of(const Row& row) {
  return {{"model", row.model},
          {"parts", row.parts},
          {"connectivity", row.score.connectivity},
          {"cut", row.score.cut},
          {"imbalance", row.score.imbalance},
          {"seconds", row.elapsed.seconds},
          {"cpu_seconds", row.elapsed.cpu_seconds}};
}

void add_rows(const VertexGraph& graph, const VertexOptions& options,
              const HypergraphRequest& request, std::vector<Row>& rows) {
  const int parts = static_cast<int>(std::ssize(request.speeds));
  const Stopwatch watch;
  const std::vector<std::uint32_t> owners = partition_vertices(graph, request);
  const Elapsed elapsed = watch.elapsed();
  rows.push_back({"hypergraph", parts, score_vertices(graph, owners, request.speeds), elapsed});
  if (!options.save.empty()) {
    write_owners(options.save / fmt::format("{}.part.{}", options.file.filename().string(), parts),
                 owners);
  }
  if (options.score.empty()) return;
  const auto given = read_owners(options.score, std::ssize(graph.vertex_weights), parts);
  rows.push_back(
      {options.score.filename().string(), parts, score_vertices(graph, given, request.speeds), {}});
}

}  // namespace

ExitStatus partition_vertices_command(const VertexOptions& options) {
  const VertexGraph graph = read_hypergraph(options.file);
  std::vector<Row> rows;
  for (const HypergraphRequest& request : options.requests) {
    add_rows(graph, options, request, rows);
  }
  if (options.json) {
    Json list = Json::array();
    for (const Row& row : rows) list.push_back(json_of(row));
    const HypergraphRequest& request = options.requests.front();
    const Json json{{"name", options.file.filename().string()},
                    {"vertices", graph.vertex_weights.size()},
                    {"nets", graph.net_weights.size()},
                    {"pins", graph.pins.size()},
                    {"imbalance_allowed", request.imbalance},
                    {"seed", request.seed},
                    {"effort", request.effort},
                    {"searches", request.searches},
                    {"partitions", std::move(list)}};
    print(json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
    return ExitStatus::done;
  }
  print(fmt::format("{}: {} vertices, {} nets, {} pins\n", options.file.filename().string(),
                    graph.vertex_weights.size(), graph.net_weights.size(), graph.pins.size()) +
        table(rows));
  return ExitStatus::done;
}

}  // namespace spdnn
