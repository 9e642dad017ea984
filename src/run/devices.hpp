// The devices of a run: what `auto` stands for, where CPU ranks are pinned, how they are named.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "spdnn/run.hpp"

namespace spdnn {

/// `devices: auto`: every GPU, or else one single-thread CPU rank for each usable core. CPU ranks
/// are pinned when there is a core for each of their threads.
[[nodiscard]] std::vector<DeviceSpec> resolve_devices(const RunConfig& config);

/// Gives the CPU ranks that name no cores those of `cores` nobody named, when there is one for each
/// of their threads; otherwise they stay free.
void pin_cpu_ranks(std::vector<int> cores, std::vector<DeviceSpec>& specs);

/// Gives each rank that has a part of a GPU the multiprocessors after those of the ranks before it.
void part_gpus(std::vector<DeviceSpec>& specs);

/// The user's folder for what runs remember: below `XDG_CACHE_HOME`, which counts where it is
/// absolute, else below the home folder; empty where there is neither.
[[nodiscard]] std::filesystem::path cache_folder();
/// Where this user's measurements of this host are kept; empty where there is no such place.
[[nodiscard]] std::string profile_cache_file();

/// A device of this host, for reports.
[[nodiscard]] RankDevice named(const DeviceSpec& spec);

/// What images cost on `specs`' devices, for the compiler; through the profile cache as well.
[[nodiscard]] CostModel cost_of_specs(const RunConfig& config,
                                      const std::vector<DeviceSpec>& specs);

/// What a run wants measured of `specs`, through the profile cache of this user.
[[nodiscard]] ProfileRequest profile_request(const RunConfig& config,
                                             const std::vector<DeviceSpec>& specs);

}  // namespace spdnn
