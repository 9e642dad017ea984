// How the threads of an in-process group meet, disagree and fail.
#include "group.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>

namespace spdnn::comm {
namespace {

const char* name_of(CallKind kind) {
  switch (kind) {
    case CallKind::barrier: return "barrier";
    case CallKind::all_gather: return "all_gather";
    case CallKind::all_reduce: return "all_reduce";
    case CallKind::reduce_scatter: return "reduce_scatter";
    case CallKind::exchange: return "exchange";
    case CallKind::split: return "split";
  }
  return "?";
}

const char* name_of(DType type) {
  switch (type) {
    case DType::f32: return "f32";
    case DType::f64: return "f64";
    case DType::u8: return "u8";
    case DType::u16: return "u16";
    case DType::u32: return "u32";
    case DType::i32: return "i32";
    case DType::i64: return "i64";
  }
  return "?";
}

const char* name_of(Reduction reduction) {
  switch (reduction) {
    case Reduction::sum: return "sum";
    case Reduction::max: return "max";
    case Reduction::min: return "min";
    case Reduction::bit_or: return "bit_or";
    case Reduction::bit_and: return "bit_and";
  }
  return "?";
}

bool same_shape(const Call& a, const Call& b) {
  return a.kind == b.kind && a.type == b.type && a.reduction == b.reduction && a.count == b.count &&
         std::equal(a.counts.begin(), a.counts.end(), b.counts.begin(), b.counts.end());
}

/// The first pair of ranks whose exchange does not fit, in words.
std::optional<std::string> exchange_problem(const std::vector<Call*>& calls) {
  for (std::size_t a = 0; a < calls.size(); ++a) {
    for (std::size_t b = 0; b < calls.size(); ++b) {
      auto problem = piece_problem(a, calls[a]->to[b], b, calls[b]->from[a]);
      if (problem) return problem;
    }
  }
  return std::nullopt;
}

std::optional<std::string> mismatch(const std::vector<Call*>& calls) {
  for (std::size_t rank = 1; rank < calls.size(); ++rank) {
    if (!same_shape(*calls[0], *calls[rank])) {
      return fmt::format("ranks called different things: rank 0 {}, rank {} {}",
                         describe(*calls[0]), rank, describe(*calls[rank]));
    }
  }
  if (calls[0]->kind == CallKind::exchange) return exchange_problem(calls);
  return std::nullopt;
}

}  // namespace

std::optional<std::string> piece_problem(std::size_t from, const Communicator::Message* sent,
                                         std::size_t to, const Communicator::Message* expected) {
  const auto bytes = [](const Communicator::Message* message) {
    return message == nullptr ? std::string("nothing") : fmt::format("{} bytes", message->bytes);
  };
  const bool fits =
      sent == nullptr || expected == nullptr ? sent == expected : sent->bytes == expected->bytes;
  if (fits) return std::nullopt;
  return fmt::format("exchange: rank {} sends {} to rank {}, but rank {} expects {} from it", from,
                     bytes(sent), to, to, bytes(expected));
}

Time Port::send(std::int64_t bytes) {
  if (bytes == 0 || link_ == Link{}) return {};
  const auto seconds = [](double s) {
    return std::chrono::duration_cast<Time::duration>(std::chrono::duration<double>(s));
  };
  free_ = std::max(free_, std::chrono::steady_clock::now());
  if (link_.bytes_per_s > 0.0) free_ += seconds(static_cast<double>(bytes) / link_.bytes_per_s);
  return free_ + seconds(link_.latency_s);
}

std::string describe(const Call& call) {
  const char* name = name_of(call.kind);
  const char* type = name_of(call.type);
  switch (call.kind) {
    case CallKind::all_gather:
      return fmt::format("{}({} {})", name, fmt::join(call.counts, "+"), type);
    case CallKind::all_reduce:
      return fmt::format("{}({} {}, {})", name, call.count, type, name_of(call.reduction));
    case CallKind::reduce_scatter:
      return fmt::format("{}({} {}, {})", name, fmt::join(call.counts, "+"), type,
                         name_of(call.reduction));
    case CallKind::barrier:
    case CallKind::exchange:
    case CallKind::split: break;
  }
  return fmt::format("{}()", name);
}

void Group::meet(int rank, Call& call) {
  std::unique_lock lock(mutex_);
  if (!failure_ && retired_ >= 0) {
    fail({fmt::format("rank {} called {}, but rank {} has left the group", rank, describe(call),
                      retired_)});
  }
  if (failure_) throw_failure(rank, describe(call));
  // The first to arrive: nobody reads the calls of the meeting before any more.
  if (arrived_ == 0) std::fill(calls_.begin(), calls_.end(), nullptr);
  calls_[static_cast<std::size_t>(rank)] = &call;
  ++arrived_;
  if (arrived_ < size()) {
    const std::uint64_t meeting = meetings_;
    met_.wait(lock, [&] { return meetings_ != meeting || failure_; });
    if (meetings_ == meeting) throw_failure(rank, describe(call));
    return;
  }
  if (const auto problem = mismatch(calls_)) {
    fail({*problem, true});
    throw_failure(rank, describe(call));
  }
  if (call.kind == CallKind::split) make_children();
  arrived_ = 0;
  ++meetings_;
  met_.notify_all();
}

void Group::leave() {
  std::unique_lock lock(mutex_);
  ++leaving_;
  if (leaving_ < size()) {
    const std::uint64_t leaving = leavings_;
    left_.wait(lock, [&] { return leavings_ != leaving; });
    return;
  }
  leaving_ = 0;
  ++leavings_;
  left_.notify_all();
}

void Group::abort(const std::string& reason) {
  std::vector<std::shared_ptr<Group>> children;
  {
    const std::lock_guard lock(mutex_);
    if (!failure_) fail({reason});
    for (const auto& weak : children_) {
      if (auto child = weak.lock()) children.push_back(std::move(child));
    }
  }
  for (const auto& child : children) child->abort(reason);
}

void Group::retire(int rank) {
  const std::lock_guard lock(mutex_);
  if (retired_ < 0) retired_ = rank;
  gone_[static_cast<std::size_t>(rank)] = true;
  wake_flights();
  if (failure_ || arrived_ == 0) return;
  const auto waiting =
      std::find_if(calls_.begin(), calls_.end(), [](const Call* call) { return call != nullptr; });
  fail({fmt::format("rank {} called {}, but rank {} has left the group",
                    std::distance(calls_.begin(), waiting), describe(**waiting), rank)});
}

void Group::fail(Failure failure) {
  failure_ = std::move(failure);
  met_.notify_all();
  wake_flights();
}

void Group::make_children() {
  std::erase_if(children_, [](const std::weak_ptr<Group>& child) { return child.expired(); });
  std::vector<std::size_t> order(calls_.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return std::pair(calls_[a]->color, calls_[a]->key) <
           std::pair(calls_[b]->color, calls_[b]->key);
  });
  for (auto first = order.begin(); first != order.end();) {
    const int color = calls_[*first]->color;
    const auto last =
        std::find_if(first, order.end(), [&](std::size_t r) { return calls_[r]->color != color; });
    const auto child = std::make_shared<Group>(static_cast<int>(last - first), shared_from_this());
    children_.push_back(child);
    for (int rank = 0; first != last; ++first, ++rank) {
      calls_[*first]->child = child;
      calls_[*first]->child_rank = rank;
    }
  }
}

void Group::throw_failure(int rank, const std::string& call) const {
  const std::string message = fmt::format("{} (rank {} was in {})", failure_->reason, rank, call);
  if (failure_->found_here) throw CommError(message);
  throw OthersFailed(message);
}

}  // namespace spdnn::comm
