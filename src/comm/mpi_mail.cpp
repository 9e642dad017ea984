// Letters as MPI messages whose tag is their topic, found by probing.
#include "mpi_mail.hpp"

#include <fmt/format.h>
#include <sched.h>

#include <algorithm>
#include <array>
#include <chrono>

namespace spdnn::comm {

void check_mpi(int code, const char* function) {
  if (code == MPI_SUCCESS) return;
  std::array<char, MPI_MAX_ERROR_STRING> text{};
  int length = 0;
  MPI_Error_string(code, text.data(), &length);
  throw CommError(fmt::format("{}: {}", function, text.data()));
}

std::unique_lock<std::mutex> one_caller() {
  static std::mutex mutex;
  return std::unique_lock(mutex);
}

void Backoff::pause() {
  constexpr int kYields = 100;
  constexpr int kSlower = 2000;  // about 0.1 s
  ++rounds_;
  if (rounds_ < kYields) {
    sched_yield();
  } else {
    std::this_thread::sleep_for(std::chrono::microseconds(rounds_ < kSlower ? 50 : 500));
  }
}

Mail::Mail(MPI_Comm comm) : comm_(comm) {
  thread_ = std::thread([this] {
    Backoff backoff;
    while (!over_.load(std::memory_order_relaxed)) {
      if (poll()) backoff.reset();
      backoff.pause();
    }
  });
}

Mail::~Mail() {
  over_ = true;
  thread_.join();
}

void Mail::send(int process, int topic, std::span<const std::byte> letter) {
  const std::lock_guard lock(sending_);
  forget_sent();
  Outgoing& out = outgoing_.emplace_back();
  out.letter.assign(letter.begin(), letter.end());
  const auto caller = one_caller();
  check_mpi(MPI_Isend(out.letter.data(), static_cast<int>(out.letter.size()), MPI_BYTE, process,
                      topic, comm_, &out.request),
            "MPI_Isend");
}

/// Letters that have left need their memory no more.
void Mail::forget_sent() {
  if (outgoing_.empty()) return;
  const auto caller = one_caller();
  std::erase_if(outgoing_, [](Outgoing& out) {
    int done = 0;
    check_mpi(MPI_Test(&out.request, &done, MPI_STATUS_IGNORE), "MPI_Test");
    return done != 0;
  });
}

void Mail::serve(int topic, Handler handler) {
  const std::lock_guard lock(opening_);
  handlers_[topic] = std::move(handler);
  if (handlers_[topic] == nullptr) return;
  for (const Letter& letter : std::exchange(waiting_[topic], {})) {
    handlers_[topic](letter.from, letter.bytes);
  }
}

bool Mail::poll() {
  const std::unique_lock lock(opening_, std::try_to_lock);
  if (!lock.owns_lock()) return false;
  bool any = false;
  while (receive()) any = true;
  emptied_.fetch_add(1, std::memory_order_relaxed);
  return any;
}

bool Mail::receive() {
  int found = 0;
  MPI_Message message = MPI_MESSAGE_NULL;
  MPI_Status status;
  auto caller = one_caller();
  check_mpi(MPI_Improbe(MPI_ANY_SOURCE, MPI_ANY_TAG, comm_, &found, &message, &status),
            "MPI_Improbe");
  if (found == 0) return false;
  int bytes = 0;
  check_mpi(MPI_Get_count(&status, MPI_BYTE, &bytes), "MPI_Get_count");
  Letter letter = {status.MPI_SOURCE, std::vector<std::byte>(static_cast<std::size_t>(bytes))};
  check_mpi(MPI_Mrecv(letter.bytes.data(), bytes, MPI_BYTE, &message, MPI_STATUS_IGNORE),
            "MPI_Mrecv");
  caller.unlock();
  const Handler& handler = handlers_[status.MPI_TAG];
  if (handler != nullptr) {
    handler(letter.from, letter.bytes);
  } else {
    waiting_[status.MPI_TAG].push_back(std::move(letter));
  }
  return true;
}

}  // namespace spdnn::comm
