// Groups of benchmarks that `main` registers.
#pragma once

namespace spdnn::bench {

/// `find_equal/…` and `find_unchanged/…`, on one thread.
void add_equal_images();

}  // namespace spdnn::bench
