// Worlds of several processes.
#pragma once

#include "group.hpp"

namespace spdnn::comm {

/// The processes that MPI connects; a process without a launcher is one alone. Null where this
/// build has no MPI.
[[nodiscard]] std::unique_ptr<World> open_mpi_world(const WorldSpec& spec);

/// What a process that an error ends returns.
[[nodiscard]] ExitStatus status_of(const std::exception& error);

}  // namespace spdnn::comm
