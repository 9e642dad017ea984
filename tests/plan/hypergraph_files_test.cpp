// Hypergraphs and partitions of other programs: round trips, what a hand can count, and files that
// are wrong.
#include <gtest/gtest.h>

#include "plan/random_model.hpp"
#include "spdnn/hypergraph.hpp"
#include "support/scratch.hpp"

namespace spdnn {
namespace {

using test::ScratchDir;

class HypergraphFiles : public ::testing::Test {
 protected:
  std::filesystem::path write(const std::string& text) const {
    test::write_text(folder_ / "net.hgr", text);
    return folder_ / "net.hgr";
  }
  /// What reading `text` throws.
  std::string refusal(const std::string& text) const {
    try {
      (void)read_hypergraph(write(text));
    } catch (const InputError& error) {
      const std::string what = error.what();
      return what.substr(what.find("net.hgr"));
    }
    return "read";
  }
  std::string owners_refusal(const std::string& text) const {
    try {
      (void)read_owners(write(text), 3, 2);
    } catch (const InputError& error) {
      const std::string what = error.what();
      return what.substr(what.find("net.hgr"));
    }
    return "read";
  }
  ScratchDir folder_;
};

HypergraphRequest request_for(const std::vector<double>& speeds) {
  HypergraphRequest request;
  request.speeds = speeds;
  request.searches = 1;
  return request;
}

TEST_F(HypergraphFiles, TheManualsExampleIsRead) {
  // 4 nets over 7 vertices, both weighing.
  const VertexGraph graph =
      read_hypergraph(write("% a comment\n4 7 11\n2 1 2\n3 1 7 5 6\r\n8 5 6 4\n% another\n7 2 3 4\n"
                            "5\n8\n2\n3\n9\n3\n4\n"));
  EXPECT_EQ(graph.net_offsets, (std::vector<std::int64_t>{0, 2, 6, 9, 12}));
  EXPECT_EQ(graph.pins, (std::vector<std::uint32_t>{0, 1, 0, 4, 5, 6, 3, 4, 5, 1, 2, 3}));
  EXPECT_EQ(graph.net_weights, (std::vector<std::int64_t>{2, 3, 8, 7}));
  EXPECT_EQ(graph.vertex_weights, (std::vector<std::int64_t>{5, 8, 2, 3, 9, 3, 4}));
  // Vertices 1 to 4 and 5 to 7: the nets of weight 3 and 8 are on both sides; on three parts that
  // of 3 is on three.
  VertexScore score =
      score_vertices(graph, std::vector<std::uint32_t>{0, 0, 0, 0, 1, 1, 1}, {1.0, 1.0});
  EXPECT_EQ(score.connectivity, 11);
  EXPECT_EQ(score.cut, 11);
  EXPECT_NEAR(score.imbalance, 18.0 / 17.0 - 1.0, 1e-12);
  score = score_vertices(graph, std::vector<std::uint32_t>{0, 0, 0, 1, 1, 1, 2}, {1.0, 1.0, 2.0});
  EXPECT_EQ(score.connectivity, 3 * 2 + 7);
  EXPECT_EQ(score.cut, 3 + 7);
}

TEST_F(HypergraphFiles, WeightsMayBeLeftOut) {
  const VertexGraph graph = read_hypergraph(write("2 3\n1 2\n3\n\n"));
  EXPECT_EQ(graph.net_weights, (std::vector<std::int64_t>{1, 1}));
  EXPECT_EQ(graph.vertex_weights, (std::vector<std::int64_t>{1, 1, 1}));
  EXPECT_EQ(read_hypergraph(write("1 2 1\n5 1 2\n")).net_weights.front(), 5);
  EXPECT_EQ(read_hypergraph(write("1 2 10\n1 2\n6\n0\n")).vertex_weights.front(), 6);
}

TEST_F(HypergraphFiles, WhatIsWrongIsNamedWithItsLine) {
  EXPECT_EQ(refusal(""), "net.hgr:1: ends before the line 'nets vertices [format]'");
  EXPECT_EQ(refusal("3\n"), "net.hgr:1: 1 numbers; the first line is 'nets vertices [format]'");
  EXPECT_EQ(refusal("1 0\n"), "net.hgr:1: '0' is no number of vertices from 1 to 2147483647");
  EXPECT_EQ(refusal("1 99999999999999999999\n"),
            "net.hgr:1: '99999999999999999999' is no number of vertices from 1 to 2147483647");
  EXPECT_NE(refusal("1 2 2\n1 2\n").find("net.hgr:1: format '2'; give 1"), std::string::npos);
  EXPECT_EQ(refusal("2 3\n1 2\n"), "net.hgr:3: ends before net 2 of 2");
  EXPECT_EQ(refusal("2147483647 3\n1 2\n"), "net.hgr:3: ends before net 2 of 2147483647");
  EXPECT_EQ(refusal("1 3\n\n"),
            "net.hgr:2: net 1 has no vertices; leave it out and count one less");
  EXPECT_EQ(refusal("1 3 1\n4\n"),
            "net.hgr:2: net 1 has no vertices; leave it out and count one less");
  EXPECT_EQ(refusal("1 3\n1 4\n"), "net.hgr:2: '4' is no vertex from 1 to 3");
  EXPECT_EQ(refusal("1 3\n1 0\n"), "net.hgr:2: '0' is no vertex from 1 to 3");
  EXPECT_EQ(refusal("1 3\n1 x\n"), "net.hgr:2: 'x' is no vertex from 1 to 3");
  EXPECT_EQ(refusal("1 3\n2 1 2\n"), "net.hgr:2: net 1 names vertex 2 twice; name it once");
  EXPECT_EQ(refusal("1 3 1\n0 2\n"), "net.hgr:2: '0' is no weight of a net from 1 to 2147483647");
  EXPECT_EQ(refusal("1 2 10\n1 2\n1\n"), "net.hgr:4: ends before the weight of vertex 2 of 2");
  EXPECT_EQ(refusal("1 2 10\n1 2\n1 1\n"),
            "net.hgr:3: 2 numbers for the weight of vertex 1; give 1");
  EXPECT_EQ(refusal("1 2 10\n1 2\n-1\n1\n"),
            "net.hgr:3: '-1' is no weight of a vertex from 0 to 2147483647");
  EXPECT_EQ(refusal("1 2\n1 2\n1\n"), "net.hgr:3: more lines than the 1 nets of the first line");
  EXPECT_THROW((void)read_hypergraph(folder_ / "none.hgr"), InputError);
}

TEST_F(HypergraphFiles, PartsAreReadOneOrSeveralALine) {
  const std::vector<std::uint32_t> parts = {0, 1, 0};
  EXPECT_EQ(read_owners(write("0\n1\n0\n"), 3, 2), parts);
  EXPECT_EQ(read_owners(write("0 1 0 \n"), 3, 2), parts);
  EXPECT_EQ(read_owners(write("0\t1\r\n0"), 3, 2), parts);
  write_owners(folder_ / "net.hgr", parts);
  EXPECT_EQ(read_owners(folder_ / "net.hgr", 3, 2), parts);
  EXPECT_EQ(owners_refusal("0\n2\n0\n"), "net.hgr:2: '2' is no part from 0 to 1");
  EXPECT_EQ(owners_refusal("0\n1\n"), "net.hgr:3: ends after 2 owners, but there are 3 vertices");
  EXPECT_EQ(owners_refusal("0 1\n1 1\n"), "net.hgr:2: more owners than the 3 vertices");
  EXPECT_EQ(owners_refusal("0 1\n1.5\n"), "net.hgr:2: '1.5' is no part from 0 to 1");
}

TEST_F(HypergraphFiles, ANetworksHypergraphComesBack) {
  const Model model = test::random_layers({9, 20, 30, 25}, 6, 5);
  write_hypergraph(folder_ / "model.hgr", model);
  const VertexGraph graph = read_hypergraph(folder_ / "model.hgr");
  ASSERT_EQ(graph.vertex_weights.size(), 75U);
  const Partition partition = random_partition(model, 4, 7);
  std::vector<std::uint32_t> owners;
  for (const LayerPartition& layer : partition.layers) {
    for (const std::uint32_t owner : owners_of(layer)) owners.push_back(owner);
  }
  const std::vector<double> speeds(4, 1.0);
  EXPECT_EQ(score_vertices(graph, owners, speeds).connectivity,
            count_traffic(model, partition).words);
  // What an outside program would make of the file is the network's partition.
  write_owners(folder_ / "parts", owners);
  const Partition read = read_partition(folder_ / "parts", model, 4);
  for (std::size_t l = 0; l < read.layers.size(); ++l) {
    EXPECT_EQ(read.layers[l].rows, partition.layers[l].rows);
  }
}

TEST_F(HypergraphFiles, AChainOfCliquesIsCutBetweenThem) {
  // Four groups of eight vertices, each group's pairs on nets, neighbours joined by one net.
  VertexGraph graph;
  const auto add = [&](std::uint32_t a, std::uint32_t b) {
    graph.pins.insert(graph.pins.end(), {a, b});
    graph.net_offsets.push_back(std::ssize(graph.pins));
    graph.net_weights.push_back(1);
  };
  for (std::uint32_t group = 0; group < 32; group += 8) {
    for (std::uint32_t a = 0; a < 8; ++a) {
      for (std::uint32_t b = a + 1; b < 8; ++b) add(group + a, group + b);
    }
    if (group > 0) add(group - 1, group);
  }
  graph.vertex_weights.assign(32, 3);
  const std::vector<double> even(4, 1.0);
  VertexScore score = score_vertices(graph, partition_vertices(graph, request_for(even)), even);
  EXPECT_EQ(score.connectivity, 3);
  EXPECT_EQ(score.imbalance, 0.0);
  const std::vector<double> uneven = {1.0, 3.0};
  score = score_vertices(graph, partition_vertices(graph, request_for(uneven)), uneven);
  EXPECT_EQ(score.connectivity, 1);
  EXPECT_EQ(score.imbalance, 0.0);
  EXPECT_THROW((void)partition_vertices(graph, request_for({})), InputError);
  EXPECT_THROW((void)partition_vertices(graph, request_for({0.0, 0.0})), InputError);
}

}  // namespace
}  // namespace spdnn
