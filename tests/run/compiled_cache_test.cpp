// Compiled networks on disk: what comes back, what is refused, what is thrown out.
#include "compiled_cache.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

#include "spdnn/io.hpp"
#include "support/networks.hpp"

namespace spdnn {
namespace {

namespace fs = std::filesystem;

class CompiledCache : public testing::Test {
 protected:
  CompiledCache() : folder_(fs::temp_directory_path() / fmt::format("spdnn-kept-{}", getpid())) {
    fs::create_directories(folder_);
    request_.passes = passes_for("full");
    std::mt19937_64 random(3);
    // Layer 3 has no duplicates and keeps its arrays; the last one has constant outputs.
    std::vector<Csr> weights;
    for (const std::int64_t distinct : {20, 60, 60, 20}) {
      const Csr w = test::random_csr({60, 60, 6, test::Rows::irregular, false}, random);
      std::vector<std::int64_t> ids;
      for (std::int64_t row = 0; row < 60; ++row) ids.push_back(row % distinct);
      weights.push_back(gather_rows(w, ids));
    }
    write_cache(folder_ / "given.spdnn", weights, "test");
    for (const Csr& w : read_cache(folder_ / "given.spdnn")) {
      std::vector<float> bias(60, 0.25F);
      bias[7] = -1000.0F;
      given_.layers.push_back(SparseLinear{w, bias, {0.0F, 4.0F}});
    }
    key_ = compiled_key(given_, request_).value_or("");
  }
  ~CompiledCache() override { fs::remove_all(folder_); }

  [[nodiscard]] fs::path file() const { return folder_ / fmt::format("compiled-{}.spdnn", key_); }
  [[nodiscard]] auto read() { return read_compiled(folder_, key_, given_, notes_); }

  fs::path folder_;
  CompileRequest request_;
  Model given_;
  std::string key_;
  std::vector<std::string> notes_;
};

void expect_same_matrix(const CsrView& a, const CsrView& b) {
  ASSERT_EQ(a.rows, b.rows);
  ASSERT_EQ(a.cols, b.cols);
  ASSERT_EQ(a.nnz, b.nnz);
  for (std::int64_t row = 0; row < a.rows; ++row) ASSERT_EQ(a.row_begin(row), b.row_begin(row));
  for (std::int64_t k = 0; k < a.nnz; ++k) {
    ASSERT_EQ(a.col(k), b.col(k));
    ASSERT_EQ(a.value(k), b.value(k));
  }
}

TEST_F(CompiledCache, WhatComesBackIsWhatWasKept) {
  ASSERT_FALSE(key_.empty());
  EXPECT_FALSE(read().has_value());
  const CompiledModel compiled = compile(given_, request_);
  ASSERT_LT(compiled.report.after.nonzeros, compiled.report.before.nonzeros);
  ASSERT_FALSE(compiled.outputs.empty());
  write_compiled(folder_, key_, given_, compiled);
  const auto kept = read();
  ASSERT_TRUE(kept.has_value());
  EXPECT_TRUE(notes_.empty());
  EXPECT_TRUE(kept->report.from_cache);
  EXPECT_EQ(kept->report.exact, compiled.report.exact);
  EXPECT_EQ(kept->report.before, compiled.report.before);
  EXPECT_EQ(kept->report.after, compiled.report.after);
  EXPECT_EQ(kept->report.passes.size(), compiled.report.passes.size());
  EXPECT_EQ(kept->outputs, compiled.outputs);
  EXPECT_EQ(kept->layers, compiled.layers);
  ASSERT_EQ(kept->model.layers.size(), compiled.model.layers.size());
  for (std::size_t l = 0; l < kept->model.layers.size(); ++l) {
    const auto& a = std::get<SparseLinear>(kept->model.layers[l]);
    const auto& b = std::get<SparseLinear>(compiled.model.layers[l]);
    expect_same_matrix(a.weights.view(), b.weights.view());
    EXPECT_EQ(a.bias, b.bias);
    EXPECT_EQ(a.activation, b.activation);
  }
}

TEST_F(CompiledCache, ANetworkInWhichNothingWasFoundTakesNoRoom) {
  request_.passes = {"identity"};
  key_ = *compiled_key(given_, request_);
  const CompiledModel compiled = compile(given_, request_);
  write_compiled(folder_, key_, given_, compiled);
  EXPECT_LT(fs::file_size(file()), 2000U);
  const auto kept = read();
  ASSERT_TRUE(kept.has_value());
  for (std::size_t l = 0; l < given_.layers.size(); ++l) {
    EXPECT_EQ(std::get<SparseLinear>(kept->model.layers[l]).weights.view().col_indices,
              std::get<SparseLinear>(given_.layers[l]).weights.view().col_indices);
  }
}

TEST_F(CompiledCache, AnyChangeIsAnotherKey) {
  const auto differs = [&](const Model& model, const CompileRequest& request) {
    return compiled_key(model, request) != key_;
  };
  EXPECT_FALSE(differs(given_, request_));
  CompileRequest request = request_;
  request.highest_input = 2.0F;
  EXPECT_TRUE(differs(given_, request));
  request = request_;
  request.passes.pop_back();
  EXPECT_TRUE(differs(given_, request));
  Model model = given_;
  std::swap(model.layers[0], model.layers[1]);
  EXPECT_TRUE(differs(model, request_));
  model = given_;
  std::get<SparseLinear>(model.layers[1]).bias[59] = 0.5F;
  EXPECT_TRUE(differs(model, request_));
  model = given_;
  std::get<SparseLinear>(model.layers[1]).activation.upper = 5.0F;
  EXPECT_TRUE(differs(model, request_));
}

TEST_F(CompiledCache, ContentThatIsKnownOnlyByReadingItHasNoKey) {
  std::mt19937_64 random(4);
  Model model = given_;
  auto& layer = std::get<SparseLinear>(model.layers[0]);
  const Csr mapped = layer.weights;
  layer.weights = test::random_csr({60, 60, 6, test::Rows::irregular, false}, random);
  EXPECT_FALSE(compiled_key(model, request_).has_value());
  layer.weights = mapped.slice_rows({0, 59});
  EXPECT_FALSE(compiled_key(model, request_).has_value());
}

TEST_F(CompiledCache, WhatCannotBeTrustedIsRefusedWithItsReason) {
  write_compiled(folder_, key_, given_, compile(given_, request_));
  std::string bytes(fs::file_size(file()), '\0');
  std::ifstream(file(), std::ios::binary).read(bytes.data(), std::ssize(bytes));
  for (const double at : {0.001, 0.3, 0.6, 0.99}) {
    std::string broken = bytes;
    broken[static_cast<std::size_t>(at * static_cast<double>(bytes.size()))] ^= 0x10;
    std::ofstream(file(), std::ios::binary) << broken;
    notes_.clear();
    EXPECT_FALSE(read().has_value()) << at;
    ASSERT_EQ(notes_.size(), 1U);
    EXPECT_NE(notes_[0].find("compiled again"), std::string::npos);
  }
  std::ofstream(file(), std::ios::binary) << bytes.substr(0, bytes.size() / 2);
  EXPECT_FALSE(read().has_value());
  write_cache(file(), {}, "no JSON");
  EXPECT_FALSE(read().has_value());
  write_cache(file(), {}, R"({"compiled": "another"})");
  EXPECT_FALSE(read().has_value());
  write_cache(file(), {}, fmt::format(R"({{"compiled": "{}"}})", key_));
  EXPECT_FALSE(read().has_value());
}

TEST_F(CompiledCache, TheOldestMakeRoom) {
  const CompiledModel compiled = compile(given_, request_);
  write_compiled(folder_, "a", given_, compiled);
  const auto size = static_cast<std::int64_t>(fs::file_size(folder_ / "compiled-a.spdnn"));
  fs::last_write_time(folder_ / "compiled-a.spdnn",
                      fs::file_time_type::clock::now() - std::chrono::hours(1));
  write_compiled(folder_, "b", given_, compiled, 5 * size / 2);
  EXPECT_TRUE(fs::exists(folder_ / "compiled-a.spdnn"));
  write_compiled(folder_, "c", given_, compiled, 5 * size / 2);
  EXPECT_FALSE(fs::exists(folder_ / "compiled-a.spdnn"));
  EXPECT_TRUE(fs::exists(folder_ / "compiled-c.spdnn"));
  EXPECT_TRUE(fs::exists(folder_ / "given.spdnn"));
}

TEST_F(CompiledCache, AFolderThatCannotBeWrittenIsNoError) {
  std::ofstream(folder_ / "file") << "in the way";
  write_compiled(folder_ / "file", key_, given_, compile(given_, request_));
  notes_.clear();
  EXPECT_FALSE(read_compiled(folder_ / "file", key_, given_, notes_).has_value());
}

}  // namespace
}  // namespace spdnn
