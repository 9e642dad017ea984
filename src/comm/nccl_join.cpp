// NCCL for the ranks of a run.
#include "nccl.hpp"
#include "spdnn/nccl.hpp"

namespace spdnn {

std::string nccl_missing() {
  std::string why;
  return comm::nccl_functions(why) == nullptr ? why : std::string();
}

std::unique_ptr<Communicator> join_by_nccl(Communicator& host, Device& device, double patience_s) {
  std::string why;
  const comm::NcclFunctions* nccl = comm::nccl_functions(why);
  if (nccl == nullptr) throw CommError(why);
  return std::make_unique<comm::NcclCommunicator>(
      host, std::shared_ptr<Stream>(device.make_stream()), *nccl, patience_s);
}

}  // namespace spdnn
