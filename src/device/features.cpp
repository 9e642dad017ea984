// The optional backends and libraries of this build.
#include "backend.hpp"

namespace spdnn {

std::vector<Feature> list_features() { return list_cuda_features(); }

}  // namespace spdnn
