// Comparisons of a result with the truth and with the bars its configuration sets.
#include "verify.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <random>

namespace spdnn {
namespace {

constexpr std::size_t kMostNamed = 5;

template <class Kernel>
bool is_canonical(std::span<const Kernel> table, const std::string& name, DeviceKind kind) {
  return std::any_of(table.begin(), table.end(), [&](const Kernel& kernel) {
    return kernel.device == kind && kernel.name == name && kernel.order == Order::canonical;
  });
}

}  // namespace

void compare_categories(const Sources& sources, RunResult& result) {
  if (!sources.truth) return;
  std::vector<std::int64_t> missing;
  std::vector<std::int64_t> extra;
  const std::vector<std::int64_t>& truth = *sources.truth;
  const std::vector<std::int64_t>& found = result.categories;
  std::set_difference(truth.begin(), truth.end(), found.begin(), found.end(),
                      std::back_inserter(missing));
  std::set_difference(found.begin(), found.end(), truth.begin(), truth.end(),
                      std::back_inserter(extra));
  result.categories_match = missing.empty() && extra.empty();
  const auto name = [&](const std::vector<std::int64_t>& ids, const char* what) {
    if (ids.empty()) return;
    std::string list;
    for (std::size_t i = 0; i < std::min(ids.size(), kMostNamed); ++i) {
      list += fmt::format("{}{}", i == 0 ? "" : ", ", ids[i] + 1);
    }
    if (ids.size() > kMostNamed) list += fmt::format(" and {} more", ids.size() - kMostNamed);
    result.failures.push_back(
        fmt::format("categories: {} {} ({})", what, list, sources.truth_file.string()));
  };
  name(missing, "in the truth file, but not found:");
  name(extra, "found, but not in the truth file:");
}

std::vector<std::int64_t> choose_sample(std::int64_t images, std::int64_t count,
                                        std::uint64_t seed) {
  // Each image in turn, with the chance that gives all sets of that size the same (Knuth, The Art
  // of Computer Programming, 3.4.2, algorithm S).
  std::mt19937_64 random(seed);
  std::vector<std::int64_t> ids;
  std::int64_t wanted = std::min(count, images);
  for (std::int64_t i = 0; wanted > 0; ++i) {
    if (static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(images - i)) >= wanted) {
      continue;
    }
    ids.push_back(i);
    --wanted;
  }
  return ids;
}

bool is_canonical(const Plan& plan, const Profile& profile) {
  for (const Segment& segment : plan.segments) {
    for (std::size_t rank = 0; rank < segment.kernels.size(); ++rank) {
      const std::vector<std::string>& names = segment.kernels[rank];
      const DeviceKind kind = profile.ranks[rank].device.kind;
      const std::string& chain = segment.chains[rank];
      const bool canonical =
          chain.empty() ? std::all_of(names.begin(), names.end(),
                                      [&](const std::string& name) {
                                        return is_canonical(spmm_kernels<float>(), name, kind) ||
                                               is_canonical(window_kernels<float>(), name, kind);
                                      })
                        : is_canonical(chain_kernels<float>(), chain, kind);
      if (!canonical) return false;
    }
  }
  return true;
}

void check_bars(const RequireConfig& require, RunResult& result) {
  const auto miss = [&](const std::string& what) { result.failures.push_back("require: " + what); };
  if (require.verified.value_or(false) && result.status != "verified") {
    miss(fmt::format("the status is '{}', but must be 'verified'", result.status));
  }
  if (require.max_infer_seconds && result.seconds.infer > *require.max_infer_seconds) {
    miss(fmt::format("inference took {:.4g} s, but at most {:.4g} s are allowed",
                     result.seconds.infer, *require.max_infer_seconds));
  }
  const double rate = result.edges.nominal / result.seconds.infer;
  if (require.min_nominal_edges_per_s && rate < *require.min_nominal_edges_per_s) {
    miss(fmt::format("{:.4g} nominal edges/s, but at least {:.4g} are asked for", rate,
                     *require.min_nominal_edges_per_s));
  }
  if (require.min_accuracy && !result.labelled) {
    miss("an accuracy is asked for, but there are no labels to measure it by");
  } else if (require.min_accuracy && result.labelled->accuracy() < *require.min_accuracy) {
    miss(fmt::format("the accuracy is {:.4f}, but at least {:.4f} is asked for",
                     result.labelled->accuracy(), *require.min_accuracy));
  }
  if (require.max_host_bytes && result.peak_host_bytes > *require.max_host_bytes) {
    miss(fmt::format("{} bytes of host memory at the peak, but at most {} are allowed",
                     result.peak_host_bytes, *require.max_host_bytes));
  }
}

}  // namespace spdnn
