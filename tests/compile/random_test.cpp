// Thousands of random networks with planted redundancy: the compiled network computes the same, and
// what was planted is gone.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "networks.hpp"

namespace spdnn {
namespace {

using test::compile_with;
using test::Evaluated;
using test::kIdentity;
using test::kRelu;
using test::linear;
using test::Row;

constexpr int kNetworks = 10'000;

/// What a neuron was planted as.
enum class Kind { plain, duplicate, zero, constant, unread };

struct Planted {
  Model model;
  std::vector<std::vector<Kind>> kinds;  ///< by layer and neuron
  std::int64_t identities = 0;           ///< layers that only pass values on
};

/// Draws networks of a few layers and a dozen neurons each.
class Generator {
 public:
  explicit Generator(std::uint64_t seed) : random_(seed) {}

  std::uint64_t below(std::uint64_t n) { return random_() % n; }
  float normal() { return std::normal_distribution<float>()(random_); }

  Planted network() {
    Planted planted;
    std::vector<bool> readable(2 + below(10), true);
    bool nonnegative = true;
    std::vector<SparseLinear> layers;
    const std::uint64_t depth = 1 + below(5);
    for (std::uint64_t l = 0; l < depth; ++l) {
      const bool last = l + 1 == depth;
      std::vector<Kind>& kinds = planted.kinds.emplace_back();
      layers.push_back(layer(readable, nonnegative, last, kinds));
      readable.clear();
      for (const Kind kind : kinds) readable.push_back(kind != Kind::unread);
      nonnegative = layers.back().activation.lower == 0.0F;
      if (!last && below(6) == 0) {
        layers.push_back(identity(layers.back(), readable));
        planted.kinds.emplace_back();
        ++planted.identities;
      }
    }
    planted.model = test::model_of(std::move(layers));
    return planted;
  }

  std::vector<float> image(std::int64_t size) {
    std::vector<float> pixels(static_cast<std::size_t>(size));
    const bool binary = below(2) == 0;
    for (float& pixel : pixels) {
      pixel = below(3) == 0 ? 0.0F
              : binary      ? 1.0F
                            : std::uniform_real_distribution<float>(0.0F, 1.0F)(random_);
    }
    return pixels;
  }

 private:
  SparseLinear layer(const std::vector<bool>& readable, bool nonnegative, bool last,
                     std::vector<Kind>& kinds) {
    const Epilogue choices[] = {kIdentity, kRelu, {0.0F, 4.0F}, {0.0F, 32.0F}, {-1.0F, 2.0F}};
    const Epilogue h = choices[below(5)];
    const bool shared = below(3) == 0;
    const std::uint64_t width = 1 + below(12);
    std::vector<Row> rows;
    std::vector<float> bias;
    for (std::uint64_t j = 0; j < width; ++j) {
      kinds.push_back(j == 0 ? Kind::plain : static_cast<Kind>(below(9) < 5 ? 0 : below(5)));
      if (last && kinds.back() == Kind::unread) kinds.back() = Kind::plain;
      if (kinds.back() == Kind::zero && (h.lower != 0.0F || h.upper <= 0.0F)) {
        kinds.back() = Kind::plain;
      }
      add_row(kinds.back(), readable, nonnegative, shared, h, rows, bias);
    }
    return test::layer_of(std::ssize(readable), rows, bias, h);
  }

  /// A layer that passes the values of `before` on, shuffled; also those that nobody is to read.
  SparseLinear identity(const SparseLinear& before, std::vector<bool>& readable) {
    std::vector<std::uint32_t> from(readable.size());
    std::iota(from.begin(), from.end(), 0U);
    std::shuffle(from.begin(), from.end(), random_);
    std::vector<Row> rows;
    std::vector<bool> moved;
    for (const std::uint32_t col : from) {
      rows.push_back({{col, 1.0F}});
      moved.push_back(readable[col]);
    }
    readable = std::move(moved);
    const Epilogue wider = {before.activation.lower, 2.0F * before.activation.upper};
    return test::layer_of(std::ssize(from), rows, {0.0F}, below(2) == 0 ? wider : kIdentity);
  }

  /// Appends a row of a kind; a duplicate copies row 0, which is plain.
  void add_row(Kind kind, const std::vector<bool>& readable, bool nonnegative, bool shared,
               const Epilogue& h, std::vector<Row>& rows, std::vector<float>& bias) {
    if (kind == Kind::duplicate) {
      rows.push_back(rows.front());
      if (below(2) == 0) std::shuffle(rows.back().begin(), rows.back().end(), random_);
      bias.push_back(bias.front());
      return;
    }
    Row row;
    if (kind != Kind::constant || h.upper < 100.0F) row = plain_row(readable, shared);
    float b = below(4) == 0 ? 0.0F : normal();
    if (kind == Kind::zero) {
      // Either far below every sum, or no positive term at all.
      if (nonnegative && below(2) == 0) {
        for (auto& [col, value] : row) value = -std::abs(value);
        b = -std::abs(b);
      } else {
        b = -1e9F;
      }
    }
    if (kind == Kind::constant && h.upper < 100.0F) b = 1e9F;
    rows.push_back(std::move(row));
    bias.push_back(b);
  }

  Row plain_row(const std::vector<bool>& readable, bool shared) {
    std::vector<std::uint32_t> cols;
    for (std::uint32_t c = 0; c < readable.size(); ++c) {
      if (readable[c] && below(3) > 0) cols.push_back(c);
    }
    if (below(2) == 0) std::shuffle(cols.begin(), cols.end(), random_);
    if (below(12) == 0) cols.clear();
    Row row;
    for (const std::uint32_t col : cols) {
      row.emplace_back(col, shared ? 0.25F : below(20) == 0 ? 0.0F : normal());
    }
    return row;
  }

  std::mt19937_64 random_;
};

/// Runs `body(planted, generator)` for many seeds, each named where it fails.
template <class Body>
void for_many(std::uint64_t first_seed, const Body& body) {
  for (std::uint64_t seed = first_seed; seed < first_seed + kNetworks; ++seed) {
    SCOPED_TRACE(fmt::format("seed {}", seed));
    Generator generator(seed);
    const Planted planted = generator.network();
    body(planted, generator);
    if (testing::Test::HasFailure()) return;
  }
}

/// Neurons of a layer that the exact passes, or all of them, must leave out.
std::int64_t removable(const std::vector<Kind>& kinds, bool exact, bool last) {
  return std::count_if(kinds.begin(), kinds.end(), [&](Kind kind) {
    switch (kind) {
      case Kind::plain: return false;
      case Kind::zero:
      case Kind::unread: return true;
      case Kind::duplicate: return !exact;
      case Kind::constant: return !exact && !last;
    }
    return false;
  });
}

void expect_found(const Planted& planted, const CompiledModel& compiled, bool exact) {
  EXPECT_LE(compiled.model.layers.size(), planted.kinds.size() - planted.identities);
  for (std::size_t c = 0; c < compiled.layers.size(); ++c) {
    // A layer stands for those before it, the last one for any; then which is its own is not told.
    if (c + 1 == compiled.layers.size() && compiled.layers[c].size() > 1) continue;
    const std::int64_t l = compiled.layers[c].end - 1;
    const bool last = c + 1 == compiled.layers.size();
    const std::int64_t rows = linear(planted.model, l).outputs();
    EXPECT_LE(linear(compiled.model, static_cast<std::int64_t>(c)).outputs(),
              std::max<std::int64_t>(rows - removable(planted.kinds[l], exact, last), 1))
        << "layer " << l + 1;
  }
}

bool any_nonzero(const std::vector<float>& values) {
  return std::any_of(values.begin(), values.end(), [](float v) { return v != 0.0F; });
}

TEST(Random, ExactPassesKeepEveryBit) {
  std::int64_t smaller = 0;
  for_many(1, [&](const Planted& planted, Generator& generator) {
    const CompiledModel compiled = compile_with(planted.model, "safe");
    EXPECT_TRUE(compiled.report.exact);
    validate(compiled.model);
    expect_found(planted, compiled, true);
    for (int i = 0; i < 4; ++i) {
      const std::vector<float> image = generator.image(planted.model.inputs());
      const std::vector<float> expected = test::evaluate(planted.model, image).canonical;
      const std::vector<float> got = test::evaluate(compiled.model, image).canonical;
      EXPECT_EQ(expand_outputs(compiled, got), expected);
      EXPECT_EQ(any_nonzero(got), any_nonzero(expected));
    }
    smaller += compiled.report.after.nonzeros < compiled.report.before.nonzeros ? 1 : 0;
  });
  EXPECT_GT(smaller, kNetworks / 4);
}

TEST(Random, AllPassesStayWithinTheFloat64Bound) {
  for_many(1'000'001, [&](const Planted& planted, Generator& generator) {
    const CompiledModel compiled = compile_with(planted.model, "full");
    validate(compiled.model);
    expect_found(planted, compiled, false);
    for (int i = 0; i < 4; ++i) {
      const std::vector<float> image = generator.image(planted.model.inputs());
      const Evaluated expected = test::evaluate(planted.model, image);
      const std::vector<float> got =
          expand_outputs(compiled, test::evaluate(compiled.model, image).canonical);
      ASSERT_EQ(got.size(), expected.exact.size());
      for (std::size_t o = 0; o < got.size(); ++o) {
        EXPECT_LE(std::abs(static_cast<double>(got[o]) - expected.exact[o]), expected.bound[o])
            << "output " << o;
      }
    }
  });
}

/// Renumbered neurons compute what they did, alone and among the other passes, and a second sweep
/// finds nothing to do.
TEST(Random, ReorderingKeepsEveryBit) {
  std::int64_t moved = 0;
  for_many(3'000'001, [&](const Planted& planted, Generator& generator) {
    const CompiledModel safe = compile_with(planted.model, "reorder,identity,zeros,unread");
    EXPECT_TRUE(safe.report.exact);
    validate(safe.model);
    expect_found(planted, safe, true);
    const CompiledModel alone = compile_with(planted.model, "reorder");
    EXPECT_TRUE(test::same_arrays(alone.model, compile_with(alone.model, "reorder").model));
    const std::vector<float> image = generator.image(planted.model.inputs());
    const std::vector<float> expected = test::evaluate(planted.model, image).canonical;
    EXPECT_EQ(test::evaluate(alone.model, image).canonical, expected);
    EXPECT_EQ(expand_outputs(safe, test::evaluate(safe.model, image).canonical), expected);
    moved += test::same_arrays(alone.model, planted.model) ? 0 : 1;
  });
  EXPECT_GT(moved, kNetworks / 4);
}

/// After all passes, no layer has two rows that are equal, in whatever order, nor a neuron that
/// nobody reads.
TEST(Random, NoRedundancyIsLeft) {
  for_many(2'000'001, [&](const Planted& planted, Generator&) {
    const CompiledModel compiled = compile_with(planted.model, "full");
    std::vector<bool> read;
    for (std::int64_t l = std::ssize(compiled.model.layers); l-- > 0;) {
      const SparseLinear& layer = linear(compiled.model, l);
      const CsrView& w = layer.weights.view();
      std::vector<std::pair<Row, float>> rows;
      std::vector<bool> reads(static_cast<std::size_t>(w.cols));
      for (std::int64_t row = 0; row < w.rows; ++row) {
        Row entries;
        for (std::int64_t k = w.row_begin(row); k < w.row_begin(row + 1); ++k) {
          entries.emplace_back(static_cast<std::uint32_t>(w.col(k)),
                               static_cast<float>(w.value(k)));
          reads[static_cast<std::size_t>(w.col(k))] = true;
        }
        std::sort(entries.begin(), entries.end());
        rows.emplace_back(entries, layer.bias[layer.bias.size() == 1 ? 0 : row]);
        EXPECT_TRUE(read.empty() || read[row] || w.rows == 1) << "layer " << l + 1;
      }
      std::sort(rows.begin(), rows.end());
      EXPECT_EQ(std::adjacent_find(rows.begin(), rows.end()), rows.end()) << "layer " << l + 1;
      read = std::move(reads);
    }
  });
}

}  // namespace
}  // namespace spdnn
