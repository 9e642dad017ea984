// The binary cache: what goes in comes out, and nothing that was changed is believed.
#include "cache.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <xxhash.h>

#include <cstring>
#include <iostream>
#include <random>
#include <thread>

#include "cache_format.hpp"
#include "reading.hpp"
#include "spdnn/io.hpp"

namespace spdnn {
namespace {

using test::error_of;
using test::expect_contains;
using test::expect_equal;

/// Matrices of every form: equal and unequal rows, shared and own values, 16 and 32 bits, empty.
std::vector<Csr> all_forms() {
  return {
      make_csr(2, 4, {0, 2, 4}, {0, 3, 1, 2}, {0.5F}),
      make_csr(3, 4, {0, 2, 2, 3}, {0, 3, 1}, {1.0F, -2.0F, 0.0F}),
      make_csr(2, 70000, {0, 1, 3}, {69999, 0, 65536}, {0.25F}),
      make_csr(3, 5, {0, 0, 0, 0}, {}, {}),
      make_csr(0, 0, {0}, {}, {}),
      make_csr(1, 100000, {0, 2}, {99999, 7}, {3.0F, 4.0F}),
  };
}

class Cache : public testing::Test {
 protected:
  std::string write_all_forms() {
    write_cache(file_, all_forms(), "a test");
    return test::read_text(file_);
  }
  std::string error_with(const std::string& bytes) {
    test::write_text(file_, bytes);
    return error_of([&] { static_cast<void>(read_cache(file_)); });
  }
  test::ScratchDir dir_;
  std::filesystem::path file_ = dir_ / "matrices.spdnn";
};

template <class T>
T get(const std::string& bytes, std::int64_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}
template <class T>
void put(std::string& bytes, std::int64_t at, const T& value) {
  std::memcpy(bytes.data() + at, &value, sizeof value);
}

/// Makes the header's checksum right again, as somebody who crafts a file would.
void seal(std::string& bytes) {
  auto header = get<CacheHeader>(bytes, 0);
  header.checksum = 0;
  const auto table = std::string_view(bytes).substr(static_cast<std::size_t>(header.table_at));
  header.checksum =
      XXH3_64bits_withSeed(table.data(), table.size(), XXH3_64bits(&header, sizeof header));
  put(bytes, 0, header);
}

/// The file with one matrix's table entry changed, and its checksums right.
std::string crafted(std::string bytes, std::int64_t matrix,
                    const std::function<void(CacheMatrix&)>& change) {
  const std::int64_t at =
      get<CacheHeader>(bytes, 0).table_at + matrix * std::int64_t{sizeof(CacheMatrix)};
  auto entry = get<CacheMatrix>(bytes, at);
  change(entry);
  put(bytes, at, entry);
  seal(bytes);
  return bytes;
}

TEST_F(Cache, RoundTripOfAllForms) {
  write_all_forms();
  std::string origin;
  const std::vector<Csr> read = read_cache(file_, &origin);
  const std::vector<Csr> expected = all_forms();
  EXPECT_EQ(origin, "a test");
  ASSERT_EQ(read.size(), expected.size());
  for (std::size_t m = 0; m < read.size(); ++m) {
    expect_equal(read[m], expected[m]);
    EXPECT_EQ(read[m].view().index_type, expected[m].view().index_type);
    EXPECT_EQ(read[m].view().shared_value, expected[m].view().shared_value);
    EXPECT_EQ(read[m].view().row_offsets == nullptr, expected[m].view().row_offsets == nullptr);
    EXPECT_EQ(read[m].view().bytes(), expected[m].view().bytes());
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(read[m].view().col_indices) % 64, 0U);
  }
  EXPECT_EQ(test::names_in(dir_.path()).size(), 1U);
}

TEST_F(Cache, NoMatrices) {
  write_cache(file_, {}, "");
  EXPECT_TRUE(read_cache(file_).empty());
}

TEST_F(Cache, SlicesAndDoublesAreWritten) {
  const Csr whole = make_csr(4, 4, {0, 2, 2, 3, 4}, {0, 3, 1, 2}, {1.0F, 2.0F, 3.0F, 4.0F});
  const Csr slice(whole.view().slice_rows({1, 4}), nullptr);
  const std::vector<double> values = {1e-300, 0.1};
  const std::vector<std::uint16_t> cols = {1, 0};
  CsrView doubles;
  doubles.rows = doubles.cols = doubles.nnz = 2;
  doubles.row_nnz = 1;
  doubles.col_indices = cols.data();
  doubles.index_type = DType::u16;
  doubles.values = values.data();
  doubles.value_type = DType::f64;
  write_cache(file_, {slice, Csr(doubles, nullptr)}, "");
  const std::vector<Csr> read = read_cache(file_);
  expect_equal(read.at(0), slice);
  expect_equal(read.at(1), Csr(doubles, nullptr));
}

TEST_F(Cache, TwoBytesANonzero) {
  const std::int64_t nnz = 1024 * 32;
  std::vector<std::int64_t> offsets;
  for (std::int64_t row = 0; row <= 1024; ++row) offsets.push_back(row * 32);
  const Csr layer = make_csr(1024, 1024, offsets, std::vector<std::uint32_t>(nnz, 5), {0.0625F});
  write_cache(file_, std::vector<Csr>(120, layer), "official files");
  EXPECT_LE(static_cast<double>(std::filesystem::file_size(file_)) / static_cast<double>(120 * nnz),
            2.5);
}

TEST_F(Cache, UnfinishedWriterLeavesNothing) {
  {
    CacheWriter writer(file_, "");
    writer.add(all_forms().front().view());
  }
  EXPECT_TRUE(test::names_in(dir_.path()).empty());
}

TEST_F(Cache, SourcesAreKept) {
  const std::vector<SourceStamp> sources = {{"a.tsv", 7, 123456789012345}, {"b.tsv", 0, -1}};
  CacheWriter writer(file_, "x");
  writer.set_sources(sources);
  writer.finish();
  const CacheFile cache(file_);
  EXPECT_EQ(cache.sources(), sources);
  EXPECT_EQ(cache.origin(), "x");
}

TEST_F(Cache, EveryFlippedBitIsFound) {
  const std::string good = write_all_forms();
  for (std::size_t bit = 0; bit < good.size() * 8; ++bit) {
    std::string bad = good;
    bad[bit / 8] = static_cast<char>(static_cast<unsigned char>(bad[bit / 8]) ^ (1U << bit % 8));
    test::write_text(file_, bad);
    ASSERT_THROW(static_cast<void>(read_cache(file_)), InputError) << "bit " << bit;
  }
}

TEST_F(Cache, EveryShorterOrLongerFileIsFound) {
  const std::string good = write_all_forms();
  for (std::size_t size = 0; size < good.size(); ++size) {
    test::write_text(file_, good.substr(0, size));
    ASSERT_THROW(static_cast<void>(read_cache(file_)), InputError) << "size " << size;
  }
  expect_contains(error_with(good + '\0'), fmt::format("should have {}", good.size()));
}

TEST_F(Cache, OtherVersionIsNamed) {
  std::string bytes = write_all_forms();
  put(bytes, offsetof(CacheHeader, version), kCacheVersion + 1);
  seal(bytes);
  expect_contains(error_with(bytes), "it has version 2, but this program reads version 1");
}

TEST_F(Cache, NotACacheAtAll) {
  expect_contains(error_with("1\t1\t0.5\n"), file_.string() + ": is not a .spdnn file");
  expect_contains(error_with(""), "is not a .spdnn file");
  expect_contains(error_of([&] { static_cast<void>(read_cache(dir_.path())); }), "is a directory");
  expect_contains(error_of([&] { static_cast<void>(read_cache(dir_ / "none")); }), "no such file");
}

TEST_F(Cache, CraftedSizesAreRejected) {
  const std::string good = write_all_forms();
  const std::int64_t huge = std::int64_t{1} << 62;
  const std::vector<std::function<void(CacheMatrix&)>> changes = {
      [&](CacheMatrix& m) { m.rows = huge; },
      [&](CacheMatrix& m) { m.rows = -1; },
      [&](CacheMatrix& m) { m.cols = huge; },
      [&](CacheMatrix& m) { m.nnz = huge; },
      [&](CacheMatrix& m) { m.nnz = -4; },
      [&](CacheMatrix& m) { m.row_nnz = huge; },
      [&](CacheMatrix& m) { m.row_nnz = -2; },
      [&](CacheMatrix& m) { m.rows = 0; },
      [&](CacheMatrix& m) { m.rows = 3; },
      [&](CacheMatrix& m) { m.cols = 3; },
      [&](CacheMatrix& m) { m.has_offsets = 1; },
      [&](CacheMatrix& m) { m.has_offsets = 2; },
      [&](CacheMatrix& m) { m.shared_value = 0; },
      [&](CacheMatrix& m) { m.index_bytes = 4; },
      [&](CacheMatrix& m) { m.index_bytes = 0; },
      [&](CacheMatrix& m) { m.value_bytes = 3; },
      [&](CacheMatrix& m) { m.nnz = 2, m.row_nnz = 1; },
  };
  for (std::size_t change = 0; change < changes.size(); ++change) {
    test::write_text(file_, crafted(good, 0, changes[change]));
    EXPECT_THROW(static_cast<void>(read_cache(file_)), InputError) << "change " << change;
  }
}

TEST_F(Cache, CraftedContentsAreRejected) {
  // One matrix with row offsets, columns and values; each section is changed and sealed again.
  write_cache(file_, {make_csr(3, 4, {0, 2, 2, 3}, {0, 3, 1}, {1.0F, -2.0F, 0.0F})}, "");
  const std::string good = test::read_text(file_);
  const auto with = [&](std::int64_t section, std::int64_t bytes, auto at, auto value) {
    std::string bad = good;
    put(bad, section + at, value);
    return crafted(bad, 0, [&](CacheMatrix& m) {
      m.checksums[static_cast<std::size_t>(section / 64 - 1)] =
          XXH3_64bits(bad.data() + section, static_cast<std::size_t>(bytes));
    });
  };
  expect_contains(error_with(with(64, 32, 8, std::int64_t{1} << 40)), "row offsets of matrix 1");
  expect_contains(error_with(with(64, 32, 8, std::int64_t{-1})), "row offsets of matrix 1");
  expect_contains(error_with(with(64, 32, 24, std::int64_t{2})), "row offsets of matrix 1");
  expect_contains(error_with(with(128, 6, 2, std::uint16_t{4})), "column index");
  expect_contains(error_with(with(192, 12, 4, std::numeric_limits<float>::infinity())),
                  "not finite");
  expect_contains(error_with(with(192, 12, 4, -std::numeric_limits<float>::quiet_NaN())),
                  "not finite");
}

/// Reads every array, so that a sanitizer sees a range that is wrong.
void touch(const std::vector<Csr>& matrices) {
  double sum = 0;
  for (const Csr& matrix : matrices) {
    const CsrView& view = matrix.view();
    for (std::int64_t k = 0; k < view.nnz; ++k) {
      ASSERT_LT(view.col(k), view.cols);
      sum += view.value(k);
    }
  }
  ASSERT_TRUE(std::isfinite(sum));
}

TEST_F(Cache, MutatedFilesGiveInputErrorsAlone) {
  const std::uint64_t seed = 11;
  std::cout << "seed " << seed << '\n';
  std::mt19937_64 random(seed);
  const std::string good = write_all_forms();
  const auto table_at = static_cast<std::uint64_t>(get<CacheHeader>(good, 0).table_at);
  int read = 0;
  for (int round = 0; round < 2000; ++round) {
    std::string bytes = good;
    // Half of the rounds craft: they change the table and make its checksum right.
    const bool craft = round % 2 == 0;
    const std::uint64_t from = craft ? table_at : 0;
    for (std::uint64_t change = 1 + random() % 3; change > 0; --change) {
      const std::uint64_t at = from + random() % (bytes.size() - from);
      bytes[at] =
          random() % 3 == 0 ? static_cast<char>(random() % 256) : static_cast<char>(random() % 5);
    }
    if (random() % 8 == 0) bytes.resize(from + random() % (bytes.size() - from));
    if (craft) {
      put(bytes, offsetof(CacheHeader, file_bytes), static_cast<std::int64_t>(bytes.size()));
      seal(bytes);
    }
    test::write_text(file_, bytes);
    try {
      touch(read_cache(file_));
      ++read;
    } catch (const InputError&) {
    }
  }
  EXPECT_GT(read, 0);
  EXPECT_LT(read, 1000);
}

TEST_F(Cache, ReleaseIsSafeWhileOthersRead) {
  const std::int64_t nnz = 200000;
  std::vector<std::uint32_t> cols(nnz);
  for (std::uint32_t k = 0; k < nnz; ++k) cols[k] = k % 60000;
  const Csr matrix = make_csr(1, 65536, {0, nnz}, cols, {1.0F});
  write_cache(file_, {matrix, matrix}, "");
  // Files above the limit are released after the check, and read again when used.
  const std::vector<Csr> read = CacheFile(file_).matrices({.threads = 2, .resident_limit = 0});
  std::atomic<bool> stop{false};
  std::thread releasing([&] {
    while (!stop) {
      read[0].storage()->release();
      read[0].storage()->prefetch();
    }
  });
  for (int round = 0; round < 50; ++round) {
    for (const Csr& each : read) {
      std::int64_t wrong = 0;
      for (std::int64_t k = 0; k < nnz; ++k) wrong += each.view().col(k) != k % 60000;
      EXPECT_EQ(wrong, 0);
    }
  }
  stop = true;
  releasing.join();
}

TEST_F(Cache, MatricesOutliveTheirFile) {
  write_all_forms();
  const std::vector<Csr> read = read_cache(file_);
  std::filesystem::remove(file_);
  expect_equal(read[0], all_forms()[0]);
}

}  // namespace
}  // namespace spdnn
