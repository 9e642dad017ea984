// What text files may look like, and that the pieces a file is parsed in never show in the result.
#include "tsv.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <iostream>
#include <optional>
#include <random>
#include <set>
#include <string>

#include "reading.hpp"

namespace spdnn {
namespace {

using namespace std::string_view_literals;

using test::Entries;
using test::entries_of;

TsvFormat weights(std::int64_t neurons) {
  return {.first = {"input neuron", neurons},
          .second = {"output neuron", neurons},
          .row_first = false,
          .rows_from_file = false,
          .missing_remedy = "",
          .remedy = ""};
}

TsvFormat images(std::int64_t neurons) {
  return {.first = {"image", 2147483647},
          .second = {"neuron", neurons},
          .row_first = true,
          .rows_from_file = true,
          .missing_remedy = "",
          .remedy = ""};
}

class Tsv : public testing::Test {
 protected:
  Csr read(const std::string& text, const TsvFormat& format, std::int64_t chunk = kTsvChunkBytes,
           int threads = 2) {
    test::write_text(dir_ / "file.tsv", text);
    return TsvReader(format, threads, chunk).read(dir_ / "file.tsv");
  }
  test::ScratchDir dir_;
};

TEST_F(Tsv, LineBecomesRowOutputColumnInput) {
  const Csr matrix = read("3\t1\t0.5\n1\t2\t-0.25\n", weights(4));
  EXPECT_EQ(matrix.rows(), 4);
  EXPECT_EQ(matrix.cols(), 4);
  EXPECT_EQ(entries_of(matrix.view()), (Entries{{0, 2, 0.5}, {1, 0, -0.25}}));
}

TEST_F(Tsv, ImagesAreAsManyAsTheLargestId) {
  const Csr matrix = read("2\t3\t1\n4\t1\t1\n", images(4));
  EXPECT_EQ(matrix.rows(), 4);
  EXPECT_EQ(entries_of(matrix.view()), (Entries{{1, 2, 1.0}, {3, 0, 1.0}}));
}

TEST_F(Tsv, SpacingIsFree) {
  const Entries expected = {{0, 0, 0.5}, {0, 1, 0.5}, {1, 1, 0.5}};
  for (const char* const text : {
           "1\t1\t0.5\n2\t1\t0.5\n2\t2\t0.5\n",         // as the challenge has it
           "1 1 0.5\n2 1 0.5\n2 2 0.5\n",               // spaces
           "1\t1\t0.5\r\n2\t1\t0.5\r\n2\t2\t0.5\r\n",   // CRLF
           "1\t1\t0.5\n2\t1\t0.5\n2\t2\t0.5",           // no newline at the end
           "1\t1\t0.5\r\n2\t1\t0.5\r\n2\t2\t0.5\r",     // half of one
           "1\t1\t0.5\n2\t1\t0.5\n2\t2\t0.5\n\n \r\n",  // blank lines at the end
           "  1 \t 1   0.5 \n\t2\t1\t0.5\t\n002 2 0.5\n",
       }) {
    for (const std::int64_t chunk : {1, 5, 1000}) {
      EXPECT_EQ(entries_of(read(text, weights(2), chunk).view()), expected) << text;
    }
  }
}

TEST_F(Tsv, NumbersInAnyNotation) {
  const Csr matrix = read(
      "1\t1\t6.25e-02\n2\t1\t+.5\n3\t1\t-1E2\n4\t1\t0.1000000000000000055511151231257827\n"
      "5\t1\t1e-60\n6\t1\t3.4028234e38\n7\t1\t-0\n",
      weights(8));
  const Entries entries = entries_of(matrix.view());
  const std::vector<float> expected = {0.0625F, 0.5F, -100.0F, 0.1F, 0.0F, 3.4028234e38F, -0.0F};
  ASSERT_EQ(entries.size(), expected.size());
  for (std::size_t k = 0; k < expected.size(); ++k) {
    EXPECT_EQ(std::get<2>(entries[k]), static_cast<double>(expected[k])) << k;
  }
}

TEST_F(Tsv, SmallestFormIsFound) {
  const Csr equal = read("1\t1\t0.5\n2\t2\t0.5\n", weights(2));
  EXPECT_EQ(equal.view().row_offsets, nullptr);
  EXPECT_EQ(equal.view().row_nnz, 1);
  EXPECT_TRUE(equal.view().shared_value);
  EXPECT_EQ(equal.view().index_type, DType::u16);
  const Csr varied = read("1\t1\t0.5\n2\t2\t0.25\n1\t2\t0.5\n", weights(65537));
  EXPECT_NE(varied.view().row_offsets, nullptr);
  EXPECT_FALSE(varied.view().shared_value);
  EXPECT_EQ(varied.view().index_type, DType::u32);
  EXPECT_EQ(read("65536\t1\t1\n", weights(65536)).view().index_type, DType::u16);
  EXPECT_EQ(read("65536\t1\t1\n", weights(65536)).view().col(0), 65535);
  EXPECT_FALSE(read("1\t1\t0\n2\t2\t-0\n", weights(2)).view().shared_value);
}

/// A random matrix as text, with the entries it stands for.
struct RandomText {
  Entries expected;
  std::string text;
};

RandomText random_text(std::mt19937_64& random, std::int64_t neurons, bool row_first) {
  const auto below = [&](std::uint64_t limit) {
    return static_cast<std::int64_t>(random() % limit);
  };
  std::set<std::pair<std::int64_t, std::int64_t>> places;
  const std::int64_t count = 1 + below(300);
  while (std::ssize(places) < count) {
    places.emplace(below(static_cast<std::uint64_t>(neurons)),
                   below(static_cast<std::uint64_t>(neurons)));
  }
  RandomText result;
  const std::int64_t kinds = 1 + below(3);
  for (const auto& [row, col] : places) {
    result.expected.emplace_back(row, col,
                                 static_cast<double>(below(static_cast<std::uint64_t>(kinds))) / 8);
  }
  Entries lines = result.expected;
  const auto by_column = [](const auto& a, const auto& b) {
    return std::tie(std::get<1>(a), std::get<0>(a)) < std::tie(std::get<1>(b), std::get<0>(b));
  };
  if (const auto order = below(3); order == 1)
    std::sort(lines.begin(), lines.end(), by_column);
  else if (order == 2)
    std::shuffle(lines.begin(), lines.end(), random);
  for (const auto& [row, col, value] : lines) {
    result.text += fmt::format("{}{}{}{}{}{}", (row_first ? row : col) + 1,
                               below(8) == 0 ? " " : "\t", (row_first ? col : row) + 1,
                               below(8) == 0 ? " \t" : "\t", value, below(16) == 0 ? "\r\n" : "\n");
  }
  if (below(2) == 0) result.text.pop_back();
  return result;
}

TEST_F(Tsv, ChunksNeverShow) {
  const std::uint64_t seed = 20240611;
  std::cout << "seed " << seed << '\n';
  std::mt19937_64 random(seed);
  for (int round = 0; round < 60; ++round) {
    const std::int64_t neurons = round % 3 == 0 ? 70000 : 30;
    const bool row_first = round % 2 == 0;
    const RandomText data = random_text(random, neurons, row_first);
    const TsvFormat format = row_first ? images(neurons) : weights(neurons);
    for (const std::int64_t chunk : {1, 2, 7, 13, 64, 1000, 1 << 20}) {
      const Csr matrix = read(data.text, format, chunk, 1 + round % 3);
      ASSERT_EQ(entries_of(matrix.view()), data.expected)
          << "round " << round << " chunk " << chunk;
    }
  }
}

/// The matrix of a text, or the error it gives.
struct Outcome {
  Entries entries;
  std::int64_t rows = 0;
  std::string error;
  bool operator==(const Outcome&) const = default;
};

TEST_F(Tsv, MutatedTextGivesInputErrorsAloneAndTheSameForEveryChunkSize) {
  const std::uint64_t seed = 7;
  std::cout << "seed " << seed << '\n';
  std::mt19937_64 random(seed);
  const std::string_view alphabet = "0123456789\t\t  \r\n\n.-+einfa\0\xff"sv;
  int good = 0;
  for (int round = 0; round < 2000; ++round) {
    std::string text;
    for (int line = 0; line < 12; ++line) {
      text += fmt::format("{}\t{}\t0.0625\n", 1 + random() % 40, 1 + line / 3);
    }
    for (std::uint64_t change = random() % 4; change > 0; --change) {
      const auto at = static_cast<std::ptrdiff_t>(random() % text.size());
      const char byte = alphabet[random() % alphabet.size()];
      switch (random() % 4) {
        case 0: text[static_cast<std::size_t>(at)] = byte; break;
        case 1: text.insert(text.begin() + at, byte); break;
        case 2: text.erase(text.begin() + at); break;
        default: text.resize(static_cast<std::size_t>(at) + 1);
      }
    }
    std::optional<Outcome> first;
    for (const std::int64_t chunk :
         {std::int64_t{1} << 20, 1 + static_cast<std::int64_t>(random() % 40)}) {
      Outcome outcome;
      try {
        const Csr matrix = read(text, round % 2 == 0 ? weights(40) : images(40), chunk);
        outcome = {entries_of(matrix.view()), matrix.rows(), ""};
        ++good;
      } catch (const InputError& error) {
        outcome.error = error.what();
      }
      if (!first) first = outcome;
      ASSERT_EQ(outcome, *first) << "round " << round << " chunk " << chunk << '\n' << text;
    }
  }
  EXPECT_GT(good, 100);
  EXPECT_LT(good, 3900);
}

}  // namespace
}  // namespace spdnn
