// Messages between the ranks of a group that are under way.
#pragma once

#include <vector>

#include "mpi_group.hpp"

namespace spdnn::comm {

/// Messages of one rank. Those that are not waited for are let go of, so that their memory has to
/// outlive this.
class MpiTransfers {
 public:
  /// Headers are told from pieces, which the other side may not expect.
  MpiTransfers(MpiCommunicator& comm, bool headers) : comm_(comm), headers_(headers) {}
  MpiTransfers(const MpiTransfers&) = delete;
  MpiTransfers& operator=(const MpiTransfers&) = delete;
  ~MpiTransfers() { abandon(); }

  void send(int to, const void* data, std::size_t bytes);
  void receive(int from, void* data, std::size_t bytes);
  /// Returns when all are done. Throws `CommError` when the group fails.
  void wait(const Call& call);

 private:
  void abandon() noexcept;

  MpiCommunicator& comm_;
  bool headers_;
  std::vector<MPI_Request> sends_, receives_;
};

}  // namespace spdnn::comm
