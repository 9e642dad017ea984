// Worlds of several processes.
#pragma once

#include "group.hpp"

namespace spdnn::comm {

/// The processes that MPI connects; a process without a launcher is one alone. Null where this
/// build has no MPI.
[[nodiscard]] std::unique_ptr<World> open_mpi_world(const WorldSpec& spec);

}  // namespace spdnn::comm
