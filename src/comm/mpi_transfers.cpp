// Messages in parts that MPI can count, and what becomes of them in a failure.
#include "mpi_transfers.hpp"

#include <algorithm>

namespace spdnn::comm {
namespace {

template <class Post>
void each_part(std::size_t bytes, std::size_t most, std::vector<MPI_Request>& requests,
               const Post& post) {
  for (std::size_t at = 0; at < bytes; at += most) {
    requests.push_back(MPI_REQUEST_NULL);
    post(at, static_cast<int>(std::min(most, bytes - at)), &requests.back());
  }
}

}  // namespace

void MpiTransfers::send(int to, const void* data, std::size_t bytes) {
  const auto post = [&](std::size_t at, int part, MPI_Request* request) {
    check_mpi(MPI_Isend(static_cast<const std::byte*>(data) + at, part, MPI_BYTE,
                        comm_.group_.places[to].process, comm_.tag(comm_.rank_, to, headers_),
                        comm_.job_.messages, request),
              "MPI_Isend");
  };
  each_part(bytes, comm_.job_.largest_message, requests_, post);
}

void MpiTransfers::receive(int from, void* data, std::size_t bytes) {
  const auto post = [&](std::size_t at, int part, MPI_Request* request) {
    check_mpi(MPI_Irecv(static_cast<std::byte*>(data) + at, part, MPI_BYTE,
                        comm_.group_.places[from].process, comm_.tag(from, comm_.rank_, headers_),
                        comm_.job_.messages, request),
              "MPI_Irecv");
  };
  each_part(bytes, comm_.job_.largest_message, requests_, post);
}

void MpiTransfers::wait(const Call& call) {
  if (!test()) comm_.wait_until(describe(call), [this] { return test(); });
  requests_.clear();
}

bool MpiTransfers::test() {
  int done = 0;
  check_mpi(
      MPI_Testall(static_cast<int>(requests_.size()), requests_.data(), &done, MPI_STATUSES_IGNORE),
      "MPI_Testall");
  return done != 0;
}

/// After a failure: receives are taken back, or end where their message is on its way and its
/// sender lives. What was sent to a rank that failed may never leave, and is not waited for.
void MpiTransfers::abandon() noexcept {
  constexpr double kPatience = 0.1;
  const double start = now_seconds();
  for (MPI_Request& request : requests_) {
    if (request != MPI_REQUEST_NULL) MPI_Cancel(&request);
  }
  Backoff backoff;
  int done = requests_.empty() ? 1 : 0;
  while (done == 0 && now_seconds() - start < kPatience) {
    MPI_Testall(static_cast<int>(requests_.size()), requests_.data(), &done, MPI_STATUSES_IGNORE);
    backoff.pause();
  }
}

}  // namespace spdnn::comm
