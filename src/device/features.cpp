// The optional backends and libraries of this build.
#include "backend.hpp"

namespace spdnn {

std::vector<Feature> list_features() {
  std::vector<Feature> features = list_cuda_features();
  Feature mpi = {"mpi", false, false, SPDNN_MPI_VERSION, ""};
  mpi.remedy = mpi.version.empty() ? "install libopenmpi-dev and configure again"
                                   : "found, but this version runs in one process";
  features.push_back(std::move(mpi));
  return features;
}

}  // namespace spdnn
