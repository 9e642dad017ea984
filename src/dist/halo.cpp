// Halo lists: every rank asks the owners for what its rows read.
#include "spdnn/halo.hpp"

#include <fmt/format.h>

#include <cstring>
#include <numeric>

namespace spdnn {
namespace {

std::int64_t words(const std::vector<HaloPiece>& pieces) {
  return std::accumulate(
      pieces.begin(), pieces.end(), std::int64_t{0},
      [](std::int64_t sum, const HaloPiece& piece) { return sum + std::ssize(piece.rows); });
}

using List = std::vector<std::uint32_t>;

std::vector<std::byte> bytes_of(const List& list) {
  const auto bytes = std::as_bytes(std::span(list));
  return {bytes.begin(), bytes.end()};
}

List list_of(const std::vector<std::byte>& bytes) {
  List list(bytes.size() / sizeof(std::uint32_t));
  if (!list.empty()) std::memcpy(list.data(), bytes.data(), bytes.size());
  return list;
}

/// Whether it is so on any rank.
bool any(Communicator& comm, bool here) {
  std::uint8_t there = here ? 1 : 0;
  comm.all_reduce(&there, &there, 1, DType::u8, Reduction::max, nullptr);
  return there != 0;
}

}  // namespace

std::vector<std::vector<std::byte>> exchange_blocks(Communicator& comm,
                                                    std::vector<std::vector<std::byte>> blocks) {
  const auto ranks = static_cast<std::size_t>(comm.size());
  std::vector<std::int64_t> counts;
  for (const auto& block : blocks) counts.push_back(std::ssize(block));
  std::vector<std::int64_t> all(ranks * ranks);
  const std::vector<std::int64_t> each(ranks, comm.size());
  comm.all_gather(counts.data(), all.data(), each, DType::i64, nullptr);
  std::vector<std::vector<std::byte>> got(ranks);
  std::vector<Communicator::Message> sends, receives;
  for (int peer = 0; peer < comm.size(); ++peer) {
    auto& out = blocks[peer];
    auto& in = got[peer];
    if (peer == comm.rank()) {
      in = std::move(out);
      continue;
    }
    in.resize(static_cast<std::size_t>(all[peer * comm.size() + comm.rank()]));
    if (!out.empty()) sends.push_back({peer, out.data(), out.size()});
    if (!in.empty()) receives.push_back({peer, in.data(), in.size()});
  }
  comm.exchange(sends, receives, nullptr);
  return got;
}

std::int64_t Halo::words_sent() const { return words(sends); }
std::int64_t Halo::words_received() const { return words(receives); }

Halo make_halo(Communicator& comm, std::span<const std::uint32_t> owners,
               std::span<const std::uint32_t> own, const std::vector<std::uint32_t>& needed) {
  Halo halo;
  halo.own = std::ssize(own);
  halo.inputs = std::ssize(needed);
  std::vector<std::uint32_t> place(owners.size());  // of an own feature in this rank's order
  for (std::size_t i = 0; i < own.size(); ++i) place[own[i]] = static_cast<std::uint32_t>(i);
  std::vector<List> asked(static_cast<std::size_t>(comm.size()));
  std::vector<List> rows(asked.size());  // of inputs, as asked
  for (std::size_t i = 0; i < needed.size(); ++i) {
    const std::uint32_t owner = owners[needed[i]];
    if (static_cast<int>(owner) == comm.rank()) {
      halo.own_from.push_back(place[needed[i]]);
      halo.own_to.push_back(static_cast<std::uint32_t>(i));
    } else {
      asked[owner].push_back(needed[i]);
      rows[owner].push_back(static_cast<std::uint32_t>(i));
    }
  }
  std::vector<std::vector<std::byte>> requests;
  for (const List& list : asked) requests.push_back(bytes_of(list));
  requests = exchange_blocks(comm, std::move(requests));
  for (int peer = 0; peer < comm.size(); ++peer) {
    List wanted = list_of(requests[peer]);
    for (std::uint32_t& feature : wanted) {
      if (feature >= owners.size() || static_cast<int>(owners[feature]) != comm.rank()) {
        throw CommError(fmt::format("rank {} asks rank {} for feature {}, which it does not own",
                                    peer, comm.rank(), feature));
      }
      feature = place[feature];
    }
    if (!wanted.empty()) halo.sends.push_back({peer, std::move(wanted)});
    if (!rows[peer].empty()) halo.receives.push_back({peer, std::move(rows[peer])});
  }
  halo.in_place = halo.receives.empty() && halo.own == halo.inputs && halo.own_from == halo.own_to;
  halo.crosses = any(comm, !halo.receives.empty());
  return halo;
}

Halo local_halo(std::int64_t features) {
  Halo halo;
  halo.own = halo.inputs = features;
  halo.own_from.resize(static_cast<std::size_t>(features));
  std::iota(halo.own_from.begin(), halo.own_from.end(), 0U);
  halo.own_to = halo.own_from;
  halo.in_place = true;
  return halo;
}

}  // namespace spdnn
