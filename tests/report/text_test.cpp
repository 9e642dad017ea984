// result.json, the summary, traces, devices and profiles as text.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "spdnn/report.hpp"

namespace spdnn {
namespace {

using nlohmann::json;

RunResult example() {
  RunResult r;
  r.status = "verified";
  r.job = "infer";
  r.devices = {{{"Some CPU, 1 thread", "cpu", "a", false}, 1.75, 0.05, 30'000},
               {{"Some CPU, 1 thread, slowed 2×", "cpu", "a", true}, 1.7, 0.1, 30'000}};
  r.plan.strategy = Strategy::data;
  r.plan.images = {{0, 30'000}, {30'000, 60'000}};
  r.plan.batch = {30'000, 30'000};
  r.plan.stream_weights = {false, true};
  r.plan.segments.resize(2);
  r.plan.segments[0].kernels = {{"panel", "panel"}, {"panel"}};
  r.plan.segments[1].kernels = {{"panel"}, {"reference"}};
  r.plan.messages = {30e-6, 1e-9, 0.0};
  r.plan.notes = {"a reason"};
  r.compile.before = {122'880, 3'932'160, 7'864'800};
  r.compile.after = {7'040, 167'988, 1'051'872};
  r.compile.passes = {{"fold", 120, r.compile.before, r.compile.after, 0.009, true}};
  r.compile.threads = 2;
  r.compile.from_cache = true;
  r.compile.exact = false;
  r.images = 60'000;
  r.unique_images = 1'200;
  r.layers = 120;
  r.neurons = 1024;
  r.seconds = {0.1, 0.0, 0.4, 1.8, 1.7, 0.3};
  r.edges = {2.359296e11, 9e9};
  r.categories = {286, 294};
  r.categories_match = true;
  r.sample = {64, true, 1e-6};
  r.peak_host_bytes = 812'000'000;
  r.model_origin = "official files";
  r.input_origin = "official files";
  r.notes = {"a note"};
  return r;
}

/// Every number below `value` is finite: JSON has no other, so what is not becomes null.
void expect_no_strange_numbers(const std::string& text) {
  for (const char* word : {"nan", "NaN", "inf", "Inf"}) {
    EXPECT_EQ(text.find(std::string(": ") + word), std::string::npos) << text;
  }
}

TEST(ResultJson, HasTheDocumentedKeysAndValues) {
  const json j = json::parse(result_json(example(), {"spdnn-gpu", "run", "a b.json"}));
  EXPECT_EQ(j["status"], "verified");
  EXPECT_EQ(j["job"], "infer");
  EXPECT_EQ(j["command"], (json{"spdnn-gpu", "run", "a b.json"}));
  EXPECT_EQ(j["version"], version().version);
  EXPECT_EQ(j["git"]["commit"], version().commit);
  EXPECT_TRUE(j["git"]["dirty"].is_boolean());
  ASSERT_EQ(j["devices"].size(), 2U);
  EXPECT_EQ(j["devices"][1]["kind"], "cpu");
  EXPECT_EQ(j["devices"][1]["logical"], true);
  EXPECT_EQ(j["devices"][0]["busy_s"], 1.75);
  EXPECT_EQ(j["devices"][0]["idle_s"], 0.05);
  EXPECT_EQ(j["devices"][0]["images"], 30'000);
  EXPECT_EQ(j["plan"]["strategy"], "data");
  EXPECT_EQ(j["plan"]["images"], (json{{0, 30'000}, {30'000, 60'000}}));
  EXPECT_EQ(j["plan"]["messages"],
            (json{{"latency_s", 30e-6}, {"seconds_per_row", 1e-9}, {"seconds_per_byte", 0.0}}));
  EXPECT_EQ(j["plan"]["kernels"], (json{{"panel"}, {"panel", "reference"}}));
  EXPECT_EQ(j["compile"]["exact"], false);
  EXPECT_EQ(j["compile"]["before"]["nonzeros"], 3'932'160);
  EXPECT_EQ(j["compile"]["after"],
            (json{{"rows", 7'040}, {"nonzeros", 167'988}, {"bytes", 1'051'872}}));
  EXPECT_EQ(j["compile"]["passes"][0]["name"], "fold");
  EXPECT_EQ(j["compile"]["passes"][0]["layers"], 120);
  EXPECT_EQ(j["compile"]["passes"][0]["before"], j["compile"]["before"]);
  EXPECT_EQ(j["compile"]["passes"][0]["seconds"], 0.009);
  EXPECT_EQ(j["compile"]["passes"][0]["stopped"], true);
  EXPECT_EQ(j["compile"]["threads"], 2);
  EXPECT_EQ(j["compile"]["from_cache"], true);
  EXPECT_EQ(j["images"], 60'000);
  EXPECT_EQ(j["layers"], 120);
  for (const char* phase : {"load", "compile", "profile", "infer", "infer_resident", "verify"}) {
    EXPECT_TRUE(j["seconds"][phase].is_number()) << phase;
  }
  EXPECT_EQ(j["seconds"]["infer"], 1.8);
  EXPECT_EQ(j["edges"]["nominal"], 2.359296e11);
  EXPECT_DOUBLE_EQ(j["edges_per_s"]["nominal"].get<double>(), 2.359296e11 / 1.8);
  EXPECT_DOUBLE_EQ(j["edges_per_s"]["executed"].get<double>(), 9e9 / 1.8);
  EXPECT_EQ(j["categories"]["count"], 2);
  EXPECT_EQ(j["categories"]["match"], true);
  EXPECT_TRUE(j["accuracy"].is_null());
  EXPECT_EQ(j["peak_bytes"]["host"], 812'000'000);
  EXPECT_EQ(j["sample"]["images"], 64);
}

TEST(ResultJson, OfAnEmptyResultIsFinite) {
  const std::string text = result_json({}, {});
  expect_no_strange_numbers(text);
  const json j = json::parse(text);
  EXPECT_EQ(j["edges_per_s"]["nominal"], 0.0);
  EXPECT_TRUE(j["categories"]["match"].is_null());
  EXPECT_TRUE(j["sample"]["match"].is_null());
}

TEST(ResultJson, NeverHoldsWhatIsNotFinite) {
  RunResult r = example();
  r.seconds.infer = std::nan("");
  r.edges.nominal = std::numeric_limits<double>::infinity();
  r.sample.max_abs_difference = std::nan("");
  r.devices[0].busy_s = std::nan("");
  const std::string text = result_json(r, {});
  expect_no_strange_numbers(text);
  const json j = json::parse(text);
  EXPECT_TRUE(j["seconds"]["infer"].is_null());
  EXPECT_TRUE(j["edges"]["nominal"].is_null());
  EXPECT_EQ(j["edges_per_s"]["nominal"], 0.0);
}

TEST(ResultJson, TakesArgumentsThatAreNotUtf8) {
  EXPECT_TRUE(json::accept(result_json(example(), {"\xff\xfe"})));
}

TEST(Summary, SaysTheVerdictFirstAndBothRates) {
  const std::string text = result_summary(example());
  EXPECT_EQ(text.rfind("VERIFIED  2 categories as in the truth file", 0), 0U) << text;
  for (const char* part :
       {"1,024 neurons × 120 layers: official files", "60,000 images, 1,200 distinct ones run",
        "data on 2 devices", "(logical)", "131 Gedges/s", "5.00 Gedges/s", "812 MB", "1.80 s",
        "note: a reason", "note: a note"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << " in:\n" << text;
  }
}

TEST(Summary, NamesHostsWhereThereAreSeveral) {
  RunResult r = example();
  EXPECT_EQ(result_summary(r).find(" on a"), std::string::npos);
  r.devices[1].host = "b";
  const std::string text = result_summary(r);
  EXPECT_NE(text.find("Some CPU, 1 thread on a "), std::string::npos) << text;
  EXPECT_NE(text.find("slowed 2× on b (logical)"), std::string::npos) << text;
}

TEST(Summary, NamesFailures) {
  RunResult r = example();
  r.status = "wrong";
  r.categories_match = false;
  r.failures = {"categories: in the truth file, but not found: 288"};
  const std::string text = result_summary(r);
  EXPECT_EQ(text.rfind("WRONG  2 categories that differ from the truth file", 0), 0U) << text;
  EXPECT_NE(text.find("not found: 288"), std::string::npos);
}

TEST(Summary, OfAnEmptyResultIsText) {
  RunResult r;
  r.status = "done";
  EXPECT_NE(result_summary(r).find("no truth file to compare with"), std::string::npos);
}

TEST(Trace, IsWhatChromeReads) {
  const std::vector<TraceSpan> spans{{"layer", 3, 10.5, 10.75, 77}, {"load", -1, 10.0, 10.25, 5}};
  const json j = json::parse(trace_json(spans));
  const json& events = j["traceEvents"];
  ASSERT_EQ(events.size(), 2U);
  EXPECT_EQ(events[0]["ph"], "X");
  EXPECT_EQ(events[0]["name"], "layer");
  EXPECT_DOUBLE_EQ(events[0]["ts"].get<double>(), 5e5);
  EXPECT_DOUBLE_EQ(events[0]["dur"].get<double>(), 2.5e5);
  EXPECT_EQ(events[0]["args"]["payload"], 3);
  EXPECT_FALSE(events[1].contains("args"));
  EXPECT_NE(events[0]["tid"], events[1]["tid"]);
  EXPECT_EQ(json::parse(trace_json({}))["traceEvents"].size(), 0U);
}

TEST(Devices, ListsWhatThisMachineHas) {
  const json j = json::parse(devices_json());
  ASSERT_FALSE(j["devices"].empty());
  EXPECT_EQ(j["devices"][0]["kind"], "cpu");
  EXPECT_GE(j["devices"][0]["threads"], 1);
  EXPECT_GT(j["devices"][0]["memory_bytes"], 0);
  ASSERT_FALSE(j["features"].empty());
  const std::string text = devices_text();
  for (const json& feature : j["features"]) {
    EXPECT_NE(text.find(feature["name"].get<std::string>()), std::string::npos) << text;
    // What is not there comes with what to do about it.
    EXPECT_EQ(feature["usable"].get<bool>(), feature["remedy"].get<std::string>().empty());
  }
}

Profile example_profile() {
  Profile p;
  SpmmShape shape;
  shape.rows = shape.cols = 1024;
  shape.nnz = 32'768;
  shape.max_row_nnz = 32;
  shape.shared_value = true;
  p.shapes = {shape};
  p.shape_of_layer = {0, 0, 0};
  DeviceProfile device;
  device.device.name = "Some CPU";
  device.memory_limit = 8'000'000'000;
  device.slowdown = 2.0;
  device.times = {{{"panel", "", 2e-6, 512},
                   {"tiny", "more than 16 rows", 0.0, 0},
                   {"slow", "", 1e-4, 64},
                   {"reference", "", std::numeric_limits<double>::infinity(), 64}}};
  device.floors = {0.5e-6};  // of the device not slowed down
  p.ranks = {device};
  return p;
}

TEST(ProfileReport, ListsTimesAndReasons) {
  const std::string text = profile_text(example_profile());
  for (const char* part :
       {"Some CPU", "slowed 2×", "1,024 × 1,024", "3 layers", "panel", "16.4 Gedges/s", "50 %",
        "fastest", "declined: more than 16 rows", "not timed"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << " in:\n" << text;
  }
  const json j = json::parse(profile_json(example_profile()));
  EXPECT_EQ(j["shapes"][0]["nnz"], 32'768);
  EXPECT_EQ(j["shapes"][0]["layers"], 3);
  EXPECT_DOUBLE_EQ(j["ranks"][0]["floor_seconds_per_image"][0].get<double>(), 1e-6);
  const json& kernels = j["ranks"][0]["times"][0];
  EXPECT_EQ(kernels[0]["kernel"], "panel");
  EXPECT_DOUBLE_EQ(kernels[0]["edges_per_s"].get<double>(), 32'768 / 2e-6);
  EXPECT_EQ(kernels[1]["declined"], "more than 16 rows");
  EXPECT_FALSE(kernels[1].contains("edges_per_s"));
  EXPECT_TRUE(kernels[3]["seconds_per_image"].is_null());
  EXPECT_TRUE(kernels[3]["edges_per_s"].is_null());
}

TEST(VersionReport, IsSet) { EXPECT_FALSE(version().version.empty()); }

}  // namespace
}  // namespace spdnn
