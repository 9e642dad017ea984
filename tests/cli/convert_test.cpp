// spdnn-gpu convert from the outside, and runs of what it wrote.
#include <csignal>
#include <string>
#include <thread>

#include "process.hpp"

namespace spdnn {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using test::expect_part;
using test::Outcome;
using test::read_text;

class Convert : public test::CliTest {
 protected:
  /// Two layers, 4 → 3 → 2, in Matrix Market files, and a bias of the first.
  void write_network() const {
    const std::string banner = "%%MatrixMarket matrix coordinate real general\n";
    write("w1.mtx", banner + "3 4 4\n1 1 1\n2 2 2\n3 3 -1\n3 4 2\n");
    write("w1-bias.tsv", "1\t-0.5\n3\t0.5\n");
    write("w2.mtx", banner + "2 3 3\n1 1 1\n2 2 -3\n2 3 1\n");
  }
  /// Runs `path` with four images and returns outputs.tsv.
  [[nodiscard]] std::string outputs(const std::string& path, const std::string& more) const {
    write(
        "images.mtx",
        "%%MatrixMarket matrix coordinate pattern general\n4 4 6\n1 1\n2 2\n3 3\n3 4\n4 1\n4 2\n");
    const json config{{"model", json::parse(R"({"path": ")" + path + "\"" + more + "}")},
                      {"input", {{"path", "images.mtx"}}},
                      {"verify", {{"sample_against_reference", 4}}},
                      {"save_outputs", true},
                      {"output", "out"}};
    const Outcome o = run({"run", write("c.json", config.dump())});
    EXPECT_EQ(o.status, 0) << o.err << o.out;
    return read_text(folder_ / "out/outputs.tsv");
  }
  /// Names of a folder that are not those of finished files.
  [[nodiscard]] std::vector<std::string> unfinished(const std::string& folder) const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder_ / folder)) {
      if (entry.path().extension() != ".tsv") names.push_back(entry.path().filename());
    }
    return names;
  }
  void expect_refused(const std::vector<std::string>& arguments, const std::string& part) const {
    std::vector<std::string> all{"convert"};
    all.insert(all.end(), arguments.begin(), arguments.end());
    const Outcome o = run(all);
    EXPECT_EQ(o.status, 2) << o.err;
    expect_part(o.err, part);
  }
};

TEST_F(Convert, EveryFormatRunsToTheSameOutputs) {
  write_network();
  const std::string settings = R"(, "activation": ["relu", "identity"], "clip": [2, "none"])";
  const std::string expected = outputs("w{}.mtx", settings);
  EXPECT_FALSE(expected.empty());
  for (const std::string to : {"n{}.npz", "n{}.tsv", "n.safetensors"}) {
    const Outcome o =
        run({"convert", "w{}.mtx", to, "--activation", "relu,identity", "--clip", "2,none"});
    EXPECT_EQ(o.status, 0) << o.err;
    expect_part(o.out, "2 layers, 4 → 2, 7 nonzeros, written to " + to);
    const bool whole = to == "n.safetensors";
    if (!whole) expect_part(o.out, R"("activation": ["relu","identity"], "clip": [2,"none"])");
    EXPECT_EQ(outputs(to, whole ? "" : settings), expected) << to;
  }
}

TEST_F(Convert, PrintsJson) {
  write_network();
  const Outcome o = run({"convert", "w{}.mtx", "n.spdnn", "--clip", "2", "--json"});
  EXPECT_EQ(o.status, 0) << o.err;
  const json printed = json::parse(o.out);
  EXPECT_EQ(printed["from"]["format"], "mtx");
  EXPECT_EQ(printed["to"]["path"], "n.spdnn");
  EXPECT_EQ(printed["nnz"], 7);
  EXPECT_EQ(printed["left_out"], (json{"biases", "activations"}));
  EXPECT_EQ(printed["layers"][0]["outputs"], 3);
  EXPECT_EQ(printed["layers"][1]["clip"], 2.0);
  EXPECT_EQ(printed["layers"][1]["bias"], 0.0);
  EXPECT_TRUE(printed["layers"][0]["bias"].is_null());
}

TEST_F(Convert, TellsHowToRunWhatWasLeftOut) {
  write_network();
  const Outcome differ = run({"convert", "w{}.mtx", "n.spdnn"});
  expect_part(differ.out, "left out, since spdnn has no place for them: biases\n");
  expect_part(differ.out, "safetensors and the formats of one file a layer keep biases");
  const Outcome one = run({"convert", "w{}.mtx", "n.spdnn", "--bias=-0.3,2"});
  expect_part(one.out, R"(give under /model: "bias": [-0.3,2])");
}

TEST_F(Convert, FormatsAreNamedWhereExtensionsAreNot) {
  write_network();
  EXPECT_EQ(run({"convert", "w{}.mtx", "n.dat", "--to", "safetensors"}).status, 0);
  EXPECT_EQ(run({"convert", "n.dat", "m{}.txt", "--from", "safetensors", "--to", "tsv"}).status, 0);
  const Outcome o = run({"convert", "m{}.txt", "n.npz", "--from", "tsv", "--neurons", "4,3,2"});
  EXPECT_EQ(o.status, 2);
  expect_part(o.err, "n{}.npz");
  const Outcome shown = run({"inspect", "w1.mtx"});
  EXPECT_EQ(shown.status, 0) << shown.err;
  expect_part(shown.out, "3 × 4, 4 nonzeros");
}

TEST_F(Convert, RefusesWhatCantBe) {
  write_network();
  expect_refused({"w{}.mtx"}, "out is required");
  expect_refused({"no.npz", "n.spdnn"}, "no.npz: no such file");
  expect_refused({"w{}.mtx", "n.bin"}, "\"bin\" stands for no format");
  expect_refused({"w{}.mtx", "n.bin"}, "--to or /model/format");
  expect_refused({"w{}.mtx", "n.spdnn", "--to", "onnx"}, "onnx");
  expect_refused({"w{}.mtx", "n.spdnn", "--clip", "-1"}, "--clip: '-1' is no upper bound");
  expect_refused({"w{}.mtx", "n.spdnn", "--bias", "1,2,3"}, "bias: 3 values for 2 layers");
  expect_refused({"w{}.mtx", "n.spdnn", "--activation", "tanh"}, "tanh");
  expect_refused({"w{}.mtx", "n.smtx"}, "n{}.smtx");
  EXPECT_FALSE(fs::exists(folder_ / "n.spdnn"));
  write("w2.mtx", "%%MatrixMarket matrix coordinate real general\n2 3 1\n1 9 1\n");
  expect_refused({"w{}.mtx", "n.spdnn"}, "w2.mtx:3: column 9 is out of range");
}

TEST_F(Convert, InterruptLeavesNothingUnfinished) {
  ASSERT_EQ(run({"generate", "network", "--neurons", "1024", "--layers", "100", "--data-dir", "."})
                .status,
            0);
  for (const int signal : {SIGINT, SIGTERM}) {
    fs::create_directories(folder_ / "layers");
    const pid_t child = start({"convert", "neuron1024/n1024-100.spdnn", "layers/l{}.tsv"});
    while (fs::is_empty(folder_ / "layers")) std::this_thread::yield();
    kill(child, signal);
    const int status = finish(child).status;
    EXPECT_TRUE(status == 130 || status == 0) << status;  // 0 where it was through already
    EXPECT_EQ(unfinished("layers"), std::vector<std::string>{});
    fs::remove_all(folder_ / "layers");
  }
}

}  // namespace
}  // namespace spdnn
