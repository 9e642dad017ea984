// spdnn-gpu bench node from the outside: what it prints and the page it writes.
#include <gtest/gtest.h>

#include "process.hpp"

namespace spdnn {
namespace {

using nlohmann::json;
using test::expect_part;
using test::Outcome;

class Bench : public test::CliTest {
 protected:
  [[nodiscard]] std::string config() const {
    return write("c.json", R"({"model": {"radixnet": {"neurons": 1024, "layers": 3}},
      "input": {"digits": {"images": 400}},
      "devices": [{"cpu": {}}, {"cpu": {"slowdown": 3}}]})");
  }
};

TEST_F(Bench, NodeTellsOfDevicesLinksAndShares) {
  const Outcome o = run({"bench", "node", config(), "--json", "--html", "node.html"});
  ASSERT_EQ(o.status, 0) << o.err;
  const json node = json::parse(o.out);
  EXPECT_EQ(node["shares_of"]["count"], 400);
  ASSERT_EQ(node["devices"].size(), 2U);
  EXPECT_EQ(node["devices"][0]["share"], 300);
  EXPECT_EQ(node["devices"][1]["share"], 100);
  EXPECT_EQ(node["devices"][1]["logical"], true);
  for (const json& device : node["devices"]) {
    EXPECT_GT(device["fma_per_s"].get<double>(), 1e8);
    EXPECT_GT(device["memory_bytes_per_s"].get<double>(), 1e8);
    EXPECT_GT(device["copy_bytes_per_s"].get<double>(), 1e7);
    ASSERT_FALSE(device["works"].empty());
    EXPECT_GT(device["works"][0]["edges_per_s"].get<double>(), 0.0);
    // Both are measured, one after the other, on cores that others use too.
    EXPECT_LT(device["works"][0]["edges_per_s"].get<double>(),
              30.0 * device["fma_per_s"].get<double>());
  }
  EXPECT_EQ(node["links"].size(), 2U);
  EXPECT_GT(node["collectives"][1]["bytes_per_s"].get<double>(), 0.0);
  const std::string page = test::read_text(folder_ / "node.html");
  expect_part(page, "<!doctype html>");
  expect_part(page, "slowed 3");
  EXPECT_EQ(page.find("<script"), std::string::npos);
  EXPECT_EQ(page.find("http"), std::string::npos) << "the page needs no other file";
}

TEST_F(Bench, RanksThatOwnRowsHaveTheirPartOfTheWork) {
  const Outcome o = run({"bench", "node", config(), "--json", "--set", "/strategy=grid", "--set",
                         "/model_ranks=2", "--set", "/split=[1, 3]"});
  ASSERT_EQ(o.status, 0) << o.err;
  const json devices = json::parse(o.out)["devices"];
  EXPECT_EQ(devices[0]["share"], 400);
  EXPECT_EQ(devices[1]["share"], 400);
  EXPECT_EQ(devices[0]["rows"], 0.25);
  EXPECT_EQ(devices[1]["rows"], 0.75);
}

TEST_F(Bench, NodeRefusesWhatARunWouldRefuse) {
  EXPECT_EQ(run({"bench", "node", "missing.json"}).status, 2);
  EXPECT_EQ(run({"bench"}).status, 2);
}

}  // namespace
}  // namespace spdnn
