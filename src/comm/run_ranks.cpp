// Ranks from beginning to end: a thread for each, and the first error of any.
#include <fmt/format.h>

#include <exception>
#include <mutex>
#include <system_error>
#include <thread>

#include "group.hpp"

namespace spdnn {
namespace {

/// What `error` says, for the ranks it did not happen on.
std::string message_of(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const std::exception& e) {
    return e.what();
  } catch (...) {
    return "an exception of unknown type";
  }
}

}  // namespace

void comm::run_threads(std::vector<std::unique_ptr<Communicator>> ends,
                       const std::function<void(Communicator&)>& body) {
  std::mutex mutex;
  std::exception_ptr first_error;
  bool is_consequence = false;
  const auto fail = [&](Communicator& end, const std::exception_ptr& error, bool consequence,
                        const std::string& reason) {
    {
      const std::lock_guard lock(mutex);
      if (!first_error || (is_consequence && !consequence)) {
        first_error = error;
        is_consequence = consequence;
      }
    }
    end.abort(reason);
  };

  std::vector<std::thread> threads;
  threads.reserve(ends.size());
  try {
    for (auto& end : ends) {
      threads.emplace_back([&body, &fail, &end] {
        try {
          body(*end);
        } catch (const OthersFailed& e) {
          fail(*end, std::current_exception(), true, e.what());
        } catch (...) {
          const std::exception_ptr error = std::current_exception();
          fail(*end, error, false,
               fmt::format("rank {} failed: {}", end->rank(), message_of(error)));
        }
        end.reset();
      });
    }
  } catch (const std::system_error& e) {
    const std::string reason =
        fmt::format("cannot start thread {} of {}: {}", threads.size() + 1, ends.size(), e.what());
    // The ends without a thread are nobody else's.
    fail(*ends.back(), std::make_exception_ptr(SystemError(reason)), false, reason);
  }
  for (std::thread& thread : threads) thread.join();
  if (first_error) std::rethrow_exception(first_error);
}

void run_ranks(int size, const std::function<void(Communicator&)>& body, const Link& link) {
  if (size < 1) throw CommError(fmt::format("a group needs at least 1 rank, not {}", size));
  const auto group = std::make_shared<comm::Group>(size);
  std::vector<std::unique_ptr<Communicator>> ends;
  for (int rank = 0; rank < size; ++rank) {
    ends.push_back(comm::make_in_process(group, rank, link));
  }
  comm::run_threads(std::move(ends), body);
}

}  // namespace spdnn
