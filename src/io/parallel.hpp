// Independent pieces of work shared among short-lived threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

namespace spdnn {

/// Threads worth starting on this machine.
[[nodiscard]] int reader_threads();

/// Calls `body(i, worker)` once for each i in `[0, count)` on up to `threads` threads, the caller
/// among them, and returns when all are done; `worker`, below `threads`, tells the threads apart.
/// After an error no further piece is begun; of all errors that of the lowest i is rethrown, so
/// that what is reported never depends on timing.
void for_each_piece(std::int64_t count, int threads,
                    const std::function<void(std::int64_t, std::size_t)>& body);

}  // namespace spdnn
