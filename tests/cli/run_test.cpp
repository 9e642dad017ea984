// spdnn-gpu run and its companions from the outside: statuses, messages, files.
#include <sys/file.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <thread>

#include "process.hpp"

namespace spdnn {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using test::expect_part;
using test::Outcome;
using test::read_text;

class Run : public test::CliTest {
 protected:
  /// A run of a second or less in which some images live to the end.
  [[nodiscard]] static std::string small(const std::string& more = "") {
    return R"({"model": {"radixnet": {"neurons": 1024, "layers": 12, "bias": -0.2}},
      "input": {"digits": {"images": 200}}, "output": "out")" +
           (more.empty() ? "" : ", " + more) + "}";
  }
  [[nodiscard]] json result() const { return json::parse(read_text(folder_ / "out/result.json")); }
};

TEST_F(Run, EndsVerifiedAndWritesItsResult) {
  const Outcome o = run({"run", write("c.json", small())});
  EXPECT_EQ(o.status, 0) << o.err;
  EXPECT_EQ(o.out.rfind("VERIFIED", 0), 0U) << o.out;
  expect_part(o.out, "out/result.json");
  const json r = result();
  EXPECT_EQ(r["status"], "verified");
  EXPECT_EQ(r["command"][1], "run");
  EXPECT_EQ(r["command"][2], "c.json");
  EXPECT_EQ(r["images"], 200);
  EXPECT_EQ(r["layers"], 12);
  EXPECT_GT(r["seconds"]["infer"], 0.0);
  EXPECT_DOUBLE_EQ(r["edges"]["nominal"].get<double>(), 200.0 * 12 * 32'768);
  EXPECT_LE(r["edges"]["executed"], r["edges"]["nominal"]);
  EXPECT_GT(r["categories"]["count"], 0);
  EXPECT_TRUE(r["categories"]["match"].is_null());
  EXPECT_GT(r["sample"]["images"], 0);
  EXPECT_EQ(r["sample"]["match"], true);
  EXPECT_GT(r["peak_bytes"]["host"], 0);
  std::int64_t images = 0;
  for (const json& device : r["devices"]) images += device["images"].get<std::int64_t>();
  EXPECT_EQ(images, r["unique_images"].get<std::int64_t>());
}

TEST_F(Run, JsonAndQuietControlWhatIsPrinted) {
  const std::string file = write("c.json", small());
  const Outcome as_json = run({"run", file, "--json"});
  EXPECT_EQ(as_json.status, 0) << as_json.err;
  EXPECT_EQ(as_json.out, read_text(folder_ / "out/result.json"));
  const Outcome quiet = run({"run", file, "--quiet"});
  EXPECT_EQ(quiet.status, 0);
  EXPECT_EQ(quiet.out + quiet.err, "");
}

/// What the process that starts it holds is not its own.
TEST_F(Run, PeakMemoryIsItsOwn) {
  if (!fs::exists("/proc/self/status")) GTEST_SKIP() << "there is no /proc to tell";
  constexpr std::int64_t kHeld = std::int64_t{1} << 29U;
  std::vector<char> held(kHeld, 1);
  const pid_t child = start({"run", write("c.json", small())});
  held = {};
  const Outcome o = finish(child);
  ASSERT_EQ(o.status, 0) << o.err;
  EXPECT_LT(result()["peak_bytes"]["host"], kHeld);
}

TEST_F(Run, SetsAndOutputApply) {
  const Outcome o = run({"run", "--set", "/input/digits/images=50", "--set", "/strategy=data",
                         write("c.json", small()), "--output", "there"});
  EXPECT_EQ(o.status, 0) << o.err;
  EXPECT_EQ(json::parse(read_text(folder_ / "there/result.json"))["images"], 50);
  EXPECT_FALSE(fs::exists(folder_ / "out"));
}

TEST_F(Run, WhatCantBeWrittenIsRefusedBeforeTheRun) {
  const std::string file = write("c.json", small());
  const Outcome o = run({"run", file, "--trace", "none/trace.json"});
  EXPECT_EQ(o.status, 3);
  expect_part(o.err, "none/trace.json: can't be written");
  fs::create_directories(folder_ / "in_the_way/result.json");
  EXPECT_EQ(run({"run", file, "--output", "in_the_way"}).status, 3);
  EXPECT_FALSE(fs::exists(folder_ / "out/categories.tsv"));
  EXPECT_FALSE(fs::exists(folder_ / "in_the_way/categories.tsv"));
}

TEST_F(Run, TwoRunsDoNotShareAFolder) {
  fs::create_directory(folder_ / "out");
  const int other = open((folder_ / "out").c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  ASSERT_EQ(flock(other, LOCK_EX | LOCK_NB), 0);  // as a run has it
  const std::string config = write("c.json", small());
  const Outcome o = run({"run", config, "--output", "out"});
  EXPECT_EQ(o.status, 2);
  expect_part(o.err, "out: another run is writing its results there");
  EXPECT_FALSE(fs::exists(folder_ / "out/result.json"));
  EXPECT_EQ(run({"run", config, "--output", "elsewhere"}).status, 0);
  close(other);
  EXPECT_EQ(run({"run", config, "--output", "out"}).status, 0);
}

TEST_F(Run, AsManyImagesAreCheckedAsThereAre) {
  const Outcome o = run(
      {"run", write("c.json", small()), "--set", "/verify/sample_against_reference=2147483647"});
  EXPECT_EQ(o.status, 0) << o.err;
  EXPECT_EQ(result()["sample"]["images"], result()["unique_images"]);
}

TEST_F(Run, FilesOfNoOfficialSizeAreOnesOwn) {
  fs::create_directories(folder_ / "neuron9");
  write("neuron9/n9-l1.tsv", "1\t1\t1\n2\t2\t1\n");
  write("sparse-images-9.tsv", "1\t1\t1\n2\t3\t1\n3\t2\t1\n");
  write("neuron9-l1-categories.tsv", "1\n3\n");
  const Outcome o = run({"run", write("c.json", R"({"output": "out",
    "model": {"graph_challenge": {"neurons": 9, "layers": 1, "bias": 0, "clip": 6}},
    "input": {"graph_challenge": {}}})"),
                         "--data-dir", "."});
  EXPECT_EQ(o.status, 0) << o.err;
  const json r = result();
  EXPECT_EQ(r["model"]["origin"], "own files");
  EXPECT_EQ(r["input"]["origin"], "own files");
  EXPECT_EQ(r["categories"]["match"], true);
}

TEST_F(Run, NetworksBeyondMemoryAreRefused) {
  const Outcome o = run({"run", write("c.json", small()), "--set", "/model/radixnet/layers=1000000",
                         "--set", "/model/radixnet/neurons=67108864"});
  EXPECT_EQ(o.status, 2);
  expect_part(o.err, "/model/radixnet: 1000000 layers of 67108864 neurons take more than");
}

TEST_F(Run, ClosedStandardStreamsDoNotReachItsFiles) {
  std::vector<std::string> results;
  for (const bool open : {true, false}) {
    write("c.json", small(R"("save_outputs": true)"));
    const std::string command = "cd '" + folder_.path().string() +
                                "' && '" SPDNN_PROGRAM "' run c.json " +
                                (open ? ">log 2>&1" : "<&- >&- 2>&-");
    static_cast<void>(std::system(command.c_str()));
    results.push_back(read_text(folder_ / "out/categories.tsv") +
                      read_text(folder_ / "out/outputs.tsv"));
  }
  EXPECT_EQ(results[0], results[1]);
}

TEST_F(Run, WritesATrace) {
  const Outcome o = run({"run", write("c.json", small()), "--trace", "trace.json"});
  EXPECT_EQ(o.status, 0) << o.err;
  EXPECT_FALSE(json::parse(read_text(folder_ / "trace.json"))["traceEvents"].empty());
}

TEST_F(Run, TruthWithOneIdChangedEndsWrongAndNamesIt) {
  const std::string file = write("c.json", small());
  ASSERT_EQ(run({"run", file}).status, 0);
  std::istringstream found(read_text(folder_ / "out/categories.tsv"));
  std::vector<int> ids;
  for (int id = 0; found >> id;) ids.push_back(id);
  ASSERT_GE(ids.size(), 2U);
  const auto write_ids = [&] {
    std::ostringstream text;
    for (const int id : ids) text << id << '\n';
    write("truth.tsv", text.str());
  };
  const std::vector<std::string> command{"run", file, "--set", "/verify/truth=truth.tsv"};
  write_ids();
  const Outcome same = run(command);
  EXPECT_EQ(same.status, 0) << same.out;
  EXPECT_EQ(result()["categories"]["match"], true);

  const int right = ids[0];
  int wrong = right;
  while (std::find(ids.begin(), ids.end(), wrong) != ids.end()) wrong = wrong % 200 + 1;
  ids[0] = wrong;
  std::sort(ids.begin(), ids.end());
  write_ids();
  const Outcome changed = run(command);
  EXPECT_EQ(changed.status, 1);
  EXPECT_EQ(changed.out.rfind("WRONG", 0), 0U) << changed.out;
  expect_part(changed.out, "truth.tsv");
  const json r = result();
  EXPECT_EQ(r["status"], "wrong");
  EXPECT_EQ(r["categories"]["match"], false);
  const std::string failures = r["failures"].dump();
  expect_part(failures, " " + std::to_string(right));
  expect_part(failures, " " + std::to_string(wrong));
  const Outcome quiet = run({"run", file, "--set", "/verify/truth=truth.tsv", "--quiet"});
  EXPECT_EQ(quiet.out, "");
  expect_part(quiet.err, " " + std::to_string(right));
}

TEST_F(Run, MissedBarEndsWithOne) {
  const Outcome o =
      run({"run", write("c.json", small(R"("require": {"max_infer_seconds": 1e-9})"))});
  EXPECT_EQ(o.status, 1);
  expect_part(o.out, "require");
}

TEST_F(Run, BadConfigurationsEndWithTwo) {
  const Outcome misspelt = run({"run", write("c.json", small(R"("deduplicate_image": true)"))});
  EXPECT_EQ(misspelt.status, 2);
  expect_part(misspelt.err,
              "error: c.json:2: /deduplicate_image: unknown key; did you mean "
              "'deduplicate_images'?");
  const Outcome not_json = run({"run", write("n.json", "{\n  model: 1}\n")});
  EXPECT_EQ(not_json.status, 2);
  expect_part(not_json.err, "error: n.json:2:3: ");
  const Outcome missing = run({"run", "no.json"});
  EXPECT_EQ(missing.status, 2);
  expect_part(missing.err, "error: no.json: ");
  EXPECT_FALSE(fs::exists(folder_ / "out"));
}

TEST_F(Run, MissingLayerFileEndsWithTwo) {
  const Outcome o = run({"run", write("c.json", R"({"model": {"graph_challenge": {"neurons": 1024,
    "layers": 120}}, "input": {"graph_challenge": {}}, "output": "out"})")});
  EXPECT_EQ(o.status, 2);
  expect_part(o.err, "n1024-l1.tsv");
}

TEST_F(Run, GroupsThatDoNotFitEndWithTwo) {
  const Outcome o =
      run({"run", write("c.json", small(R"("strategy": "grid", "devices": [{"cpu": {}}])"))});
  EXPECT_EQ(o.status, 2);
  expect_part(o.err, "groups of 2");
}

TEST_F(Run, GridsFindWhatOneRankFinds) {
  const std::string config = write("c.json", small(R"("devices": [{"cpu": {}}])"));
  ASSERT_EQ(run({"run", config}).status, 0);
  const std::string one = read_text(folder_ / "out/categories.tsv");
  const Outcome o =
      run({"run", config, "--set", "/strategy=grid", "--set", "/split=[3,0,1,2,2]", "--set",
           R"(/devices=[{"cpu":{}},{"cpu":{}},{"cpu":{}},{"cpu":{}},{"cpu":{}}])"});
  EXPECT_EQ(o.status, 0) << o.err;
  EXPECT_EQ(read_text(folder_ / "out/categories.tsv"), one);
  const json r = result();
  EXPECT_EQ(r["status"], "verified");
  EXPECT_EQ(r["devices"][1]["images"], 0);
  std::int64_t images = 0;
  for (const json& device : r["devices"]) images += device["images"].get<std::int64_t>();
  EXPECT_EQ(images, r["unique_images"].get<std::int64_t>());
}

TEST_F(Run, OutputFolderThatCannotBeEndsWithThree) {
  write("out", "a file");
  const Outcome o = run({"run", write("c.json", small())});
  EXPECT_EQ(o.status, 3);
  expect_part(o.err, "--output");
}

TEST_F(Run, GeneratedFilesRunAndSayThatTheyAreGenerated) {
  const Outcome network = run({"generate", "network", "--neurons", "1024", "--layers", "7",
                               "--seed", "3", "--data-dir", "data"});
  ASSERT_EQ(network.status, 0) << network.err;
  const Outcome images =
      run({"generate", "images", "--neurons", "1024", "--digits", "100", "--data-dir", "data"});
  ASSERT_EQ(images.status, 0) << images.err;
  const std::string file = write("c.json", R"({"model": {"graph_challenge": {"neurons": 1024,
    "layers": 7}}, "input": {"graph_challenge": {}}, "output": "out"})");
  const Outcome o = run({"run", file, "--data-dir", "data"});
  EXPECT_EQ(o.status, 0) << o.err;
  const json r = result();
  expect_part(r["model"]["origin"], "generated");
  expect_part(r["input"]["origin"], "generated");

  const Outcome described = run({"inspect", file, "--data-dir", "data", "--json"});
  ASSERT_EQ(described.status, 0) << described.err;
  const json d = json::parse(described.out);
  ASSERT_EQ(d["layers"].size(), 7U);
  EXPECT_EQ(d["layers"][0]["nnz"], 32'768);
  EXPECT_EQ(d["layers"][6]["row_nnz"]["max"], 32);
  EXPECT_EQ(d["layers"][0]["values"]["min"], 0.0625);
  EXPECT_EQ(d["layers"][0]["dead_rows"], 0);
  EXPECT_LE(d["layers"][0]["bytes_per_nonzero"], 2.5);
  const Outcome text = run({"inspect", "data/neuron1024/n1024-7.spdnn"});
  EXPECT_EQ(text.status, 0) << text.err;
  expect_part(text.out, "matrices 1 to 7: 1024 × 1024, 32768 nonzeros");
}

TEST_F(Run, GenerateRefusesWhatCannotBeBuilt) {
  const Outcome o =
      run({"generate", "network", "--neurons", "1000", "--layers", "2", "--data-dir", "data"});
  EXPECT_EQ(o.status, 2);
  const Outcome nowhere = run({"generate", "network", "--neurons", "1024", "--layers", "2"});
  EXPECT_EQ(nowhere.status, 2);
  expect_part(nowhere.err, "--data-dir");
  const Outcome missing =
      run({"generate", "images", "--neurons", "1024", "--mnist", "none.gz", "--data-dir", "data"});
  EXPECT_EQ(missing.status, 2);
  expect_part(missing.err, "none.gz");
}

TEST_F(Run, InspectRefusesWhatIsNoMatrixFile) {
  const Outcome o = run({"inspect", write("x.spdnn", "not one")});
  EXPECT_EQ(o.status, 2);
  expect_part(o.err, "x.spdnn");
}

TEST_F(Run, ProfileListsKernels) {
  const std::string file = write("c.json", small());
  const Outcome o = run({"profile", file, "--json"});
  ASSERT_EQ(o.status, 0) << o.err;
  const json p = json::parse(o.out);
  EXPECT_EQ(p["shapes"][0]["nnz"], 32'768);
  ASSERT_FALSE(p["ranks"][0]["times"][0].empty());
  expect_part(run({"profile", file, "--refresh"}).out, "kernel");
}

TEST_F(Run, OfficialNetworkHasTheOfficialCategories) {
  const char* data = std::getenv("SPDNN_DATA");
  if (data == nullptr) GTEST_SKIP() << "SPDNN_DATA names no folder with the official files";
  const fs::path archive = fs::path(data) / "sdgc/sdgc-neuron1024-l120.tar.xz";
  if (!fs::exists(archive)) GTEST_SKIP() << archive << " is not there";
  const std::string unpack =
      "tar -xJf '" + archive.string() + "' -C '" + folder_.path().string() + "'";
  if (std::system(unpack.c_str()) != 0) GTEST_SKIP() << "tar can't unpack " << archive;
  const std::vector<std::string> command{
      "run", SPDNN_CONFIGS "/sdgc_1024_120.json", "--data-dir", ".", "--output", "out"};
  const Outcome o = run(command);
  EXPECT_EQ(o.status, 0) << o.err;
  EXPECT_EQ(result()["status"], "verified");
  EXPECT_EQ(result()["categories"]["count"], 19);
  EXPECT_EQ(result()["categories"]["match"], true);

  const fs::path truth = folder_ / "neuron1024-l120-categories.tsv";
  std::string ids = read_text(truth);
  const std::size_t first = ids.find("287");
  ASSERT_NE(first, std::string::npos);
  ids.replace(first, 3, "288");
  write(truth.filename(), ids);
  const Outcome changed = run(command);
  EXPECT_EQ(changed.status, 1);
  expect_part(changed.out, "287");
  expect_part(changed.out, "288");
}

/// Runs for many seconds unless it is interrupted: no image dies.
constexpr const char* long_run = R"({
  "model": {"radixnet": {"neurons": 1024, "layers": 480, "bias": 0.5}},
  "input": {"digits": {"images": 1000}, "repeat": 100}, "deduplicate_images": false,
  "devices": [{"cpu": {"threads": 1}}], "verify": {"sample_against_reference": 0},
  "output": "out"})";

TEST_F(Run, InterruptEndsItWithoutAResult) {
  for (const int signal : {SIGINT, SIGTERM}) {
    const pid_t child = start({"run", write("c.json", long_run)});
    // The folder is made after signals are caught.
    while (!fs::exists(folder_ / "out")) std::this_thread::yield();
    kill(child, signal);
    const Outcome o = finish(child);
    EXPECT_EQ(o.status, 130) << o.err;
    expect_part(o.err, "stopping");
    EXPECT_FALSE(fs::exists(folder_ / "out/result.json"));
    fs::remove_all(folder_ / "out");
  }
}

TEST_F(Run, SecondInterruptEndsItAtOnce) {
  const pid_t child = start({"run", write("c.json", long_run)});
  while (!fs::exists(folder_ / "out")) std::this_thread::yield();
  kill(child, SIGINT);
  while (read_text(folder_ / "stderr").find("stopping") == std::string::npos) {
    std::this_thread::yield();
  }
  kill(child, SIGINT);
  EXPECT_EQ(finish(child).status, 130);
}

}  // namespace
}  // namespace spdnn
