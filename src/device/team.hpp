// The threads of one CPU rank; private to src/device.
#pragma once

#include <memory>

#include "spdnn/device.hpp"

namespace spdnn {

/// A team of `threads`, the caller among them, each pinned to its core of `cores` (when given; the
/// caller is pinned too). The others block while there is no work.
[[nodiscard]] std::unique_ptr<ThreadTeam> make_team(int threads, const std::vector<int>& cores);

}  // namespace spdnn
