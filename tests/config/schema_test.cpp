// The published schema and the shipped configurations agree with the parser.
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "folder.hpp"

namespace spdnn {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

class Schema : public test::ConfigTest {};

std::string read(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  EXPECT_TRUE(in.good()) << file;
  return {std::istreambuf_iterator<char>(in), {}};
}

/// Calls `visit` for every subschema that describes one key.
void walk(const json& schema, const std::string& pointer,
          const std::function<void(const std::string&, const json&)>& visit) {
  visit(pointer, schema);
  if (schema.contains("properties")) {
    for (const auto& [name, inside] : schema["properties"].items()) {
      walk(inside, pointer + "/" + name, visit);
    }
  }
  if (schema.contains("items")) walk(schema["items"], pointer + "/0", visit);
  if (schema.contains("anyOf")) {
    for (const json& form : schema["anyOf"]) {
      if (form.contains("items")) walk(form["items"], pointer + "/0", visit);
    }
  }
}

TEST_F(Schema, PublishedFileIsTheOneTheParserEnforces) {
  EXPECT_TRUE(read(fs::path(SPDNN_CONFIGS) / "schema.json") == config_schema())
      << "write it anew: spdnn-gpu schema > configs/schema.json";
}

TEST_F(Schema, DescribesEveryKeyAndClosesEveryObject) {
  int keys = 0;
  walk(json::parse(config_schema()), "", [&](const std::string& pointer, const json& schema) {
    ++keys;
    EXPECT_TRUE(schema.contains("description")) << pointer;
    if (schema.value("type", "") == "object") {
      EXPECT_EQ(schema["additionalProperties"], false) << pointer;
    }
  });
  EXPECT_GT(keys, 50);
}

TEST_F(Schema, ParserRefusesAWrongTypeForEveryKey) {
  // A list of lists fits no key.
  int refused = 0;
  walk(json::parse(config_schema()), "", [&](const std::string& pointer, const json&) {
    if (pointer.empty()) return;
    const std::string message = refusal(with(""), {pointer + "=[[]]"});
    EXPECT_NE(message.find("--set " + pointer), std::string::npos) << pointer << ": " << message;
    ++refused;
  });
  EXPECT_GT(refused, 50);
}

TEST_F(Schema, ParserAcceptsEveryDefaultAndEveryWord) {
  walk(json::parse(config_schema()), "", [&](const std::string& pointer, const json& schema) {
    if (pointer.find('/', 1) != std::string::npos || !schema.contains("default")) return;
    EXPECT_EQ(refusal(with(""), {pointer + "=" + schema["default"].dump()}), "") << pointer;
    json forms = schema.contains("anyOf") ? schema["anyOf"] : json::array({schema});
    for (const json& form : forms) {
      if (!form.contains("enum")) continue;
      for (const json& word : form["enum"]) {
        if (word == "train") continue;  // wants other keys beside it, as shipped ones have
        EXPECT_EQ(refusal(with(""), {pointer + "=" + word.dump()}), "") << pointer << word;
      }
    }
  });
}

TEST_F(Schema, ShippedConfigurationsLoad) {
  fs::create_directory(folder_.path() / "data");
  for (const char* data : {"mnist", "cifar10"})
    fs::create_directory(folder_.path() / "data" / data);
  write("data/my_network.spdnn", "");
  write("data/my_images.spdnn", "");
  for (const char* trained : {"mnist_conv_uneven/checkpoints/checkpoint-000010",
                              "cifar10_uneven/checkpoints/checkpoint-000020"}) {
    const fs::path file = std::string("results/train_") + trained + ".safetensors";
    fs::create_directories(folder_.path() / file.parent_path());
    write(file.string(), "");
  }
  ConfigOverrides overrides;
  overrides.data_dir = folder_.path() / "data";
  int loaded = 0;
  for (const auto& entry : fs::directory_iterator(SPDNN_CONFIGS)) {
    const fs::path& file = entry.path();
    if (file.extension() != ".json" || file.filename() == "schema.json") continue;
    const bool trains = file.filename().string().starts_with("train_");
    EXPECT_NO_THROW(EXPECT_EQ(load_config(file, overrides).job, trains ? "train" : "infer"))
        << file;
    ++loaded;
  }
  EXPECT_GE(loaded, 15);
}

/// What is trained is what is evaluated, and the uneven sets of devices go with both networks.
TEST_F(Schema, ConvolutionalConfigurationsGoTogether) {
  fs::create_directories(folder_.path() / "data/cifar10");
  fs::create_directories(folder_.path() / "data/mnist");
  ConfigOverrides overrides;
  overrides.data_dir = folder_.path() / "data";
  const auto load = [&](const std::string& name) {
    return load_config(fs::path(SPDNN_CONFIGS) / (name + ".json"), overrides);
  };
  const char* devices[] = {R"([{"cpu": {}}, {"cpu": {"slowdown": 3}}])",
                           R"([{"cpu": {"slowdown": 2}}, {"cpu": {"slowdown": 2}},
                               {"cpu": {"slowdown": 6}}])",
                           R"([{"cpu": {"slowdown": 2}}, {"cpu": {"slowdown": 4}},
                               {"cpu": {"slowdown": 8}}, {"cpu": {"slowdown": 16}}])"};
  const std::pair<const char*, const char*> networks[] = {
      {"train_mnist_conv_dense", "train_mnist_conv"}, {"train_cifar10", "train_cifar10_sparse"}};
  for (const auto& [dense, sparse] : networks) {
    for (const char* set : devices) {
      overrides.sets = {std::string("/devices=") + set};
      const RunConfig whole = load(dense);
      const RunConfig part = load(sparse);
      EXPECT_EQ(whole.devices.size(), part.devices.size());
      EXPECT_GE(whole.devices.size(), 2U);
      ASSERT_EQ(whole.train->layers.size(), part.train->layers.size());
      for (std::size_t l = 0; l < part.train->layers.size(); ++l) {
        const LayerSpec& layer = part.train->layers[l];
        EXPECT_EQ(whole.train->layers[l].kind, layer.kind);
        EXPECT_EQ(whole.train->layers[l].outputs, layer.outputs);
        if (layer.kind == LayerKind::max_pool) continue;
        EXPECT_EQ(whole.train->layers[l].topology, Topology::dense);
        EXPECT_EQ(layer.density, layer.topology == Topology::random ? 0.1 : 1.0);
      }
    }
  }
}

TEST_F(Schema, TwelveOfficialConfigurationsSayWhatTheyAreNamed) {
  for (const std::int64_t neurons : {1024, 4096, 16384, 65536}) {
    for (const std::int64_t layers : {120, 480, 1920}) {
      const std::string name = "sdgc_" + std::to_string(neurons) + "_" + std::to_string(layers);
      const RunConfig c = load_config(fs::path(SPDNN_CONFIGS) / (name + ".json"), {});
      const auto& model = std::get<GraphChallengeModel>(c.model);
      EXPECT_EQ(model.neurons, neurons);
      EXPECT_EQ(model.layers, layers);
      EXPECT_FALSE(std::get<GraphChallengeInput>(c.input.source).images.has_value());
      EXPECT_EQ(c.output, fs::path("results") / name);
    }
  }
}

}  // namespace
}  // namespace spdnn
