// Which kernel computes a layer, by what was measured.
#pragma once

#include <string>
#include <vector>

#include "spdnn/plan.hpp"

namespace spdnn {

/// The kernel for one shape on one rank: the one asked for, else the fastest measured. Throws
/// `InputError` where the rank has none.
[[nodiscard]] const KernelTime& choose_kernel(const DeviceProfile& rank, std::size_t shape,
                                              const std::string& wanted);

/// The kernel for one shape on ranks that share its rows, which every kernel cuts in an order of
/// its own: of those that no rank declines the one with the least time on all ranks together. Null:
/// there is none.
[[nodiscard]] const KernelTime* common_kernel(const std::vector<DeviceProfile>& ranks,
                                              std::size_t shape, const std::string& wanted);

/// The chain kernel for a segment on a rank, empty for none: the one asked for, where it takes the
/// layers, else one that is faster than the layers' own kernels.
[[nodiscard]] std::string choose_chain(const Profile& profile, const DeviceProfile& device,
                                       const Range& layers, const std::string& wanted);

/// Whether any of these tables has a kernel of that name.
[[nodiscard]] bool lists(const std::vector<std::vector<KernelTime>>& tables,
                         const std::string& kernel);

/// The kernel wanted on this rank: a kernel named in the request binds the ranks that have it.
[[nodiscard]] std::string wanted_on(const DeviceProfile& rank, const std::string& wanted);

}  // namespace spdnn
