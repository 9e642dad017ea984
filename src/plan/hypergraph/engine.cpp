// Hypergraph partitions of a network: limits, phases, several searches, and the best of all.
#include "engine.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <future>
#include <numeric>

#include "multilevel.hpp"

namespace spdnn {
namespace hypergraph {

namespace {

/// Layers that are partitioned at once, and weights of them: more don't fit the caches and take
/// longer, and what they add to what is known of who reads what saves no words any more.
constexpr std::int64_t kPhaseLayers = 12;
constexpr std::int64_t kPhaseWeights = std::int64_t{1} << 24;
/// A phase of more weights is searched once.
constexpr std::int64_t kManyWeights = std::int64_t{1} << 21;

bool within(const Traffic& traffic, const Limits& limits) {
  for (std::int64_t l = 0; l < limits.layers(); ++l) {
    for (int p = 0; p < limits.parts(); ++p) {
      if (traffic.layers[l].nonzeros[p] > limits.most(l, p)) return false;
    }
  }
  return true;
}

}  // namespace

Limits limits_of(const Model& model, const HypergraphRequest& request) {
  const Traffic blocks = count_traffic(model, proportional_partition(model, request.speeds));
  const double all = std::accumulate(request.speeds.begin(), request.speeds.end(), 0.0);
  const int parts = static_cast<int>(std::ssize(request.speeds));
  Limits limits(std::ssize(blocks.layers), parts);
  for (std::int64_t l = 0; l < limits.layers(); ++l) {
    const std::vector<std::int64_t>& nonzeros = blocks.layers[l].nonzeros;
    const std::int64_t sum = std::accumulate(nonzeros.begin(), nonzeros.end(), std::int64_t{0});
    for (int p = 0; p < parts; ++p) {
      const double share = static_cast<double>(sum) * request.speeds[p] / all;
      limits.most(l, p) =
          std::max(static_cast<std::int64_t>(share * (1.0 + request.imbalance)), nonzeros[p]);
    }
  }
  return limits;
}

void check(const HypergraphRequest& request) {
  check_speeds(request.speeds);
  if (!(request.imbalance >= 0.0) || request.imbalance > 1.0) {
    throw InputError(fmt::format("imbalance {}; give 0 to 1", request.imbalance));
  }
  if (!(request.effort > 0.0) || request.effort > 1000.0) {
    throw InputError(fmt::format("effort {}; give above 0, to 1000", request.effort));
  }
  if (request.searches < 1 || request.searches > 1000) {
    throw InputError(fmt::format("{} searches; give 1 to 1000", request.searches));
  }
}

Partition best_of(const Model& model, const HypergraphRequest& request, const Limits& limits,
                  Partition found) {
  std::array<Partition, 3> candidates = {std::move(found), cyclic_partition(model, limits.parts()),
                                         proportional_partition(model, request.speeds)};
  Partition* best = nullptr;
  std::int64_t least = 0;
  for (Partition& candidate : candidates) {
    const Traffic traffic = count_traffic(model, candidate);
    if (!within(traffic, limits) || (best != nullptr && traffic.words >= least)) continue;
    best = &candidate;
    least = traffic.words;
  }
  return std::move(*best);  // the blocks are within the limits
}

Partition partition_of(const Model& model, int parts, std::span<const std::uint32_t> owners) {
  Partition partition{model_key(model), {}};
  for (const CsrView& matrix : partitioned_weights(model)) {
    const auto rows = static_cast<std::size_t>(matrix.rows);
    partition.layers.push_back(partition_by_owners(owners.first(rows), parts));
    owners = owners.subspan(rows);
  }
  return partition;
}

std::vector<std::uint32_t> best_search(const Prepared& prepared, const Limits& limits,
                                       const HypergraphRequest& request) {
  const Hypergraph& graph = prepared.levels.front().graph;
  const int searches = std::ssize(graph.pins) > kManyWeights ? 1 : request.searches;
  std::vector<std::uint32_t> best;
  double least = 0.0;
  for (int first = 0; first < searches; first += std::max(request.threads, 1)) {
    std::vector<std::future<std::vector<std::uint32_t>>> found;
    for (int s = first; s < std::min(searches, first + std::max(request.threads, 1)); ++s) {
      const Search search{request.seed + static_cast<std::uint64_t>(s) * 0x9E3779B97F4A7C15U,
                          request.effort};
      found.push_back(std::async(std::launch::async, [&prepared, &limits, search] {
        return search_parts(prepared, limits, search);
      }));
    }
    for (auto& future : found) {
      std::vector<std::uint32_t> parts = future.get();
      const double worth = worth_of(graph, limits, parts);
      if (!best.empty() && worth >= least) continue;
      least = worth;
      best = std::move(parts);
    }
  }
  return best;
}

namespace {

/// The limits of some of the layers.
Limits limits_of_range(const Limits& all, Range range) {
  Limits limits(range.size(), all.parts());
  for (std::int64_t l = 0; l < range.size(); ++l) {
    for (int p = 0; p < all.parts(); ++p) limits.most(l, p) = all.most(range.begin + l, p);
  }
  return limits;
}

/// Owners of the rows of some layers.
std::vector<std::uint32_t> search_phase(std::span<const CsrView> weights, Range range,
                                        std::span<const std::uint32_t> before, const Limits& limits,
                                        const HypergraphRequest& request) {
  const Prepared prepared = prepare(weights, range, before, limits.parts());
  std::vector<std::uint32_t> parts = best_search(prepared, limits, request);
  parts.erase(parts.begin(), parts.begin() + prepared.levels.front().graph.fixed);
  return parts;
}

/// How many layers from `first` on are partitioned at once.
std::int64_t phase_from(std::span<const CsrView> weights, std::int64_t first, std::int64_t asked) {
  const std::int64_t layers = asked > 0 ? asked : kPhaseLayers;
  std::int64_t end = first + 1;
  std::int64_t sum = weights[first].nnz;
  while (end < std::ssize(weights) && end - first < layers) {
    sum += weights[end].nnz;
    if (asked == 0 && sum > kPhaseWeights) break;
    ++end;
  }
  return end - first;
}

}  // namespace
}  // namespace hypergraph

Partition hypergraph_partition(const Model& model, const HypergraphRequest& request) {
  hypergraph::check(request);
  const hypergraph::Limits limits = hypergraph::limits_of(model, request);
  const std::vector<CsrView> weights = partitioned_weights(model);
  std::vector<std::uint32_t> owners;
  std::size_t before = 0;  // where the owners of the last phase's last layer begin
  for (std::int64_t first = 0; first < std::ssize(weights);) {
    const std::int64_t count = hypergraph::phase_from(weights, first, request.phase_layers);
    const Range range{first, first + count};
    const std::vector<std::uint32_t> parts =
        hypergraph::search_phase(weights, range, std::span(owners).subspan(before),
                                 hypergraph::limits_of_range(limits, range), request);
    owners.insert(owners.end(), parts.begin(), parts.end());
    before = owners.size() - static_cast<std::size_t>(weights[range.end - 1].rows);
    first = range.end;
  }
  return hypergraph::best_of(model, request, limits,
                             hypergraph::partition_of(model, limits.parts(), owners));
}

}  // namespace spdnn
