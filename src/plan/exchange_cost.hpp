// What exchanges take of the ranks of a process.
#pragma once

#include "spdnn/comm.hpp"
#include "spdnn/simulate.hpp"

namespace spdnn {

/// Measures exchanges of `batch` images between all ranks of the group; the slowest counts. All
/// ranks, at least two, call it.
[[nodiscard]] ExchangeCost measure_exchange_cost(Communicator& comm, Device& device,
                                                 std::int64_t batch);

}  // namespace spdnn
