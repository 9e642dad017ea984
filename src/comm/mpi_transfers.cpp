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

int test_all(std::vector<MPI_Request>& requests, bool* done) {
  int all = 0;
  const int code =
      MPI_Testall(static_cast<int>(requests.size()), requests.data(), &all, MPI_STATUSES_IGNORE);
  *done = all != 0;
  return code;
}

/// Throws where MPI says that one can't be done.
bool done(std::vector<MPI_Request>& requests) {
  bool all = false;
  check_mpi(test_all(requests, &all), "MPI_Testall");
  return all;
}

/// As far as MPI says.
bool all_ended(std::vector<MPI_Request>& requests) noexcept {
  bool all = false;
  static_cast<void>(test_all(requests, &all));
  return all;
}

}  // namespace

void MpiTransfers::send(int to, const void* data, std::size_t bytes) {
  const auto post = [&](std::size_t at, int part, MPI_Request* request) {
    check_mpi(MPI_Isend(static_cast<const std::byte*>(data) + at, part, MPI_BYTE,
                        comm_.group_.places[to].process, comm_.tag(comm_.rank_, to, headers_),
                        comm_.job_.messages, request),
              "MPI_Isend");
  };
  const auto caller = one_caller();
  each_part(bytes, comm_.job_.largest_message, sends_, post);
}

void MpiTransfers::receive(int from, void* data, std::size_t bytes) {
  const auto post = [&](std::size_t at, int part, MPI_Request* request) {
    check_mpi(MPI_Irecv(static_cast<std::byte*>(data) + at, part, MPI_BYTE,
                        comm_.group_.places[from].process, comm_.tag(from, comm_.rank_, headers_),
                        comm_.job_.messages, request),
              "MPI_Irecv");
  };
  const auto caller = one_caller();
  each_part(bytes, comm_.job_.largest_message, receives_, post);
}

void MpiTransfers::wait(const Call& call) {
  const auto test = [this] {
    const auto caller = one_caller();
    return done(receives_) && done(sends_);
  };
  if (!test()) comm_.wait_until(describe(call), test);
  sends_.clear();
  receives_.clear();
}

/// After a failure: receives are taken back, or end where their message is on its way and its
/// sender lives. What was sent to a rank that failed may never leave, and is not waited for long.
void MpiTransfers::abandon() noexcept {
  constexpr double kSends = 0.1, kReceives = 1.0;  // seconds
  const double start = now_seconds();
  {
    const auto caller = one_caller();
    for (auto* requests : {&receives_, &sends_}) {
      for (MPI_Request& request : *requests) {
        if (request != MPI_REQUEST_NULL) MPI_Cancel(&request);
      }
    }
  }
  Backoff backoff;
  for (;;) {
    {
      const auto caller = one_caller();
      const double waited = now_seconds() - start;
      const bool received = all_ended(receives_) || waited > kReceives;
      if (received && (all_ended(sends_) || waited > kSends)) return;
    }
    backoff.pause();
  }
}

}  // namespace spdnn::comm
