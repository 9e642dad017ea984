// Which vertices become one: rows that read the same, then neighbours.
#include <xxhash.h>

#include <algorithm>
#include <numeric>
#include <unordered_map>

#include "hypergraph.hpp"
#include "spdnn/random.hpp"

namespace spdnn::hypergraph {
namespace {

/// Pins of a net past which it says little about who belongs together and costs much to look at.
constexpr std::int64_t kLargeNet = 256;
/// Vertices that meet in one level: more would leave too few levels to refine on.
constexpr std::int64_t kMostMembers = 4;

/// A row's columns in ascending order, as bytes to hash.
std::uint64_t hash_of_row(const CsrView& matrix, std::int64_t row,
                          std::vector<std::uint32_t>& cols) {
  cols.clear();
  for (std::int64_t k = matrix.row_begin(row); k < matrix.row_begin(row + 1); ++k) {
    cols.push_back(static_cast<std::uint32_t>(matrix.col(k)));
  }
  if (!std::is_sorted(cols.begin(), cols.end())) std::sort(cols.begin(), cols.end());
  return XXH3_64bits(cols.data(), cols.size() * sizeof(std::uint32_t));
}

/// Clusters under way: their weights, and who is in which.
class Clusters {
 public:
  Clusters(const Hypergraph& graph, std::span<const std::int64_t> caps)
      : graph_(graph), caps_(caps), of_(static_cast<std::size_t>(graph.vertices()), kNone) {}

  static constexpr std::uint32_t kNone = ~std::uint32_t{0};
  [[nodiscard]] std::uint32_t of(std::int64_t v) const { return of_[v]; }
  [[nodiscard]] std::int64_t members(std::uint32_t c) const { return members_[c]; }
  /// Whether `v` fits beside what cluster `c` has of its layers.
  [[nodiscard]] bool fits(std::int64_t v, std::uint32_t c) const {
    const auto sums = [&](const Weight& own) {
      const auto at = std::find_if(weights_[c].begin(), weights_[c].end(),
                                   [&](const Weight& w) { return w.layer == own.layer; });
      return at == weights_[c].end() || at->nonzeros + own.nonzeros <= caps_[own.layer];
    };
    const auto own = graph_.weights_of(v);
    return std::all_of(own.begin(), own.end(), sums);
  }
  /// Whether the vertices fit beside each other.
  [[nodiscard]] bool fit(std::int64_t u, std::int64_t v) const {
    const auto of_u = graph_.weights_of(u);
    auto at = of_u.begin();
    for (const Weight& own : graph_.weights_of(v)) {
      at = std::find_if(at, of_u.end(), [&](const Weight& w) { return w.layer >= own.layer; });
      if (at == of_u.end()) break;
      if (at->layer == own.layer && at->nonzeros + own.nonzeros > caps_[own.layer]) return false;
    }
    return true;
  }
  std::uint32_t open(std::int64_t v) {
    const auto own = graph_.weights_of(v);
    weights_.emplace_back(own.begin(), own.end());
    members_.push_back(1);
    return of_[v] = static_cast<std::uint32_t>(weights_.size() - 1);
  }
  void join(std::int64_t v, std::uint32_t c) {
    of_[v] = c;
    ++members_[c];
    for (const Weight& own : graph_.weights_of(v)) {
      const auto at = std::find_if(weights_[c].begin(), weights_[c].end(),
                                   [&](const Weight& w) { return w.layer == own.layer; });
      if (at == weights_[c].end()) {
        weights_[c].push_back(own);
      } else {
        at->nonzeros += own.nonzeros;
      }
    }
  }
  [[nodiscard]] Clustering take() && { return {std::move(of_), std::ssize(members_)}; }

 private:
  const Hypergraph& graph_;
  std::span<const std::int64_t> caps_;
  std::vector<std::uint32_t> of_;
  std::vector<std::int64_t> members_;
  std::vector<std::vector<Weight>> weights_;
};

/// What a vertex shares with each of its neighbours.
class Ratings {
 public:
  explicit Ratings(const Hypergraph& graph)
      : graph_(graph), rating_(static_cast<std::size_t>(graph.vertices())) {}

  /// The neighbours of `v`, with Σ words / (pins − 1) over the nets they share.
  void look_around(std::int64_t v) {
    for (const std::uint32_t u : neighbours_) rating_[u] = 0.0F;
    neighbours_.clear();
    for (const std::uint32_t net : graph_.nets_of(v)) {
      const auto pins = graph_.pins_of(net);
      if (std::ssize(pins) > kLargeNet) continue;
      const auto words = static_cast<float>(graph_.net_words[net]);
      const float share = words / static_cast<float>(pins.size() - 1);
      for (const std::uint32_t u : pins) {
        if (rating_[u] == 0.0F) neighbours_.push_back(u);
        rating_[u] += share;
      }
    }
  }
  [[nodiscard]] const std::vector<std::uint32_t>& neighbours() const { return neighbours_; }
  [[nodiscard]] float of(std::uint32_t u) const { return rating_[u]; }

 private:
  const Hypergraph& graph_;
  std::vector<float> rating_;
  std::vector<std::uint32_t> neighbours_;
};

}  // namespace

Clustering cluster_twins(const Hypergraph& graph, std::span<const CsrView> weights, Range range,
                         std::span<const std::int64_t> caps) {
  Clusters clusters(graph, caps);
  std::int64_t v = 0;
  for (; v < graph.fixed; ++v) clusters.open(v);
  std::vector<std::uint32_t> cols;
  for (std::int64_t l = range.begin; l < range.end; ++l) {
    std::unordered_map<std::uint64_t, std::uint32_t> last;  // cluster, by hash of the columns
    for (std::int64_t row = 0; row < weights[l].rows; ++row, ++v) {
      // Rows of equal hash need not be equal: a vertex of two kinds is no error, and next to never.
      const auto [known, fresh] = last.try_emplace(hash_of_row(weights[l], row, cols));
      if (!fresh && clusters.fits(v, known->second)) {
        clusters.join(v, known->second);
      } else {
        known->second = clusters.open(v);
      }
    }
  }
  return std::move(clusters).take();
}

Clustering cluster_within(std::span<const std::uint32_t> cluster,
                          std::span<const std::uint32_t> parts, std::int64_t fixed) {
  Clustering pieces;
  std::unordered_map<std::uint64_t, std::uint32_t> known;  // piece, by cluster and part
  for (std::size_t v = 0; v < cluster.size(); ++v) {
    const std::uint64_t key = std::uint64_t{cluster[v]} << 32U | parts[v];
    const auto next = static_cast<std::uint32_t>(pieces.count);
    pieces.cluster.push_back(
        std::ssize(pieces.cluster) < fixed ? next : known.try_emplace(key, next).first->second);
    if (pieces.cluster.back() == next) ++pieces.count;
  }
  return pieces;
}

Clustering cluster_neighbours(const Hypergraph& graph, std::span<const std::int64_t> caps,
                              std::span<const std::uint32_t> parts, std::uint64_t seed) {
  Clusters clusters(graph, caps);
  for (std::int64_t v = 0; v < graph.fixed; ++v) clusters.open(v);
  Ratings ratings(graph);
  const auto count = static_cast<std::uint32_t>(graph.vertices());
  Random random(seed, 1);
  for (const std::uint32_t v : random_permutation(count, Random(seed, 0))) {
    if (clusters.of(v) != Clusters::kNone) continue;
    ratings.look_around(v);
    std::uint32_t best = v;
    double most = 0.0;
    for (const std::uint32_t u : ratings.neighbours()) {
      if (u == v || u < graph.fixed) continue;
      if (!parts.empty() && parts[u] != parts[v]) continue;
      // Ties are broken at random: an order would favour one layer.
      const double rating = ratings.of(u) * random.between(1.0, 1.01);
      if (rating <= most) continue;
      const std::uint32_t c = clusters.of(u);
      const bool joins = c != Clusters::kNone;
      if (joins && clusters.members(c) >= kMostMembers) continue;
      if (joins ? !clusters.fits(v, c) : !clusters.fit(u, v)) continue;
      best = u;
      most = rating;
    }
    if (best == v) {
      clusters.open(v);
      continue;
    }
    if (clusters.of(best) == Clusters::kNone) clusters.open(best);
    clusters.join(v, clusters.of(best));
  }
  return std::move(clusters).take();
}

}  // namespace spdnn::hypergraph
