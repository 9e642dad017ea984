// How much memory of the host this process holds.
#pragma once

#include <cstdint>

namespace spdnn {

/// Most bytes that were resident at once since the process began; where there is no /proc, or what
/// the process that started it had, if that was more.
[[nodiscard]] std::int64_t peak_host_bytes();
/// Bytes resident now; 0 where the system does not tell.
[[nodiscard]] std::int64_t host_bytes_now();

}  // namespace spdnn
