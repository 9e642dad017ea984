// The processes of a run and their ranks: which devices each of them drives, and what all of them
// must agree on before they compute.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "spdnn/run.hpp"

namespace spdnn {

/// The ranks of a run, in one process or several.
struct Job {
  World& world;
  std::vector<DeviceSpec> specs;         ///< of all ranks; only this process's know their cores
  Range here;                            ///< this process's ranks
  std::vector<RankDevice> devices = {};  ///< of all ranks

  /// Whether this process gathers, checks and writes what is found.
  [[nodiscard]] bool leads() const { return world.processes().rank() == 0; }
  [[nodiscard]] std::vector<DeviceSpec> specs_here() const {
    return {specs.begin() + here.begin, specs.begin() + here.end};
  }
  /// Runs `body` once for each rank of this process.
  void run_ranks(const std::function<void(Communicator&)>& body) const {
    world.run_ranks(static_cast<int>(here.size()), body);
  }
};

/// Shares the devices of a configuration among the processes: those it lists, in order, or with
/// `auto` the GPUs, else the cores, of each host. Throws `InputError` where it lists fewer devices
/// than there are processes.
[[nodiscard]] Job make_job(const RunConfig& config, World& world);

/// What every rank of `comm` gives, by rank, on all of them.
[[nodiscard]] std::vector<std::vector<std::byte>> gather_bytes(Communicator& comm,
                                                               std::span<const std::byte> own);

/// What every rank of `comm` gives, by rank, on rank 0; nothing on the others.
[[nodiscard]] std::vector<std::vector<std::byte>> gather_on_first(Communicator& comm,
                                                                  std::span<const std::byte> own);

/// Calls `task` on one process of each host, then on the others together, so that they find the
/// caches that the first one wrote, and measure alone.
void in_turn(World& world, const std::function<void()>& task);

/// All ranks' devices, each measured by its process on the model's layers, through the profile
/// cache of this user. `refresh` measures again what is remembered; `floors` measures what reports
/// set times beside, too.
[[nodiscard]] Profile profile_job(const RunConfig& config, const Model& model, const Job& job,
                                  bool refresh = false, bool floors = false);

/// What a configuration asks of the plan of such a job.
[[nodiscard]] PlanRequest plan_request(const RunConfig& config, const Job& job);

/// The network that the first process compiled, on every process. `model` is the one given, which
/// they all have; `compile` is called on the first alone.
[[nodiscard]] CompiledModel share_compiled(const Job& job, const Model& model,
                                           const std::function<CompiledModel()>& compile);

}  // namespace spdnn
