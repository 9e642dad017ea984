// What the machine can do at best, measured: the limits that benchmarks are set against.
#pragma once

#include <cstdint>
#include <vector>

namespace spdnn::limits {

/// The cores that the process could use when it first asked. Devices pin the thread that opens
/// them, and from then on `usable_cores` tells of that thread's core alone; so `main` asks at once.
[[nodiscard]] const std::vector<int>& process_cores();

/// Each function runs the same loop on `threads` threads, one pinned to each usable core, every
/// thread with memory of its own on large pages, and returns the best of several trials for all
/// threads together. Results are remembered for the life of the process. Thread-safe.

/// fp32 multiply–adds a second between registers, as many chains in flight as there are registers.
[[nodiscard]] double fma_rate(int threads);

/// Bytes a second of vector loads in order over `bytes` of memory, each feeding a multiply–add.
[[nodiscard]] double load_rate(std::int64_t bytes, int threads);

/// Multiply–adds a second where each takes its operand from a random place among `bytes`: `granule`
/// bytes (64 or 128) are read at each place, and the places are listed in 16 or 32 bits as in a
/// matrix. This bounds an SpMM whose rows share no loads, with activations of that footprint.
[[nodiscard]] double gather_rate(std::int64_t bytes, std::int64_t granule, int threads);

/// The better of the two granules.
[[nodiscard]] double gather_rate(std::int64_t bytes, int threads);

}  // namespace spdnn::limits
