// NCCL between the GPUs of a job, or not.
#include "join.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "spdnn/nccl.hpp"

namespace spdnn {
namespace {

/// What is in the way on this process.
std::string obstacle_here(const Job& job) {
  for (std::size_t rank = 0; rank < job.specs.size(); ++rank) {
    if (job.specs[rank].kind != DeviceKind::cuda) {
      return fmt::format("rank {} is no GPU; list CUDA devices alone", rank);
    }
  }
  const std::vector<DeviceSpec> own = job.specs_here();
  for (auto spec = own.begin(); spec != own.end(); ++spec) {
    const bool again = std::any_of(
        own.begin(), spec, [&](const DeviceSpec& other) { return other.index == spec->index; });
    if (again) {
      return fmt::format("GPU {} has two ranks, which NCCL refuses; list it once", spec->index);
    }
  }
  return nccl_missing();
}

/// Why the ranks can't be joined by NCCL, the same on all processes; empty where they can.
std::string obstacle(const Job& job) {
  const std::string here = obstacle_here(job);
  for (const auto& text :
       gather_bytes(job.world.processes(), std::as_bytes(std::span<const char>(here)))) {
    if (!text.empty()) return {reinterpret_cast<const char*>(text.data()), text.size()};
  }
  return "";
}

}  // namespace

void run_joined(const RunConfig& config, const Job& job,
                const std::function<void(Communicator&)>& body, std::vector<std::string>& notes) {
  const bool asked = config.comm.backend == "nccl";
  const bool open = config.comm.backend == "auto" && job.specs.size() > 1;
  const std::string why = asked || open ? obstacle(job) : "not asked for";
  if (asked && !why.empty()) throw InputError(fmt::format("/comm/backend: is 'nccl', but {}", why));
  if (!why.empty()) {
    job.run_ranks(body);
    return;
  }
  std::string note = "ranks are joined by NCCL";
  job.run_ranks([&](Communicator& host) {
    const std::unique_ptr<Device> device = open_device(job.specs[host.rank()]);
    std::unique_ptr<Communicator> joined;
    try {
      joined = join_by_nccl(host, *device, config.comm.patience_s);
    } catch (const CommError& error) {
      // All ranks come here alike, and the host's group still stands.
      if (asked) throw;
      if (host.rank() == 0) note = fmt::format("messages pass through the host: {}", error.what());
    }
    body(joined == nullptr ? host : *joined);
  });
  notes.push_back(std::move(note));
}

void check_needs_no_nccl(const RunConfig& config) {
  if (config.comm.backend != "nccl") return;
  throw InputError(
      "/comm/backend: 'nccl' joins GPUs that train or share rows, and inference by images sends "
      "nothing from GPU to GPU; leave it at 'auto', or set /strategy to 'model'");
}

}  // namespace spdnn
