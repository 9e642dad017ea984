// safetensors files: what is written comes back, and every field that can be wrong is refused.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <random>

#include "reading.hpp"
#include "spdnn/io.hpp"

namespace spdnn {
namespace {

namespace fs = std::filesystem;
using test::error_of;
using test::expect_contains;

/// A file of a header and as many bytes of data.
std::string with_header(const std::string& header, std::size_t data_bytes) {
  const std::uint64_t length = header.size();
  return std::string(reinterpret_cast<const char*>(&length), sizeof length) + header +
         std::string(data_bytes, '\0');
}

class Safetensors : public ::testing::Test {
 protected:
  [[nodiscard]] std::string refusal(const std::string& content) const {
    test::write_text(path_, content);
    std::string message = error_of([&] { static_cast<void>(read_safetensors(path_)); });
    expect_contains(message, path_.string());
    return message;
  }
  void expect_refused(const std::string& header, std::size_t data_bytes,
                      const std::string& part) const {
    expect_contains(refusal(with_header(header, data_bytes)), part);
  }
  /// A file with tensors of unlike sizes and texts.
  [[nodiscard]] std::string sample() const {
    write_safetensors(path_,
                      {make_tensor("weights", floats_), make_tensor("b/ytes", bytes_),
                       make_tensor("steps", std::vector<std::int64_t>{-1, 1}),
                       Tensor{"scalar", ElementType::bf16, {}, std::as_bytes(std::span(half_))},
                       Tensor{"none", ElementType::f64, {0, 7}, {}}},
                      {{"epoch", "7"}, {"Grüße", "\"\\\n"}});
    return test::read_text(path_);
  }

  test::ScratchDir folder_;
  fs::path path_ = folder_ / "x.safetensors";
  std::vector<float> floats_{1.0F, -0.0F, 3.5e-40F};
  std::vector<std::uint8_t> bytes_{1, 2, 255};
  std::vector<std::uint16_t> half_{0x3F80};
};

TEST_F(Safetensors, ComesBackAsWritten) {
  const std::string content = sample();
  const TensorFile file = read_safetensors(path_);
  EXPECT_TRUE(file.checked());
  EXPECT_EQ(file.metadata().at("epoch"), "7");
  EXPECT_EQ(file.metadata().at("Grüße"), "\"\\\n");
  ASSERT_EQ(file.tensors().size(), 5U);
  const auto weights = file.values<float>("weights", {3});
  EXPECT_EQ(std::memcmp(weights.data(), floats_.data(), 12), 0);
  EXPECT_EQ(file.values<std::int64_t>("steps", {-1})[0], -1);
  EXPECT_EQ(file.require("scalar", ElementType::bf16, {}).data.size(), 2U);
  EXPECT_EQ(file.find("none")->shape, (std::vector<std::int64_t>{0, 7}));
  EXPECT_EQ(file.find("nothing"), nullptr);
  for (const Tensor& tensor : file.tensors()) {
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(tensor.data.data()) % size_of(tensor.type), 0U);
  }
  std::uint64_t header = 0;
  std::memcpy(&header, content.data(), sizeof header);
  EXPECT_EQ((header + sizeof header) % 64, 0U);
  EXPECT_EQ(test::names_in(folder_.path()), (std::vector<std::string>{"x.safetensors"}));
}

TEST_F(Safetensors, DataOutliveTheFile) {
  static_cast<void>(sample());
  const TensorFile file = read_safetensors(path_);
  fs::remove(path_);
  EXPECT_EQ(file.values<float>("weights", {3})[0], 1.0F);
}

TEST_F(Safetensors, WritesTheSameBytesEachTime) { EXPECT_EQ(sample(), sample()); }

TEST_F(Safetensors, EveryFlippedBitIsRefusedOrWithoutEffect) {
  const std::string content = sample();
  const TensorFile original = read_safetensors(path_);
  int accepted = 0;
  for (std::size_t bit = 0; bit < content.size() * 8; ++bit) {
    std::string flipped = content;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << bit % 8));
    test::write_text(folder_ / "flipped", flipped);
    try {
      const TensorFile file = read_safetensors(folder_ / "flipped");
      ++accepted;  // e.g. a space of the padding that became a newline
      EXPECT_TRUE(file.checked());
      EXPECT_EQ(file.metadata(), original.metadata());
      ASSERT_EQ(file.tensors().size(), original.tensors().size());
      for (std::size_t t = 0; t < file.tensors().size(); ++t) {
        const auto a = file.tensors()[t].data;
        const auto b = original.tensors()[t].data;
        EXPECT_TRUE(std::equal(a.begin(), a.end(), b.begin(), b.end()));
      }
    } catch (const InputError&) {
    }
  }
  EXPECT_LT(accepted, 200);
}

TEST_F(Safetensors, EveryCutIsRefused) {
  const std::string content = sample();
  for (std::size_t bytes = 0; bytes < content.size(); ++bytes) {
    static_cast<void>(refusal(content.substr(0, bytes)));
  }
  expect_contains(refusal(content + "x"), "data are there");
}

TEST_F(Safetensors, RefusesEveryBadField) {
  const std::string rest = R"("shape":[2],"data_offsets":[0,8]})";
  const std::string good = R"({"dtype":"F32",)" + rest;
  test::write_text(path_, with_header(R"({"a":)" + good + "}", 8));
  EXPECT_EQ(read_safetensors(path_).values<float>("a", {2}).size(), 2U);
  EXPECT_FALSE(read_safetensors(path_).checked());

  expect_refused(R"({"a":{"dtype":"F33",)" + rest + "}", 8,
                 R"("dtype" is "F33", which is unknown)");
  expect_refused(R"({"a":{)" + rest + "}", 8, "has no dtype");
  expect_refused(R"({"a":{"dtype":"F32","data_offsets":[0,8]}})", 8, "has no shape");
  expect_refused(R"({"a":{"dtype":"F32","shape":[2]}})", 8, "has no data_offsets");
  expect_refused(R"({"a":{"dtype":"F32","dtype":"F32",)" + rest + "}", 8, "stands twice");
  expect_refused(R"({"a":)" + good + R"(,"a":)" + good + "}", 8, R"(tensor "a" stands twice)");
  expect_refused(R"({"a":{"dtype":"F32","color":1,)" + rest + "}", 8, R"("color" is unknown)");
  expect_refused(R"({"a":{"dtype":7,)" + rest + "}", 8, "holds the number 7");
  expect_refused(R"({"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})", 8, "-2");
  expect_refused(R"({"a":{"dtype":"F32","shape":[2.5],"data_offsets":[0,8]}})", 8, "\"2.5\"");
  expect_refused(R"({"a":{"dtype":"F32","shape":[[2]],"data_offsets":[0,8]}})", 8, "a list where");
  expect_refused(R"({"a":{"dtype":"F32","shape":2,"data_offsets":[0,8]}})", 8, "the number 2");
  expect_refused(R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", 8, "[3] of F32");
  expect_refused(R"({"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,8]}})", 8,
                 "does not take");
  expect_refused(R"({"a":{"dtype":"F32","shape":[99999999999999999999],"data_offsets":[0,8]}})", 8,
                 "whole numbers");
  expect_refused(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8,9]}})", 8, "3 numbers");
  expect_refused(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})", 8, "reversed");
  expect_refused(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})", 12, "leave a gap");
  expect_refused(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 7, "go beyond the 7");
  expect_refused(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 9, "9 bytes of data");
  expect_refused(R"({"a":)" + good + R"(,"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})",
                 12, "overlap");
  expect_refused(R"({"__metadata__":{"n":1}})", 0, "holds the number 1");
  expect_refused(R"({"__metadata__":{"n":"1","n":"2"}})", 0, "stands twice");
  expect_refused(R"({"__metadata__":{"spdnn.format":"1"}})", 0, "no spdnn.checksum");
  expect_refused(R"({"__metadata__":{"spdnn.checksum":"1"}})", 0, "checksum xxh3:");
  expect_refused(R"({"a":3})", 0, "holds the number 3");
  expect_refused("[1]", 0, "does not begin with {");
  expect_refused("{\"a\":\"\xFF\"}", 0, "not JSON");
  expect_refused(R"({"a")", 0, "not JSON, from byte");
  expect_refused("", 0, "must have 2 to");
  expect_contains(refusal(std::string(8, '\xFF')), "18446744073709551615 bytes");
  expect_contains(refusal("1234567"), "has 7 bytes");
}

TEST_F(Safetensors, MisalignedTensorsOfOthersAreCopied) {
  const std::string header = R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                             R"("b":{"dtype":"F64","shape":[1],"data_offsets":[1,9]}})";
  std::string content = with_header(header, 9);
  const double value = 2.5;
  std::memcpy(content.data() + content.size() - 8, &value, 8);
  test::write_text(path_, content);
  EXPECT_EQ(read_safetensors(path_).values<double>("b", {1})[0], 2.5);
}

TEST_F(Safetensors, RefusesTensorsThatAreNotThere) {
  static_cast<void>(sample());
  const TensorFile file = read_safetensors(path_);
  expect_contains(error_of([&] { static_cast<void>(file.values<float>("w", {3})); }),
                  R"(no tensor "w")");
  expect_contains(error_of([&] { static_cast<void>(file.values<double>("weights", {3})); }),
                  R"(tensor "weights" is F32 [3], but F64 [3] is needed)");
  expect_contains(error_of([&] { static_cast<void>(file.values<float>("weights", {4})); }),
                  "F32 [4] is needed");
  expect_contains(error_of([&] {
                    static_cast<void>(file.values<float>("weights", {3, 1}));
                  }),
                  "F32 [3, 1] is needed");
}

TEST_F(Safetensors, RefusesToWriteWhatCantBeRead) {
  const auto refused = [&](std::vector<Tensor> tensors, std::map<std::string, std::string> texts,
                           const std::string& part) {
    expect_contains(error_of([&] { write_safetensors(path_, tensors, texts); }), part);
    EXPECT_FALSE(fs::exists(path_));
  };
  refused({make_tensor("a", floats_), make_tensor("a", bytes_)}, {}, "given twice");
  refused({make_tensor("__metadata__", floats_)}, {}, "keeps this name");
  refused({make_tensor("\xFF", floats_)}, {}, "not UTF-8");
  refused({}, {{"a", "\xC0"}}, "not UTF-8");
  refused({make_tensor("a", std::span<const float>(floats_), {4})}, {}, "needs 16 bytes, but 12");
  refused({make_tensor("a", std::span<const float>(floats_), {-3})}, {}, "negative");
}

/// In any order: the same file as when all are there at once, and none before the end.
TEST_F(Safetensors, IsWrittenTensorByTensor) {
  const std::string whole = sample();
  const TensorFile file = read_safetensors(path_);
  std::vector<Tensor> to_come = file.tensors();
  for (Tensor& tensor : to_come) tensor.data = {};
  std::map<std::string, std::string> texts = file.metadata();
  std::erase_if(texts, [](const auto& text) { return text.first.starts_with("spdnn."); });
  const fs::path other = folder_ / "other.safetensors";
  std::vector<std::size_t> order(to_come.size());
  std::iota(order.rbegin(), order.rend(), std::size_t{0});
  for (std::size_t turn = 0; turn < order.size(); ++turn) {
    TensorWriter writer(other, to_come, texts);
    for (const std::size_t t : order) {
      writer.write(file.tensors()[t].name, file.tensors()[t].data);
    }
    EXPECT_FALSE(fs::exists(other));
    writer.commit();
    ASSERT_EQ(test::read_text(other), whole);
    fs::remove(other);
    std::rotate(order.begin(), order.begin() + 1, order.end());
  }

  TensorWriter writer(other, {make_tensor("a", floats_), make_tensor("b", bytes_)});
  writer.write("b", std::as_bytes(std::span(bytes_)));
  const auto refused = [&](std::string_view name, std::span<const std::byte> data,
                           const std::string& part) {
    expect_contains(error_of([&] { writer.write(name, data); }), part);
  };
  refused("b", std::as_bytes(std::span(bytes_)), "written before");
  refused("c", std::as_bytes(std::span(bytes_)), "none of that name");
  refused("a", std::as_bytes(std::span(floats_).first(1)), "needs 12 bytes, but 4");
  expect_contains(error_of([&] { writer.commit(); }), "\"a\" was never written");
  EXPECT_FALSE(fs::exists(other));
}

TEST_F(Safetensors, AFailedWriteKeepsTheFileThatWasThere) {
  const std::string before = sample();
  error_of([&] { write_safetensors(path_, {make_tensor("\xFF", floats_)}); });
  EXPECT_EQ(test::read_text(path_), before);
  expect_contains(
      error_of<SystemError>([&] { write_safetensors(folder_ / "no" / "x.safetensors", {}); }),
      "can't be written");
}

}  // namespace
}  // namespace spdnn
