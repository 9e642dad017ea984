// spdnn-gpu partition: tables, JSON, charts and the files it keeps.
#include <fmt/format.h>

#include "process.hpp"

namespace spdnn {
namespace {

using nlohmann::json;
using test::expect_part;
using test::Outcome;
using test::read_text;

class PartitionCommand : public test::CliTest {
 protected:
  std::string config(int layers) const {
    const json content{
        {"model",
         {{"radixnet", {{"neurons", 64}, {"layers", layers}, {"fold", 4}, {"bias", -0.2}}}}},
        {"input", {{"digits", {{"images", 10}}}}}};
    return write("net.json", content.dump());
  }
};

TEST_F(PartitionCommand, CountsEveryModelAndKeepsTheBest) {
  const Outcome o = run({"partition", config(6), "--parts", "2,3", "--json", "--save", "kept",
                         "--chart", "words.svg", "--hypergraph", "net.hgr", "--searches", "1"});
  ASSERT_EQ(o.status, 0) << o.err;
  const json result = json::parse(o.out);
  ASSERT_GE(result["partitions"].size(), 8U);  // more where there is Zoltan
  for (const json& row : result["partitions"]) {
    std::int64_t words = 0;
    for (const json& layer : row["words_by_layer"]) words += layer.get<std::int64_t>();
    EXPECT_EQ(row["words"], words);
    EXPECT_EQ(row["words_by_layer"][0], 0);
  }
  // A network of 6 layers of 64 rows; 8 weights a row.
  expect_part(read_text(folder_ / "net.hgr"), "320 384 10\n");
  const std::string chart = read_text(folder_ / "words.svg");
  EXPECT_TRUE(chart.starts_with("<svg")) << chart.substr(0, 80);
  expect_part(chart, "hypergraph");

  // What was kept is what was counted.
  std::int64_t least = result["partitions"][0]["words"];
  for (const json& row : result["partitions"]) {
    if (row["parts"] == 2) least = std::min(least, row["words"].get<std::int64_t>());
  }
  const Outcome again = run({"partition", "net.json", "--parts", "2", "--models", "block",
                             "--score", "kept/net-2.part", "--json"});
  ASSERT_EQ(again.status, 0) << again.err;
  EXPECT_EQ(json::parse(again.out)["partitions"][1]["words"], least);
}

TEST_F(PartitionCommand, FilesOfOthersAreRefusedWithAReason) {
  ASSERT_EQ(
      run({"partition", config(2), "--parts", "2", "--models", "cyclic", "--save", "."}).status, 0);
  const std::string file = read_text(folder_ / "net-2.part");
  const auto score = [&](const std::string& text, const std::string& parts = "2") {
    const Outcome o = run({"partition", "net.json", "--parts", parts, "--models", "block",
                           "--score", write("other.part", text)});
    EXPECT_EQ(o.status, text == file && parts == "2" ? 0 : 2) << o.err;
    return o.err;
  };
  EXPECT_EQ(score(file), "");
  expect_part(score(file, "3"), "other.part: has 2 parts, but there are 3 ranks");
  std::string other = file;
  other[other.find("network ") + 8] = other[other.find("network ") + 8] == '0' ? '1' : '0';
  expect_part(score(other), "is for the network with key");
  expect_part(score(file + "0\n"), "other.part:132: more owners than the 128 rows of the network");
  expect_part(score(file.substr(0, file.size() - 4)), "ends after 126 owners");
  std::string bad = file;
  bad.replace(bad.size() - 2, 1, "2");
  expect_part(score(bad), "other.part:131: '2' is no part from 0 to 1");
  bad.replace(bad.size() - 2, 1, "x");
  expect_part(score(bad), "other.part:131: 'x' is no part");
  expect_part(score("% spdnn-gpu partition 1\n% network zz\n"), "other.part:2: 'zz'");
  expect_part(score("% spdnn-gpu partition 1\n"), "other.part:2: expected '% network KEY'");
  expect_part(score(""), "other.part:1: ends after 0 owners");
}

TEST_F(PartitionCommand, PlainListsOfOtherProgramsAreRead) {
  ASSERT_EQ(
      run({"partition", config(2), "--models", "cyclic", "--save", ".", "--parts", "2"}).status, 0);
  const std::string file = read_text(folder_ / "net-2.part");
  std::string plain = file;
  for (int line = 0; line < 3; ++line) plain.erase(0, plain.find('\n') + 1);
  const Outcome o = run({"partition", "net.json", "--parts", "2", "--models", "cyclic", "--json",
                         "--score", write("plain", plain)});
  ASSERT_EQ(o.status, 0) << o.err;
  const json rows = json::parse(o.out)["partitions"];
  EXPECT_EQ(rows[0]["words_by_layer"], rows[1]["words_by_layer"]);
}

TEST_F(PartitionCommand, HypergraphsOfOthersAreDividedAndCounted) {
  ASSERT_EQ(
      run({"partition", config(3), "--parts", "2", "--models", "cyclic", "--hypergraph", "net.hgr"})
          .status,
      0);
  const std::vector<std::string> divide = {"partition", "net.hgr", "--parts", "2,3", "--searches",
                                           "1",         "--json",  "--save",  "kept"};
  Outcome o = run(divide);
  ASSERT_EQ(o.status, 0) << o.err;
  const json rows = json::parse(o.out)["partitions"];
  ASSERT_EQ(rows.size(), 2U);
  EXPECT_LE(rows[0]["imbalance"].get<double>(), 0.03);
  // What it keeps counts the same as a hypergraph's and as the network's partition.
  o = run({"partition", "net.hgr", "--parts", "3", "--json", "--score", "kept/net.hgr.part.3"});
  ASSERT_EQ(o.status, 0) << o.err;
  EXPECT_EQ(json::parse(o.out)["partitions"][1]["connectivity"], rows[1]["connectivity"]);
  o = run({"partition", "net.json", "--parts", "3", "--models", "cyclic", "--json", "--score",
           "kept/net.hgr.part.3"});
  ASSERT_EQ(o.status, 0) << o.err;
  EXPECT_EQ(json::parse(o.out)["partitions"][1]["words"], rows[1]["connectivity"]);

  o = run({"partition", "net.hgr", "--parts", "2", "--models", "cyclic"});
  EXPECT_EQ(o.status, 2);
  expect_part(o.err, "--models: is for networks, not for a hypergraph; leave it out");
  o = run({"partition", write("bad.hgr", "1 2\n1 3\n")});
  EXPECT_EQ(o.status, 2);
  expect_part(o.err, "bad.hgr:2: '3' is no vertex from 1 to 2");
  o = run({"partition", "net.hgr", "--parts", "2", "--score", "kept/net.hgr.part.3"});
  EXPECT_EQ(o.status, 2);
  expect_part(o.err, "'2' is no part from 0 to 1");
}

TEST_F(PartitionCommand, UnknownModelsAndNumbersAreRefused) {
  Outcome o = run({"partition", config(2), "--models", "blocks"});
  EXPECT_EQ(o.status, 2);
  expect_part(o.err, "'blocks' is none of random, block, cyclic, hypergraph");
  o = run({"partition", "net.json", "--parts", "0"});
  EXPECT_EQ(o.status, 2);
  expect_part(o.err, "--parts: 0; give 1 to 65535");
  o = run({"partition", "net.json", "--parts", "2", "--imbalance", "-1"});
  EXPECT_EQ(o.status, 2);
  expect_part(o.err, "imbalance -1; give 0 to 1");
}

TEST_F(PartitionCommand, NumbersBelowTheLeastAreRefused) {
  for (const char* option : {"--threads=0", "--phase-layers=-5", "--layers=-1", "--parts=0"}) {
    const Outcome o = run({"partition", SPDNN_CONFIGS "/quickstart.json", option});
    EXPECT_EQ(o.status, 2) << option;
    expect_part(o.err, "give ");
  }
}

TEST_F(PartitionCommand, SaysWhatItWroteAndOverWhatASpeedUpIs) {
  const Outcome o = run({"partition", config(2), "--parts", "2", "--models", "block", "--save",
                         "kept", "--chart", "words.svg", "--hypergraph", "net.hgr"});
  ASSERT_EQ(o.status, 0) << o.err;
  for (const char* file : {"kept/net-2.part", "words.svg", "net.hgr"}) {
    expect_part(o.out, fmt::format("written: {}\n", file));
  }
  const Outcome steps = run({"simulate", "net.json", "--parts", "2", "--models", "block", "--batch",
                             "1", "--chart", "steps.svg"});
  ASSERT_EQ(steps.status, 0) << steps.err;
  expect_part(steps.out, "within a process: nothing travels\n");
  expect_part(steps.out, "speed-up: of training, over 2 ranks\n");
  expect_part(steps.out, "written: steps.svg\n");
}

TEST_F(PartitionCommand, SimulatesStepsOnMoreRanks) {
  const Outcome o =
      run({"simulate", config(4), "--parts", "1,2,4", "--models", "block", "--batch", "2", "--json",
           "--chart", "steps.svg", "--network-link", "1e6,0,0", "--ranks-per-node", "2"});
  ASSERT_EQ(o.status, 0) << o.err;
  const json steps = json::parse(o.out)["steps"];
  ASSERT_EQ(steps.size(), 3U);
  EXPECT_EQ(steps[0]["messages"], 0);
  EXPECT_EQ(steps[2]["batch"], 2);
  EXPECT_EQ(steps[0]["training"]["exchange_s"], 0.0);
  // What ranks do themselves is measured, and next to nothing beside the link between nodes.
  EXPECT_LT(steps[1]["training"]["exchange_s"], 1e5);  // one node
  // Each of three exchanges, both ways, and the outputs: on four ranks some words leave the node.
  EXPECT_NEAR(steps[2]["training"]["exchange_s"].get<double>(), 7e6, 1e5);
  EXPECT_TRUE(read_text(folder_ / "steps.svg").starts_with("<svg"));
  // Two batches are two rows of one partition.
  const Outcome both = run({"simulate", "net.json", "--parts", "2", "--models", "cyclic", "--batch",
                            "1,3", "--json", "--ranks-per-process", "2"});
  ASSERT_EQ(both.status, 0) << both.err;
  const json rows = json::parse(both.out)["steps"];
  ASSERT_EQ(rows.size(), 2U);
  EXPECT_EQ(rows[0]["words"], rows[1]["words"]);
  EXPECT_EQ(rows[1]["batch"], 3);
  EXPECT_EQ(run({"simulate", "net.json", "--ranks-per-process", "3"}).status, 2);
  EXPECT_EQ(run({"simulate", "net.json", "--node-link", "1,2"}).status, 2);
  EXPECT_EQ(run({"simulate", "net.json", "--node-link", "nan,0,0"}).status, 2);
}

}  // namespace
}  // namespace spdnn
