// Joining ranks that each have a GPU of their own by NCCL.
#pragma once

#include <memory>
#include <string>

#include "spdnn/comm.hpp"
#include "spdnn/device.hpp"

namespace spdnn {

/// Why this machine can't join ranks by NCCL, and what to do about it; empty where it can.
[[nodiscard]] std::string nccl_missing();

/// Joins the ranks of `host` by NCCL as well, each on the device that it opened on this thread:
/// what lies in the memory of devices goes from one to the other without passing the host, where a
/// call has their streams; all else stays with `host`, which must live as long, as must `device`.
/// Sums are not in rank order. What NCCL does not get done in `patience_s`, connecting included,
/// fails instead of hanging. All ranks call it. Throws `CommError` on all of them alike where one
/// is not connected; `host` may be used on.
[[nodiscard]] std::unique_ptr<Communicator> join_by_nccl(Communicator& host, Device& device,
                                                         double patience_s);

}  // namespace spdnn
