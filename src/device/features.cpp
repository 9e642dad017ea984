// The optional backends and libraries of this build.
#include "backend.hpp"

namespace spdnn {

std::vector<Feature> list_features() {
  std::vector<Feature> features = list_cuda_features();
  Feature mpi = {"mpi", false, false, SPDNN_MPI_VERSION, ""};
  mpi.built = mpi.usable = !mpi.version.empty();
  if (!mpi.built) mpi.remedy = "install libopenmpi-dev, then configure and build again";
  features.push_back(std::move(mpi));
  return features;
}

}  // namespace spdnn
