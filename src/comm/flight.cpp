// Exchanges under way between the threads of an in-process group: pairing pieces as ranks start,
// and waiting until they are copied.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "group.hpp"

namespace spdnn::comm {
namespace {

bool settled(const Flight::Piece& piece) {
  return piece.message == nullptr || piece.state == Flight::State::done;
}

bool all_settled(const Flight& flight) {
  return std::all_of(flight.to.begin(), flight.to.end(), settled) &&
         std::all_of(flight.from.begin(), flight.from.end(), settled);
}

bool copying(const Flight::Piece& piece) { return piece.state == Flight::State::copying; }

void land(Flight::Piece& sent, Flight::Piece& received) {
  sent.state = received.state = Flight::State::done;
  received.arrives = sent.arrives;
}

/// Lends the piece where both sides agree; else it is to be copied.
void claim(Flight::Piece& sent, Flight::Piece& received) {
  if (sent.message == nullptr) return;
  if (sent.message->owner != nullptr && received.message->owner != nullptr) {
    received.lent = sent.message->data;
    received.owner = sent.message->owner;
    land(sent, received);
  } else {
    sent.state = received.state = Flight::State::copying;
  }
}

}  // namespace

/// Checks the flight's pieces against those of the ranks that have started, and claims them.
void Group::pair_up(int rank, Flight& flight, const std::vector<Flight*>& others) {
  const auto me = static_cast<std::size_t>(rank);
  for (std::size_t peer = 0; peer < others.size(); ++peer) {
    const Flight* other = others[peer];
    if (other == nullptr && started_[peer] <= flight.number) continue;
    // One that has let go of its flight had nothing to do with this rank.
    auto problem = piece_problem(me, flight.to[peer].message, peer,
                                 other == nullptr ? nullptr : other->from[me].message);
    if (!problem) {
      problem = piece_problem(peer, other == nullptr ? nullptr : other->to[me].message, me,
                              flight.from[peer].message);
    }
    if (problem) {
      fail({*problem, true});
      throw_failure(rank, "start_exchange()");
    }
  }
  for (std::size_t peer = 0; peer < others.size(); ++peer) {
    Flight* other = others[peer];
    if (other == nullptr) continue;
    claim(flight.to[peer], other->from[me]);
    claim(other->to[me], flight.from[peer]);
  }
}

void Group::start(int rank, Flight& flight) {
  const auto me = static_cast<std::size_t>(rank);
  std::unique_lock lock(mutex_);
  if (failure_) throw_failure(rank, "start_exchange()");
  flight.number = started_[me]++;
  std::vector<Flight*>& present = flights_[flight.number];
  present.resize(calls_.size());
  present[me] = &flight;
  std::vector<Flight*> others = present;
  try {
    pair_up(rank, flight, others);
  } catch (...) {
    release(rank, flight, lock);
    throw;
  }
  // Flights with a piece to copy stay until it is; the others may go as soon as unlocked.
  bool copies = false;
  for (std::size_t peer = 0; peer < others.size(); ++peer) {
    if (copying(flight.to[peer]) || copying(flight.from[peer])) {
      copies = true;
    } else if (others[peer] != nullptr) {
      wake_settled(*others[peer]);
      others[peer] = nullptr;
    }
  }
  if (copies) copy_claimed(rank, flight, others, lock);
}

/// Copies the pieces claimed with others, without the lock.
void Group::copy_claimed(int rank, Flight& flight, const std::vector<Flight*>& others,
                         std::unique_lock<std::mutex>& lock) {
  const auto me = static_cast<std::size_t>(rank);
  lock.unlock();
  const auto copy = [](const Flight::Piece& from, const Flight::Piece& to) {
    if (copying(from) && from.message->bytes > 0) {
      std::memcpy(to.message->data, from.message->data, from.message->bytes);
    }
  };
  for (std::size_t peer = 0; peer < others.size(); ++peer) {
    if (others[peer] == nullptr) continue;
    copy(flight.to[peer], others[peer]->from[me]);
    if (peer != me) copy(others[peer]->to[me], flight.from[peer]);
  }
  lock.lock();
  for (std::size_t peer = 0; peer < others.size(); ++peer) {
    Flight* other = others[peer];
    if (other == nullptr) continue;
    land(flight.to[peer], other->from[me]);
    land(other->to[me], flight.from[peer]);
    wake_settled(*other);
  }
}

/// Wakes whoever waits for a flight that is whole, or ends with the group.
void Group::wake_settled(Flight& flight) const {
  if (failure_ || all_settled(flight)) flight.moved.notify_all();
}

void Group::wake_flights() {
  for (const auto& [number, present] : flights_) {
    for (Flight* const flight : present) {
      if (flight != nullptr) flight->moved.notify_all();
    }
  }
}

Time Group::finish(int rank, Flight& flight) {
  std::unique_lock lock(mutex_);
  flight.moved.wait(lock, [&] {
    if (failure_ || all_settled(flight)) return true;
    for (std::size_t peer = 0; peer < gone_.size(); ++peer) {
      const bool missing = flight.number >= started_[peer];
      if (missing && gone_[peer] && !(settled(flight.to[peer]) && settled(flight.from[peer]))) {
        fail({fmt::format("rank {} waits for an exchange with rank {}, which has left the group",
                          rank, peer)});
        return true;
      }
    }
    return false;
  });
  const bool whole = all_settled(flight);
  release(rank, flight, lock);
  if (!whole) throw_failure(rank, "finish()");
  Time last{};
  for (const Flight::Piece& piece : flight.from) last = std::max(last, piece.arrives);
  return last;
}

void Group::withdraw(int rank, Flight& flight) noexcept {
  std::unique_lock lock(mutex_);
  if (!failure_) fail({fmt::format("rank {} left an exchange unfinished", rank)});
  release(rank, flight, lock);
}

/// Takes the flight off the list once nobody copies from or to its memory.
void Group::release(int rank, Flight& flight, std::unique_lock<std::mutex>& lock) {
  flight.moved.wait(lock, [&] {
    return std::none_of(flight.to.begin(), flight.to.end(), copying) &&
           std::none_of(flight.from.begin(), flight.from.end(), copying);
  });
  const auto found = flights_.find(flight.number);
  if (found == flights_.end()) return;
  found->second[static_cast<std::size_t>(rank)] = nullptr;
  const bool all_started =
      std::all_of(started_.begin(), started_.end(),
                  [&](std::uint64_t started) { return started > flight.number; });
  const bool empty = std::all_of(found->second.begin(), found->second.end(),
                                 [](const Flight* other) { return other == nullptr; });
  if (all_started && empty) flights_.erase(found);
}

}  // namespace spdnn::comm
