// Finding images that have become equal, for the tables and for tests of colliding hashes.
#pragma once

#include "spdnn/op.hpp"

namespace spdnn {

/// `LayoutKernels::find_equal` with hashes cut to the bits of `hash_bits`. The result does not
/// depend on them: images of equal hash are compared in full, and few bits only mean more of that.
void find_equal_cpu(const FindEqualArgs<float>& args, Stream& stream, std::uint32_t hash_bits);
void find_unchanged_cpu(const FindUnchangedArgs<float>& args, Stream& stream);

}  // namespace spdnn
