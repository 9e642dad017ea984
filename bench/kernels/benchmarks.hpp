// Groups of benchmarks that `main` registers.
#pragma once

namespace spdnn::bench {

/// `find_equal/…` and `find_unchanged/…`, on one thread.
void add_equal_images();

/// `index_width/…`: rows summed with columns of 16 and of 8 bits, in turn on one thread.
void add_index_width();

}  // namespace spdnn::bench
