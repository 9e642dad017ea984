// How the ranks of a job that trains, or whose ranks own rows, are joined.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "job.hpp"

namespace spdnn {

/// Runs `body` once for each rank of this process, as `Job::run_ranks`, on ranks that NCCL joins
/// where the configuration asks for it, or leaves it open and all ranks are GPUs of their own. What
/// came of that is added to `notes`. All processes call it. Throws `InputError` where NCCL is asked
/// for and can't join such ranks, `CommError` where it does not connect them.
void run_joined(const RunConfig& config, const Job& job,
                const std::function<void(Communicator&)>& body, std::vector<std::string>& notes);

/// Throws `InputError` where the configuration asks for NCCL, in a job that sends nothing from GPU
/// to GPU.
void check_needs_no_nccl(const RunConfig& config);

}  // namespace spdnn
