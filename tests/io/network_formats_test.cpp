// Networks in every format: what is written comes back, what others wrote is read, and what can't
// be is refused with its place.
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "reading.hpp"
#include "spdnn/io.hpp"
#include "support/networks.hpp"

namespace spdnn {
namespace {

namespace fs = std::filesystem;
using test::Entries;
using test::entries_of;
using test::error_of;
using test::expect_contains;
using test::Rows;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

const SparseLinear& linear(const Model& model, std::size_t layer) {
  return std::get<SparseLinear>(model.layers.at(layer));
}

Entries sorted_entries(const Csr& matrix) {
  Entries entries = entries_of(matrix.view());
  std::sort(entries.begin(), entries.end());
  return entries;
}

/// Three layers of unlike widths, columns in random order, biases of both forms, a row and the last
/// column of a layer empty.
Model random_network(std::uint64_t seed, Rows pattern) {
  std::mt19937_64 random(seed);
  Model model;
  const std::int64_t widths[] = {23, 40, 17, 9};
  for (std::size_t l = 0; l < 3; ++l) {
    SparseLinear layer;
    const Csr weights =
        test::random_csr({widths[l + 1] - 1, widths[l] - 1, 5, pattern, l == 1}, random);
    const CsrView& view = weights.view();
    std::vector<std::int64_t> offsets;
    std::vector<std::uint32_t> cols;
    std::vector<float> values;
    for (std::int64_t row = 0; row <= view.rows; ++row) offsets.push_back(view.row_begin(row));
    offsets.push_back(view.nnz);
    for (std::int64_t k = 0; k < view.nnz; ++k) {
      cols.push_back(static_cast<std::uint32_t>(view.col(k)));
      values.push_back(static_cast<float>(view.value(k)));
    }
    layer.weights = make_csr(widths[l + 1], widths[l], offsets, cols, values);
    layer.bias = l == 1 ? std::vector{-0.25F}
                        : test::random_floats(static_cast<std::size_t>(widths[l + 1]), random);
    layer.activation = {l == 2 ? -kInfinity : 0.0F, l == 0 ? 32.0F : kInfinity};
    model.layers.emplace_back(std::move(layer));
  }
  return model;
}

class Networks : public ::testing::Test {
 protected:
  fs::path write(const std::string& name, const std::string& content) const {
    test::write_text(folder_ / name, content);
    return folder_ / name;
  }
  void expect_refused(const std::string& name, const std::string& content,
                      const std::string& part) const {
    const fs::path path = write(name, content);
    const std::string message = error_of([&] { static_cast<void>(read_network(path)); });
    expect_contains(message, path.string());
    expect_contains(message, part);
  }
  [[nodiscard]] static fs::path peer(const std::string& name) {
    return fs::path(SPDNN_PEERS) / name;
  }

  test::ScratchDir folder_;
};

TEST_F(Networks, ComeBackFromSafetensorsAsTheyWere) {
  for (std::uint64_t seed = 1; seed <= 10; ++seed) {
    const Model model = random_network(seed, seed % 2 == 0 ? Rows::irregular : Rows::equal);
    EXPECT_TRUE(write_network(folder_ / "n.safetensors", model).empty());
    const Model back = read_network(folder_ / "n.safetensors");
    ASSERT_EQ(back.layers.size(), 3U);
    for (std::size_t l = 0; l < 3; ++l) {
      test::expect_equal(linear(model, l).weights, linear(back, l).weights);
      EXPECT_EQ(linear(model, l).activation, linear(back, l).activation);
      EXPECT_EQ(linear(back, l).bias, l == 1 ? std::vector(17, -0.25F) : linear(model, l).bias);
    }
  }
}

TEST_F(Networks, ComeBackFromEveryFormatOfOneFileALayer) {
  for (const std::string extension : {"npz", "mtx", "tsv"}) {
    SCOPED_TRACE(extension);
    const fs::path files = folder_ / ("n{}." + extension);
    const Model model = random_network(7, Rows::irregular);
    EXPECT_EQ(write_network(files, model), std::vector<std::string>{"activations"});
    NetworkSettings settings;
    settings.activation = {Activation::relu, Activation::relu, Activation::identity};
    settings.clip = {32.0F, kInfinity, kInfinity};
    if (extension == "tsv") settings.neurons = {23, 40, 17, 9};
    const Model back = read_network(files, settings);
    ASSERT_EQ(back.layers.size(), 3U);
    for (std::size_t l = 0; l < 3; ++l) {
      const Csr& before = linear(model, l).weights;
      const Csr& after = linear(back, l).weights;
      EXPECT_EQ(before.rows(), after.rows());
      EXPECT_EQ(before.cols(), after.cols());
      // Text is sorted by column; arrays keep their order.
      EXPECT_EQ(extension == "npz" ? entries_of(before.view()) : sorted_entries(before),
                entries_of(after.view()));
      EXPECT_EQ(linear(model, l).activation, linear(back, l).activation);
      EXPECT_EQ(linear(back, l).bias, l == 1 ? std::vector(17, -0.25F) : linear(model, l).bias);
    }
  }
}

TEST_F(Networks, SpdnnFilesKeepTheWeightsAlone) {
  const Model model = random_network(3, Rows::irregular);
  EXPECT_EQ(write_network(folder_ / "n.spdnn", model),
            (std::vector<std::string>{"biases", "activations"}));
  NetworkSettings settings;
  settings.bias = {0.5F};
  settings.clip = {1.0F, 2.0F, 3.0F};
  const Model back = read_network(folder_ / "n.spdnn", settings);
  test::expect_equal(linear(model, 2).weights, linear(back, 2).weights);
  EXPECT_EQ(linear(back, 2).bias, std::vector{0.5F});
  EXPECT_EQ(linear(back, 1).activation, (Epilogue{0.0F, 2.0F}));
}

TEST_F(Networks, PatternsComeBackFromSmtx) {
  Model model;
  model.layers.emplace_back(
      SparseLinear{make_csr(3, 4, {0, 2, 2, 3}, {3, 0, 1}, {1.0F}), {0.0F}, {0.0F, kInfinity}});
  EXPECT_TRUE(write_network(folder_ / "n.smtx", model).empty());
  EXPECT_EQ(test::read_text(folder_ / "n.smtx"), "3, 4, 3\n0 2 2 3\n3 0 1\n");
  test::expect_equal(linear(read_network(folder_ / "n.smtx"), 0).weights, linear(model, 0).weights);
  const Model weighted = random_network(1, Rows::irregular);
  expect_contains(error_of([&] { write_network(folder_ / "x{}.smtx", weighted); }), "no values");
}

TEST_F(Networks, ReadsWhatOtherLibrariesWrote) {
  const Entries values{{0, 1, 0.125}, {0, 3, 0.375}, {2, 0, 2.0}};
  for (const char* name :
       {"deflated_f64.npz", "stored_f32.npz", "array.npz", "real.mtx", "network.safetensors"}) {
    SCOPED_TRACE(name);
    const Model model = read_network(peer(name));
    EXPECT_EQ(model.inputs(), 4);
    EXPECT_EQ(model.outputs(), 3);
    EXPECT_EQ(entries_of(linear(model, 0).weights.view()), values);
  }
  const Model pattern = read_network(peer("pattern.mtx"));
  EXPECT_EQ(entries_of(linear(pattern, 0).weights.view()),
            (Entries{{0, 1, 1.0}, {0, 3, 1.0}, {2, 0, 1.0}}));
  const Model network = read_network(peer("network.safetensors"));
  EXPECT_EQ(linear(network, 0).bias, (std::vector{0.5F, -1.0F, 2.0F}));
  EXPECT_EQ(linear(network, 0).activation, (Epilogue{-kInfinity, 32.0F}));
}

TEST_F(Networks, LayersAreNumberedFromZeroOrOne) {
  const std::string layer = "1 1 2\n2 2 3\n";
  write("from0-l0.tsv", layer);
  write("from0-l1.tsv", layer);
  EXPECT_EQ(read_network(folder_ / "from0-l{}.tsv").layers.size(), 2U);
  write("from1-l1.tsv", layer);
  EXPECT_EQ(read_network(folder_ / "from1-l{}.tsv").layers.size(), 1U);
  expect_contains(error_of([&] { static_cast<void>(read_network(folder_ / "no{}.tsv")); }),
                  "no1.tsv, nor one numbered 0");
}

TEST_F(Networks, TsvWidthsAreToldOrFound) {
  write("n6-l1.tsv", "1 2 1\n");
  EXPECT_EQ(read_network(folder_ / "n6-l{}.tsv").outputs(), 6);
  // 3 inputs by the first layer; 5 hidden by the second; 4 outputs by the bias.
  write("l1.tsv", "3 2 1\n");
  write("l2.tsv", "5 1 1\n");
  write("l2-bias.tsv", "4 0.5\n1 -1\n");
  const Model found = read_network(folder_ / "l{}.tsv");
  EXPECT_EQ(found.inputs(), 3);
  EXPECT_EQ(linear(found, 0).outputs(), 5);
  EXPECT_EQ(linear(found, 1).bias, (std::vector{-1.0F, 0.0F, 0.0F, 0.5F}));
  NetworkSettings settings;
  settings.neurons = {3, 5, 3};
  expect_contains(error_of([&] { static_cast<void>(read_network(folder_ / "l{}.tsv", settings)); }),
                  "names output neuron 4, but the layer has 3");
  settings.neurons = {3, 4, 4};
  expect_contains(error_of([&] { static_cast<void>(read_network(folder_ / "l{}.tsv", settings)); }),
                  "l2.tsv:1: input neuron 5 is out of range");
  settings.neurons = {3, 5};
  expect_contains(error_of([&] { static_cast<void>(read_network(folder_ / "l{}.tsv", settings)); }),
                  "2 widths for 2 layers");
}

TEST_F(Networks, RefusesLayersAndSettingsThatDoNotFit) {
  write("a1.mtx", "%%MatrixMarket matrix coordinate real general\n3 2 1\n1 1 1\n");
  write("a2.mtx", "%%MatrixMarket matrix coordinate real general\n3 4 1\n1 1 1\n");
  expect_contains(error_of([&] { static_cast<void>(read_network(folder_ / "a{}.mtx")); }),
                  "layer 2 takes 4 inputs, but layer 1 before it has 3 outputs");
  NetworkSettings settings;
  settings.bias = {1.0F, 2.0F};
  expect_contains(error_of([&] { static_cast<void>(read_network(folder_ / "a1.mtx", settings)); }),
                  "bias: 2 values for 1 layers");
  expect_contains(error_of([&] { static_cast<void>(read_network(folder_ / "a1.bin")); }),
                  "there are spdnn, safetensors, npz, mtx, smtx, tsv");
  settings = {};
  settings.neurons = {3};
  expect_contains(error_of([&] { static_cast<void>(read_network(folder_ / "a1.mtx", settings)); }),
                  "only tsv needs widths");
}

TEST_F(Networks, NothingIsLeftOverFromALargerNetwork) {
  const Model model = random_network(1, Rows::irregular);
  write("n4.mtx", "from before");
  expect_contains(error_of([&] { write_network(folder_ / "n{}.mtx", model); }),
                  "n4.mtx: is there already");
  EXPECT_FALSE(fs::exists(folder_ / "n1.mtx"));
  expect_contains(error_of([&] { write_network(folder_ / "n.mtx", model); }), "n{}.mtx");
  expect_contains(error_of([&] { write_network(folder_ / "n{}.spdnn", model); }),
                  "leave out the {}");
  // A bias of an earlier network would be read with a layer that has none.
  write("m1-bias.tsv", "1 5\n");
  Model one;
  one.layers = {model.layers.front()};
  std::get<SparseLinear>(one.layers.front()).bias = {0.0F};
  static_cast<void>(write_network(folder_ / "m{}.mtx", one));
  EXPECT_EQ(linear(read_network(folder_ / "m{}.mtx"), 0).bias, std::vector(40, 0.0F));
}

TEST_F(Networks, DenseLayersLoseTheirZeros) {
  const std::vector<float> weight{0, 1, -0.0F, 0, 0, 0, 2, 0, 3};
  write_safetensors(folder_ / "n.safetensors",
                    {make_tensor("layers.0.weight", std::span<const float>(weight), {3, 3})},
                    {{"activation", "identity"}});
  const Model model = read_network(folder_ / "n.safetensors");
  EXPECT_EQ(entries_of(linear(model, 0).weights.view()),
            (Entries{{0, 1, 1.0}, {2, 0, 2.0}, {2, 2, 3.0}}));
  EXPECT_EQ(linear(model, 0).bias, std::vector{0.0F});
  write_safetensors(folder_ / "n.safetensors",
                    {make_tensor("layers.0.weight", std::span<const float>(), {4, 0})});
  expect_contains(error_of([&] { static_cast<void>(read_network(folder_ / "n.safetensors")); }),
                  "each from 1 to");
}

TEST_F(Networks, RefusesBadSafetensorsNetworks) {
  const std::vector<float> values{1, 2}, bias{1, 2, 3};
  const std::vector<std::int64_t> offsets{0, 1, 2};
  const std::vector<std::int32_t> cols{1, 0};
  using Texts = std::map<std::string, std::string>;
  const std::vector<Tensor> good{make_tensor("layers.0.values", values),
                                 make_tensor("layers.0.row_offsets", offsets),
                                 make_tensor("layers.0.col_indices", cols)};
  const Texts inputs{{"layers.0.inputs", "2"}};
  const auto refused = [&](std::vector<Tensor> tensors, const Texts& texts,
                           const std::string& part) {
    write_safetensors(folder_ / "n.safetensors", std::move(tensors), texts);
    expect_contains(error_of([&] { static_cast<void>(read_network(folder_ / "n.safetensors")); }),
                    part);
  };
  const auto with = [&](Tensor tensor) {
    std::vector<Tensor> tensors = good;
    tensors.push_back(std::move(tensor));
    return tensors;
  };
  const auto texts = [&](const std::string& key, const std::string& value) {
    Texts all = inputs;
    all[key] = value;
    return all;
  };
  refused({}, inputs, "no tensor \"layers.0.values\"");
  refused({good[0], good[1]}, inputs, "no tensor \"layers.0.col_indices\"");
  refused(good, {}, "no metadata layers.0.inputs");
  refused(good, {{"layers.0.inputs", "two"}}, "inputs \"two\" is not a whole number");
  refused(good, {{"layers.0.inputs", "1"}}, "element 0 is 1; a column must be from 0 to 0");
  refused(good, texts("layers.0.activation", "tanh"), "is \"tanh\"; it must be relu or identity");
  refused(good, texts("clip", "-1"), "metadata layers.0.clip is \"-1\"");
  refused(good, texts("clip", "nan"), "must be a number above 0");
  refused(with(make_tensor("layers.0.bias", bias)), inputs, "has 3 elements, but the layer has 2");
  refused(with(make_tensor("layers.0.weight", bias)), inputs, "must be [outputs, inputs]");
  refused(with(make_tensor("layers.1.values", bias)), inputs, "no tensor \"layers.1.row_offsets\"");
}

TEST_F(Networks, RefusesBadMatrixMarketFiles) {
  const std::string banner = "%%MatrixMarket matrix coordinate real general\n";
  const auto refused = [&](const std::string& content, const std::string& part) {
    expect_refused("x.mtx", content, part);
  };
  refused("", "does not begin with %%MatrixMarket");
  refused("%%MatrixMarket matrix array real general\n", "format \"array\" can't be read");
  refused("%%MatrixMarket matrix coordinate complex general\n", "must be real, integer");
  refused("%%MatrixMarket matrix coordinate real symmetric\n", "symmetry \"symmetric\"");
  refused(banner, "ends here, but should go on with rows");
  refused(banner + "% only\n% comments\n", "ends here");
  refused(banner + "-1 2 0\n", "rows -1 is out of range");
  refused(banner + "99999999 2 0\n", "x.mtx:2: rows 99999999 is out of range");
  refused(banner + "2 99999999999999999999 0\n", "columns 99999999999999999999 is out of range");
  refused(banner + "2 2 999\n1 1 1\n", "entries 999 is out of range");
  refused(banner + "2 2 1 7\n", "\"7\" stands behind");
  refused(banner + "2 2 2\n1 1 1\n", "ends after 1 of 2 entries");
  refused(banner + "2 2 1\n0 1 1\n", "x.mtx:3: row 0 is out of range; it must be from 1 to 2");
  refused(banner + "2 2 1\n1 3 1\n", "column 3 is out of range");
  refused(banner + "2 2 1\n1 1\n", "value is missing");
  refused(banner + "2 2 1\n1 1 nan\n", "value \"nan\" is not a number");
  refused(banner + "2 2 1\n1 1 1e39\n", "value \"1e39\"");
  refused(banner + "2 2 1\n1 1 1 1\n", "\"1\" stands behind");
  refused(banner + "2 2 1\n1 1 1\n1 2 1\n", "follows the 1 entries that line 2 promises");
  refused(banner + "2 2 2\n2 1 1\n2 1 1\n",
          "x.mtx:4: duplicate entry: row 2, column 1 stands in line 3");
}

TEST_F(Networks, RefusesBadSmtxFiles) {
  const auto refused = [&](const std::string& content, const std::string& part) {
    expect_refused("x.smtx", content, part);
  };
  refused("", "should go on with rows, columns, entries");
  refused("2, 2\n", "entries");
  refused("2, 2, 1\n0 1\n0\n", "row offset is missing");
  refused("2, 2, 1\n0 1 1 1\n0\n", "\"1\" stands behind");
  refused("2, 2, 1\n0 2 1\n0\n", R"("row offsets": element 1 is 2)");
  refused("2, 2, 2\n0 2 1\n0 1\n", R"("row offsets": element 2 is 1)");
  refused("2, 2, 2\n0 1 2\n0 2\n", R"("columns": element 1 is 2; a column must be from 0 to 1)");
  refused("2, 2, 2\n0 2 2\n1 1\n", "column 1 stands twice in row 0");
  refused("2, 2, 2\n0 1 1\n1 1\n", "ends with 1, but there are 2 entries");
  refused("9999999999, 2, 2\n", "rows 9999999999 is out of range");
  refused("1, 1, 0\n0 0\n\n7\n", "more follows");
}

TEST_F(Networks, RefusesBadBiases) {
  write("x.tsv", "1 1 1\n2 3 1\n");
  const auto refused = [&](const std::string& content, const std::string& part) {
    write("x-bias.tsv", content);
    expect_contains(error_of([&] { static_cast<void>(read_network(folder_ / "x.tsv")); }), part);
  };
  refused("", "x-bias.tsv: holds no bias");
  refused("1\n", "x-bias.tsv:1: bias is missing");
  refused("1 inf\n", "bias \"inf\"");
  refused("0 1\n", "output neuron 0 is out of range");
  refused("9999999999 1\n", "output neuron 9999999999 is out of range");
  refused("2 1\n\n2 1\n", "x-bias.tsv:3: output neuron 2 has a bias already");
  refused("1 1 1\n", "\"1\" stands behind");
}

}  // namespace
}  // namespace spdnn
