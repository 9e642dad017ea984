// Whether a result is right: the truth file, a sample against the reference, the bars of a config.
#pragma once

#include <vector>

#include "reference.hpp"
#include "sources.hpp"

namespace spdnn {

/// Compares the categories found with the truth, and names the ids that differ.
void compare_categories(const Sources& sources, RunResult& result);

/// `count` of `images` images at random, or all of them where there are fewer; ascending.
[[nodiscard]] std::vector<std::int64_t> choose_sample(std::int64_t images, std::int64_t count,
                                                      std::uint64_t seed);

/// Whether every kernel of the plan declares canonical order.
[[nodiscard]] bool is_canonical(const Plan& plan, const Profile& profile);

/// Adds a failure for each bar under `require` that the result misses.
void check_bars(const RequireConfig& require, RunResult& result);

}  // namespace spdnn
