// RadiX-Net layers against their definition and the official network; generated files and what they
// never replace.
#include <gtest/gtest.h>

#include <bit>
#include <limits>
#include <set>

#include "reading.hpp"
#include "real_data.hpp"
#include "spdnn/io.hpp"

namespace spdnn {
namespace {

namespace fs = std::filesystem;
using test::error_of;
using test::expect_contains;

std::vector<std::int64_t> columns(const Csr& layer) {
  std::vector<std::int64_t> all;
  for (std::int64_t k = 0; k < layer.nnz(); ++k) all.push_back(layer.view().col(k));
  return all;
}

/// The layer by its definition, given the class g(i) of every input.
std::vector<std::int64_t> defined_columns(const std::vector<std::int64_t>& g, std::int64_t classes,
                                          std::int64_t stage) {
  std::vector<std::int64_t> all;
  const std::int64_t distance = std::int64_t{1} << stage;
  for (std::int64_t j = 0; j < std::ssize(g); ++j) {
    for (std::int64_t i = 0; i < std::ssize(g); ++i) {
      const std::int64_t moved = (g[i] - distance + classes) % classes;
      if (j % classes == g[i] || j % classes == moved) all.push_back(i);
    }
  }
  return all;
}

/// The class of every input, read off a group of layers: the one class of outputs that it reaches
/// in all of them.
std::vector<std::int64_t> classes_of_inputs(const std::vector<Csr>& group, std::int64_t classes) {
  std::vector<std::int64_t> g;
  std::vector<std::vector<int>> reached(static_cast<std::size_t>(group[0].cols()),
                                        std::vector<int>(static_cast<std::size_t>(classes)));
  for (const Csr& layer : group) {
    for (std::int64_t j = 0; j < classes; ++j) {
      for (auto k = layer.view().row_begin(j); k < layer.view().row_begin(j + 1); ++k) {
        ++reached[layer.view().col(k)][j];
      }
    }
  }
  for (const auto& counts : reached) {
    const auto most = std::max_element(counts.begin(), counts.end());
    EXPECT_EQ(*most, std::ssize(group));
    EXPECT_EQ(std::count(counts.begin(), counts.end(), *most), 1);
    g.push_back(most - counts.begin());
  }
  return g;
}

/// Checks that a group of log2(classes) layers is built as defined; returns g.
std::vector<std::int64_t> check_group(const std::vector<Csr>& group, std::int64_t classes) {
  const auto g = classes_of_inputs(group, classes);
  for (std::int64_t c = 0; c < classes; ++c) {
    EXPECT_EQ(std::count(g.begin(), g.end(), c) * classes, std::ssize(g)) << "class " << c;
  }
  for (std::size_t stage = 0; stage < group.size(); ++stage) {
    EXPECT_EQ(columns(group[stage]), defined_columns(g, classes, static_cast<std::int64_t>(stage)))
        << "stage " << stage;
  }
  return g;
}

std::vector<Csr> layers_of(const RadixNetSpec& spec, std::int64_t first, std::int64_t count) {
  std::vector<Csr> layers;
  for (std::int64_t l = 0; l < count; ++l) layers.push_back(radixnet_layer(spec, first + l));
  return layers;
}

TEST(RadixNet, LayersAreBuiltAsDefined) {
  for (const auto& [neurons, fold] : std::vector<std::array<std::int64_t, 2>>{
           {1024, 16}, {64, 16}, {64, 1}, {96, 3}, {512, 2}, {4, 1}}) {
    SCOPED_TRACE(testing::Message() << neurons << " neurons, fold " << fold);
    const std::int64_t classes = neurons / fold;
    const int stages = std::countr_zero(static_cast<std::uint64_t>(classes));
    const RadixNetSpec spec{neurons, 3 * stages, fold, -0.5F, 9};
    std::set<std::vector<std::int64_t>> seen;
    for (int group = 0; group < 3; ++group) {
      const auto layers = layers_of(spec, group * stages, stages);
      for (const Csr& layer : layers) {
        EXPECT_EQ(layer.view().row_offsets, nullptr);
        EXPECT_EQ(layer.view().row_nnz, 2 * fold);
        EXPECT_EQ(layer.view().index_type, DType::u16);
        EXPECT_TRUE(layer.view().shared_value);
        EXPECT_EQ(layer.view().value(0), -0.5);
      }
      const auto g = check_group(layers, classes);
      for (std::int64_t i = 0; group == 0 && i < neurons; ++i) ASSERT_EQ(g[i], i % classes);
      seen.insert(g);
    }
    EXPECT_EQ(neurons == 4 || seen.size() == 3, true) << "a permutation came twice";
  }
}

TEST(RadixNet, TwoClassesMakeADenseLayer) {
  const Csr layer = radixnet_layer({.neurons = 6, .layers = 2, .fold = 3}, 1);
  for (std::int64_t k = 0; k < layer.nnz(); ++k) EXPECT_EQ(layer.view().col(k), k % 6);
  EXPECT_EQ(layer.nnz(), 36);
}

TEST(RadixNet, ColumnsPast16BitsAreWide) {
  const std::int64_t neurons = 131072;
  const Csr layer = radixnet_layer({.neurons = neurons, .layers = 40}, 20);
  EXPECT_EQ(layer.view().index_type, DType::u32);
  EXPECT_EQ(layer.nnz(), neurons * 32);
  std::vector<int> uses(static_cast<std::size_t>(neurons));
  const auto* cols = static_cast<const std::uint32_t*>(layer.view().col_indices);
  for (std::int64_t k = 0; k < layer.nnz(); ++k) {
    ++uses.at(cols[k]);
    if (k % 32 != 0) {
      ASSERT_LT(cols[k - 1], cols[k]);
    }
  }
  EXPECT_EQ(std::count(uses.begin(), uses.end(), 32), neurons);
}

std::uint64_t checksum(const Csr& layer) {
  std::uint64_t sum = 14695981039346656037U;
  for (const std::int64_t col : columns(layer)) {
    sum = (sum ^ static_cast<std::uint64_t>(col)) * 1099511628211U;
  }
  return sum;
}

TEST(RadixNet, LayersAreEqualOnEveryMachine) {
  EXPECT_EQ(checksum(radixnet_layer({}, 5)), 10730323762094736165U);
  EXPECT_EQ(checksum(radixnet_layer({}, 6)), 10549251349389866533U);
  EXPECT_EQ(checksum(radixnet_layer({}, 119)), 7605685531278034853U);
  EXPECT_EQ(checksum(radixnet_layer({.neurons = 65536, .layers = 1920, .seed = 42}, 1919)),
            12279370612079960101U);
  EXPECT_EQ(checksum(radixnet_layer({.layers = 480}, 119)), checksum(radixnet_layer({}, 119)));
  EXPECT_NE(checksum(radixnet_layer({.seed = 2}, 119)), checksum(radixnet_layer({}, 119)));
}

TEST(RadixNet, RefusesImpossibleSpecs) {
  const auto refused = [](const RadixNetSpec& spec, const std::string& part) {
    expect_contains(error_of([&] { validate(spec); }), part);
  };
  refused({.neurons = 0}, "0 neurons");
  refused({.neurons = std::int64_t{1} << 60}, "1152921504606846976 neurons");
  refused({.neurons = 1000},
          "62.5 classes; neurons / fold must be a power of two of at least 2, "
          "as 512 neurons are");
  refused({.neurons = 48}, "3 classes");
  refused({.neurons = 16}, "fold 16; give 1 to 8");
  refused({.fold = 0}, "fold 0");
  refused({.fold = -16}, "fold -16");
  refused({.layers = 0}, "0 layers");
  refused({.layers = std::int64_t{1} << 40}, "layers");
  refused({.weight = 0.0F}, "weight 0");
  refused({.weight = std::numeric_limits<float>::quiet_NaN()}, "weight nan");
  refused({.neurons = 1 << 30, .fold = 1 << 20}, "nonzeros each");
  for (const std::int64_t layer : {-1L, 120L}) {
    expect_contains(error_of([&] { static_cast<void>(radixnet_layer({}, layer)); }),
                    "layer " + std::to_string(layer));
  }
}

/// Official layers, and texts generated by name and content like them.
TEST(RadixNet, IsTheOfficialConstruction) {
  const test::ScratchDir folder;
  if (!test::unpack_official_data(folder.path())) {
    GTEST_SKIP() << "SPDNN_DATA has no sdgc/sdgc-neuron1024-l120.tar.xz";
  }
  const auto official = read_graph_challenge_weights(folder.path(), 1024, 120, {false, {}});
  for (std::int64_t l = 0; l < 6; ++l) {
    EXPECT_EQ(columns(official[l]), columns(radixnet_layer({}, l))) << "layer " << l + 1;
    EXPECT_EQ(official[l].view().value(0), 0.0625);
  }
  for (auto group = official.begin(); group != official.end(); group += 6) {
    SCOPED_TRACE(testing::Message() << "from layer " << group - official.begin() + 1);
    check_group({group, group + 6}, 64);
  }
  const test::ScratchDir made;
  generate_graph_challenge_weights(made.path(), {.layers = 6}, true);
  for (int l = 1; l <= 6; ++l) {
    const std::string name = "neuron1024/n1024-l" + std::to_string(l) + ".tsv";
    EXPECT_TRUE(test::read_text(folder.path() / name) == test::read_text(made.path() / name)) << l;
  }
}

class Generate : public ::testing::Test {
 protected:
  [[nodiscard]] std::vector<Csr> read(bool cache, ReadReport* report = nullptr) const {
    return read_graph_challenge_weights(folder_.path(), spec_.neurons, spec_.layers, {cache, {}},
                                        report);
  }
  void expect_layers(const std::vector<Csr>& layers) const {
    ASSERT_EQ(std::ssize(layers), spec_.layers);
    for (std::int64_t l = 0; l < spec_.layers; ++l) {
      const Csr expected = radixnet_layer(spec_, l);
      EXPECT_EQ(columns(layers[l]), columns(expected)) << l;
      EXPECT_EQ(layers[l].view().row_nnz, expected.view().row_nnz);
      EXPECT_EQ(layers[l].view().value(0), expected.view().value(0));
    }
  }
  void expect_refused(bool tsv, const fs::path& in_the_way) const {
    const std::string message =
        error_of([&] { generate_graph_challenge_weights(folder_.path(), spec_, tsv); });
    EXPECT_EQ(message.find(in_the_way.string() + ":"), 0U) << message;
    expect_contains(message, "another folder");
  }
  [[nodiscard]] fs::path file(const std::string& name) const {
    return folder_.path() / "neuron64" / name;
  }
  [[nodiscard]] std::int64_t files() const {
    return std::distance(fs::recursive_directory_iterator(folder_.path()), {});
  }

  test::ScratchDir folder_;
  RadixNetSpec spec_{.neurons = 64, .layers = 7, .fold = 8, .weight = 1.0F / 3.0F, .seed = 5};
};

TEST_F(Generate, WritesACacheThatReadersFind) {
  std::vector<std::int64_t> calls;
  generate_graph_challenge_weights(
      folder_.path(), spec_, false,
      [](std::int64_t done, std::int64_t total, void* user) {
        EXPECT_EQ(total, 7);
        static_cast<std::vector<std::int64_t>*>(user)->push_back(done);
      },
      &calls);
  EXPECT_TRUE(std::is_sorted(calls.begin(), calls.end()));
  EXPECT_EQ(calls.back(), 7);
  EXPECT_EQ(files(), 2);
  ReadReport report;
  expect_layers(read(true, &report));
  EXPECT_TRUE(report.from_cache);
  EXPECT_EQ(report.origin, radixnet_origin(spec_));
  EXPECT_NE(report.origin.find("seed 5"), std::string::npos);
}

TEST_F(Generate, WritesTextThatReadsTheSame) {
  generate_graph_challenge_weights(folder_.path(), spec_, true);
  EXPECT_EQ(files(), 9);
  const std::string text = test::read_text(file("n64-l1.tsv"));
  // A third needs more digits than the official files have.
  EXPECT_EQ(text.substr(0, 37), "1\t1\t3.33333343e-01\n2\t1\t3.33333343e-01");
  expect_layers(read(false));
  ReadReport report;
  expect_layers(read(true, &report));
  EXPECT_TRUE(report.from_cache);
  EXPECT_EQ(report.origin, radixnet_origin(spec_));
}

TEST_F(Generate, ReplacesItsOwnFiles) {
  for (const bool tsv : {false, false, true, true}) {
    ++spec_.seed;
    generate_graph_challenge_weights(folder_.path(), spec_, tsv);
    expect_layers(read(true));
  }
  expect_layers(read(false));
}

TEST_F(Generate, NeverReplacesOtherTexts) {
  const fs::path text = file("n64-l3.tsv");
  test::write_text(text, "1\t1\t0.5\n");
  expect_refused(false, text);
  expect_refused(true, text);
  EXPECT_EQ(test::read_text(text), "1\t1\t0.5\n");
  EXPECT_EQ(files(), 2);
}

TEST_F(Generate, NeverReplacesGeneratedTextsThatWereEdited) {
  generate_graph_challenge_weights(folder_.path(), spec_, true);
  expect_refused(false, file("n64-l1.tsv"));  // readers would prefer the old texts
  test::write_text(file("n64-l2.tsv"), "1\t1\t0.5\n");
  expect_refused(true, file("n64-l1.tsv"));
  EXPECT_EQ(test::read_text(file("n64-l2.tsv")), "1\t1\t0.5\n");
}

TEST_F(Generate, NeverReplacesTheCacheOfDeletedTexts) {
  fs::create_directories(file(""));
  write_cache(file("n64-7.spdnn"), {radixnet_layer(spec_, 0)}, "official files");
  expect_refused(false, file("n64-7.spdnn"));
  test::write_text(file("n64-7.spdnn"), "not a cache at all");
  generate_graph_challenge_weights(folder_.path(), spec_, false);
  expect_layers(read(true));
}

TEST_F(Generate, TellsWhenAFolderCannotBeMade) {
  test::write_text(folder_.path() / "neuron64", "");
  const auto message = error_of<SystemError>(
      [&] { generate_graph_challenge_weights(folder_.path(), spec_, false); });
  expect_contains(message, "neuron64");
}

TEST_F(Generate, WritesImages) {
  const Csr images = challenge_images(draw_digits(20, 4), 64);
  const auto read_images = [&](bool cache, ReadReport* report = nullptr) {
    return read_graph_challenge_images(folder_.path(), 64, {}, {cache, {}}, report);
  };
  for (const bool tsv : {false, true}) {
    generate_graph_challenge_images(folder_.path(), images, "generated (digits)", tsv);
    ReadReport report;
    EXPECT_EQ(columns(read_images(true, &report)), columns(images));
    EXPECT_EQ(report.origin, "generated (digits)");
  }
  EXPECT_EQ(files(), 2);
  const Csr text = read_images(false);
  EXPECT_EQ(columns(text), columns(images));
  EXPECT_EQ(text.rows(), images.rows());

  const fs::path text_file = folder_ / "sparse-images-64.tsv";
  test::write_text(text_file, "1\t1\t1\n");
  for (const bool tsv : {false, true}) {
    const auto message = error_of(
        [&] { generate_graph_challenge_images(folder_.path(), images, "generated", tsv); });
    EXPECT_EQ(message.find(text_file.string()), 0U) << message;
  }
  EXPECT_EQ(test::read_text(text_file), "1\t1\t1\n");
}

TEST_F(Generate, ImagesThatTextCannotHoldAreRefused) {
  const Csr images = make_csr(2, 4, {0, 1, 1}, {2}, {1.0F});
  const auto message =
      error_of([&] { generate_graph_challenge_images(folder_.path(), images, "generated", true); });
  expect_contains(message, "the last is empty");
  EXPECT_EQ(files(), 0);
  generate_graph_challenge_images(folder_.path(), images, "generated", false);
  EXPECT_EQ(read_graph_challenge_images(folder_.path(), 4, {}, {}).rows(), 2);
}

}  // namespace
}  // namespace spdnn
