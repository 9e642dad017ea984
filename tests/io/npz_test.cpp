// Archives of NumPy arrays: every record of the archive and every field of an array.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "network_format.hpp"
#include "npy.hpp"
#include "reading.hpp"
#include "zip.hpp"

namespace spdnn {
namespace {

namespace fs = std::filesystem;
using test::error_of;
using test::expect_contains;

template <class T>
std::string bytes_of(std::initializer_list<T> values) {
  return {reinterpret_cast<const char*>(values.begin()), values.size() * sizeof(T)};
}

/// An array with a header of our making.
std::string array(std::string_view descr, std::initializer_list<std::int64_t> shape,
                  const std::string& data) {
  return npy_header(descr, {shape.begin(), shape.size()}) + data;
}

class Npz : public ::testing::Test {
 protected:
  using Members = std::map<std::string, std::string>;
  /// A 2 × 3 matrix with entries 5 at (0, 2) and 6 at (1, 0).
  static Members good() {
    return {{"data.npy", array("<f4", {2}, bytes_of<float>({5, 6}))},
            {"indices.npy", array("<i4", {2}, bytes_of<std::int32_t>({2, 0}))},
            {"indptr.npy", array("<i4", {3}, bytes_of<std::int32_t>({0, 1, 2}))},
            {"shape.npy", array("<i8", {2}, bytes_of<std::int64_t>({2, 3}))},
            {"format.npy", array("|S3", {}, "csr")}};
  }
  void pack(const Members& members) const {
    ZipWriter zip(path_);
    for (const auto& [name, content] : members) zip.add(name, {std::as_bytes(std::span(content))});
    zip.commit();
  }
  void expect_refused(const std::string& name, const std::string& content,
                      const std::string& part) const {
    Members members = good();
    members[name] = content;
    pack(members);
    refused(part);
  }
  void refused(const std::string& part) const {
    const std::string message = error_of([&] { static_cast<void>(read_npz(path_)); });
    expect_contains(message, path_.string());
    expect_contains(message, part);
  }
  /// The archive of `good()` with some of its bytes changed.
  void change(std::size_t at, const std::string& bytes) const {
    pack(good());
    std::string content = test::read_text(path_);
    content.replace(at, bytes.size(), bytes);
    test::write_text(path_, content);
  }

  test::ScratchDir folder_;
  fs::path path_ = folder_ / "x.npz";
};

TEST_F(Npz, ReadsEveryTypeOfArray) {
  pack(good());
  const test::Entries expected{{0, 2, 5.0}, {1, 0, 6.0}};
  EXPECT_EQ(test::entries_of(read_npz(path_).view()), expected);
  const std::pair<const char*, std::string> indices[] = {{"<i8", bytes_of<std::int64_t>({2, 0})},
                                                         {"<u4", bytes_of<std::uint32_t>({2, 0})},
                                                         {"<u8", bytes_of<std::uint64_t>({2, 0})},
                                                         {"<i2", bytes_of<std::int16_t>({2, 0})}};
  for (const auto& [descr, data] : indices) {
    Members members = good();
    members["indices.npy"] = array(descr, {2}, data);
    pack(members);
    EXPECT_EQ(test::entries_of(read_npz(path_).view()), expected) << descr;
  }
  const std::pair<const char*, std::string> values[] = {
      {"<f8", bytes_of<double>({5, 6})},       {"<f2", bytes_of<std::uint16_t>({0x4500, 0x4600})},
      {"|i1", bytes_of<std::int8_t>({5, 6})},  {"|u1", bytes_of<std::uint8_t>({5, 6})},
      {"<i4", bytes_of<std::int32_t>({5, 6})}, {"<i8", bytes_of<std::int64_t>({5, 6})}};
  for (const auto& [descr, data] : values) {
    Members members = good();
    members["data.npy"] = array(descr, {2}, data);
    pack(members);
    EXPECT_EQ(test::entries_of(read_npz(path_).view()), expected) << descr;
  }
  Members members = good();
  members["format.npy"] = array("<U3", {}, bytes_of<char32_t>({U'c', U's', U'r'}));
  pack(members);
  EXPECT_EQ(read_npz(path_).nnz(), 2);
}

TEST_F(Npz, HalvesAreExact) {
  Members members = good();
  // The smallest subnormal, and the largest negative number.
  members["data.npy"] = array("<f2", {2}, bytes_of<std::uint16_t>({0x0001, 0xFBFF}));
  pack(members);
  EXPECT_EQ(test::entries_of(read_npz(path_).view()),
            (test::Entries{{0, 2, 0x1p-24}, {1, 0, -65504.0}}));
}

TEST_F(Npz, RefusesArraysThatContradictOneAnother) {
  const auto ints = [](std::initializer_list<std::int32_t> values) {
    return array("<i4", {static_cast<std::int64_t>(values.size())}, bytes_of(values));
  };
  expect_refused("indices.npy", ints({3, 0}),
                 R"("indices.npy": element 0 is 3; a column must be from 0 to 2)");
  expect_refused("indices.npy", ints({-1, 0}), "element 0 is -1");
  expect_refused("indices.npy", ints({1}), "element 2 is 2");
  expect_refused("indptr.npy", ints({0, 2, 1}), "element 2 is 1");
  expect_refused("indptr.npy", ints({1, 1, 2}), "element 0 is 1");
  expect_refused("indptr.npy", ints({0, 2}), "has 2 elements, but 2 rows need 3");
  expect_refused("indptr.npy", ints({}), "is empty");
  expect_refused("indptr.npy", ints({0, 1, 1}), "ends with 1, but there are 2");
  expect_refused("data.npy", ints({1}), "has 1 elements, but there are 2 columns");
  expect_refused("data.npy", array("<f4", {2}, bytes_of<float>({1, NAN})),
                 R"("data.npy": element 1 is nan)");
  expect_refused("data.npy", array("<f8", {2}, bytes_of<double>({1e39, 1})), "element 0 is inf");
  expect_refused("data.npy", array("<f4", {1, 2}, bytes_of<float>({1, 2})), "one dimension");
  expect_refused("indices.npy", array("<f4", {2}, bytes_of<float>({1, 2})),
                 "must be whole numbers");
  expect_refused("shape.npy", array("<i8", {2}, bytes_of<std::int64_t>({-2, 3})), "is -2 × 3");
  expect_refused("shape.npy", array("<i8", {2}, bytes_of<std::int64_t>({2, 1LL << 40})),
                 "1099511627776");
  expect_refused("shape.npy", array("<i8", {1}, bytes_of<std::int64_t>({2})), "two whole numbers");
  expect_refused("format.npy", array("|S3", {}, "csc"), "format \"csc\", but csr is needed");
  Members members = good();
  members.erase("data.npy");
  pack(members);
  refused("has no member \"data.npy\"; it has: format.npy, indices.npy");
  refused("scipy.sparse.save_npz");
}

TEST_F(Npz, RefusesBadArrays) {
  const std::string data = bytes_of<float>({5, 6});
  const auto refused_as = [&](const std::string& content, const std::string& part) {
    expect_refused("data.npy", content, part);
  };
  const auto with = [&](const std::string& dictionary) {
    const auto length = static_cast<std::uint16_t>(dictionary.size());
    return std::string("\x93NUMPY\1\0", 8) + bytes_of({length}) + dictionary + data;
  };
  refused_as("", "is not a NumPy array");
  refused_as("\x93NUMPX\1\0\0\0" + data, "is not a NumPy array");
  refused_as(std::string("\x93NUMPY\4\0\0\0\0\0", 12), "version 4");
  refused_as(std::string("\x93NUMPY\1\0\xFF\0", 10) + data, "a header of 255 bytes, but 8 follow");
  refused_as(with("{'descr': '<f4', 'fortran_order': False, 'shape': (3,)}"),
             "but 8 bytes of data");
  refused_as(with("{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775807, 9)}"),
             "but 8 bytes of data");
  refused_as(with("{'descr': '>f4', 'fortran_order': False, 'shape': (2,)}"), "little-endian");
  refused_as(with("{'descr': '<c8', 'fortran_order': False, 'shape': (1,)}"), "\"<c8\"");
  refused_as(with("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}"), "\"|O\"");
  refused_as(with("{'descr': '|S8', 'fortran_order': False, 'shape': ()}"), "is a text");
  refused_as(with("{'descr': '|S999', 'fortran_order': False, 'shape': ()}"), "\"|S999\"");
  for (const char* header :
       {"", "{", "{}", "[]", "{'descr': '<f4', 'fortran_order': False}",
        "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (2,)}",
        "{'descr': '<f4', 'fortran_order': 0, 'shape': (2,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-2,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2,",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2,)} x",
        "{'descr': '<f4, 'fortran_order': False, 'shape': (2,)}"}) {
    refused_as(with(header), "which is none: descr, fortran_order and shape");
  }
  Members members = good();
  members["data.npy"] = with("{\"shape\":(2),'fortran_order':True,'descr':'<f4'}");
  pack(members);
  EXPECT_EQ(read_npz(path_).nnz(), 2);
}

TEST_F(Npz, RefusesDamagedArchives) {
  pack(good());
  const std::string whole = test::read_text(path_);
  for (std::size_t bytes = 0; bytes < whole.size(); ++bytes) {
    test::write_text(path_, whole.substr(0, bytes));
    refused("");
  }
  const std::size_t table = whole.find("PK\1\2");
  change(table + 8, "\1");
  refused("is encrypted");
  change(table + 10, "\x0C");
  refused("method 12, but only 0 (stored) and 8 (deflated)");
  change(table + 16, "\1\2\3\4");
  refused("CRC-32 of member");
  change(table, "PK\1\3");
  refused("has no entry for member 1");
  change(0, "PK\3\5");
  refused("no member where its table says");
  change(26, "\xFF\xFF");
  refused("bytes from byte 65");
  const std::size_t sizes = table + 46 + std::strlen("data.npy") + 4;
  change(sizes, bytes_of<std::uint64_t>({1ULL << 60}));
  refused("promises 1152921504606846976 bytes");
  change(sizes + 8, bytes_of<std::uint64_t>({1ULL << 60}));
  refused("needs 1152921504606846976 bytes from");
  change(sizes + 16, bytes_of<std::uint64_t>({~0ULL}));
  refused("from byte 18446744073709551615 on");
}

TEST_F(Npz, RefusesAMemberThatStandsTwice) {
  ZipWriter zip(path_);
  const std::string content = good()["data.npy"];
  for (int time = 0; time < 2; ++time) zip.add("data.npy", {std::as_bytes(std::span(content))});
  zip.commit();
  refused("has \"data.npy\" twice");
}

TEST_F(Npz, LargeMembersComeBack) {
  const std::string content(std::size_t{5} << 20, 'x');
  ZipWriter zip(path_);
  zip.add("large", {std::as_bytes(std::span(content)), std::as_bytes(std::span(content))});
  zip.add("empty", {});
  zip.commit();
  const ZipFile file(path_);
  EXPECT_EQ(file.names(), (std::vector<std::string>{"large", "empty"}));
  EXPECT_EQ(file.read("large"), std::vector<std::byte>(2 * content.size(), std::byte{'x'}));
  EXPECT_TRUE(file.read("empty").empty());
}

}  // namespace
}  // namespace spdnn
