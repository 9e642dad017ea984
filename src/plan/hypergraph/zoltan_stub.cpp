// What stands for Zoltan in a build without it.
#include "spdnn/partition.hpp"

namespace spdnn {

bool have_zoltan() { return false; }

Partition zoltan_partition(const Model& /*model*/, const HypergraphRequest& /*request*/) {
  throw InputError(
      "this build has no Zoltan; install it with MPI (Debian: libtrilinos-zoltan-dev, "
      "libopenmpi-dev) and configure again");
}

}  // namespace spdnn
