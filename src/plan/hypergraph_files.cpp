// Hypergraphs in hMETIS's format: a network's written, anyone's read, and parts of their vertices.
#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <limits>

#include "hypergraph/hypergraph.hpp"
#include "number_lines.hpp"
#include "spdnn/hypergraph.hpp"
#include "spdnn/io.hpp"

namespace spdnn {
namespace {

namespace fs = std::filesystem;

// Sums over all of them stay in 64 bits.
constexpr std::int64_t kMostWeight = std::numeric_limits<std::int32_t>::max();
constexpr std::int64_t kMostCount = std::numeric_limits<std::int32_t>::max();

/// The first line: how many there are, and which weights are given.
struct Head {
  std::int64_t nets = 0, vertices = 0;
  bool net_weights = false, vertex_weights = false;
};

Head read_head(NumberLines& lines) {
  if (!lines.next_data()) lines.fail("ends before the line 'nets vertices [format]'");
  const auto words = lines.words();
  if (words.size() < 2 || words.size() > 3) {
    lines.fail(fmt::format("{} numbers; the first line is 'nets vertices [format]'", words.size()));
  }
  Head head;
  head.nets = lines.number<std::int64_t>(words[0], "number of nets", 0, kMostCount);
  head.vertices = lines.number<std::int64_t>(words[1], "number of vertices", 1, kMostCount);
  if (words.size() == 3) {
    if (words[2] != "0" && words[2] != "1" && words[2] != "10" && words[2] != "11") {
      lines.fail(
          fmt::format("format '{}'; give 1 (nets weigh), 10 (vertices do), 11 (both do) or "
                      "none",
                      words[2].substr(0, 40)));
    }
    head.net_weights = words[2].back() == '1';
    head.vertex_weights = words[2].size() == 2;
  }
  return head;
}

void read_net(NumberLines& lines, const Head& head, VertexGraph& graph) {
  const auto net = std::ssize(graph.net_weights) + 1;
  if (!lines.next_data()) lines.fail(fmt::format("ends before net {} of {}", net, head.nets));
  const auto words = lines.words();
  const std::size_t first = head.net_weights ? 1 : 0;
  if (words.size() <= first) {
    lines.fail(fmt::format("net {} has no vertices; leave it out and count one less", net));
  }
  graph.net_weights.push_back(
      head.net_weights ? lines.number<std::int64_t>(words[0], "weight of a net", 1, kMostWeight)
                       : 1);
  for (std::size_t k = first; k < words.size(); ++k) {
    graph.pins.push_back(static_cast<std::uint32_t>(
        lines.number<std::int64_t>(words[k], "vertex", 1, head.vertices) - 1));
  }
  const auto begin = graph.pins.begin() + graph.net_offsets.back();
  std::sort(begin, graph.pins.end());
  const auto twice = std::adjacent_find(begin, graph.pins.end());
  if (twice != graph.pins.end()) {
    lines.fail(fmt::format("net {} names vertex {} twice; name it once", net, *twice + 1));
  }
  graph.net_offsets.push_back(std::ssize(graph.pins));
}

void read_vertex(NumberLines& lines, const Head& head, VertexGraph& graph) {
  const auto vertex = std::ssize(graph.vertex_weights) + 1;
  if (!lines.next_data()) {
    lines.fail(fmt::format("ends before the weight of vertex {} of {}", vertex, head.vertices));
  }
  const auto words = lines.words();
  if (words.size() != 1) {
    lines.fail(fmt::format("{} numbers for the weight of vertex {}; give 1", words.size(), vertex));
  }
  graph.vertex_weights.push_back(
      lines.number<std::int64_t>(words[0], "weight of a vertex", 0, kMostWeight));
}

}  // namespace

VertexGraph read_hypergraph(const fs::path& file) {
  NumberLines lines(file);
  const Head head = read_head(lines);
  VertexGraph graph;
  while (std::ssize(graph.net_weights) < head.nets) read_net(lines, head, graph);
  if (head.vertex_weights) {
    while (std::ssize(graph.vertex_weights) < head.vertices) read_vertex(lines, head, graph);
  } else {
    graph.vertex_weights.assign(static_cast<std::size_t>(head.vertices), 1);
  }
  while (lines.next_data()) {
    if (lines.words().empty()) continue;
    lines.fail(fmt::format(
        "more lines than the {} nets{} of the first line", head.nets,
        head.vertex_weights ? fmt::format(" and {} vertices", head.vertices) : std::string{}));
  }
  return graph;
}

std::vector<std::uint32_t> read_owners(const fs::path& file, std::int64_t vertices, int parts) {
  NumberLines lines(file);
  lines.next();
  return read_parts(lines, vertices, static_cast<std::uint32_t>(parts) - 1, "vertices");
}

void write_owners(const fs::path& file, std::span<const std::uint32_t> owners) {
  std::string text;
  for (const std::uint32_t owner : owners) fmt::format_to(std::back_inserter(text), "{}\n", owner);
  write_file_atomically(file, text);
}

void write_hypergraph(const fs::path& file, const Model& model) {
  const std::vector<CsrView> weights = partitioned_weights(model);
  const auto graph = hypergraph::hypergraph_of(weights, {0, std::ssize(weights)}, {}, 1);
  // hMETIS wants two vertices on a net, and nets that nobody reads have one.
  std::string text;
  std::int64_t nets = 0;
  for (std::int64_t net = 0; net < graph.nets(); ++net) {
    const auto pins = graph.pins_of(net);
    if (pins.size() < 2) continue;
    ++nets;
    for (const std::uint32_t v : pins) fmt::format_to(std::back_inserter(text), "{} ", v + 1);
    text.back() = '\n';
  }
  std::string head = fmt::format("{} {} 10\n", nets, graph.vertices());
  for (const hypergraph::Weight& weight : graph.weights) {
    fmt::format_to(std::back_inserter(text), "{}\n", weight.nonzeros);
  }
  write_file_atomically(file, head + text);
}

}  // namespace spdnn
