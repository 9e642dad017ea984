// Times of what ranks do together.
#pragma once

#include <cstdint>
#include <functional>

#include "spdnn/comm.hpp"

namespace spdnn {

/// Seconds of a call that all ranks make at once, as the slowest of them sees it: the least of so
/// many runs after one that warms up, since noise only ever adds. All ranks call it, and all get
/// the same.
[[nodiscard]] double fastest_together(Communicator& comm, int runs,
                                      const std::function<void()>& call);

/// The same for one of many short calls in a row: `calls(n)` makes n of them, a power of two times
/// `least`, for which a run takes some milliseconds.
[[nodiscard]] double fastest_in_a_row(Communicator& comm, std::int64_t least,
                                      const std::function<void(std::int64_t n)>& calls);

}  // namespace spdnn
