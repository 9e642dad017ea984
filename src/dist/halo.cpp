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

/// One halo as far as this rank knows it, and what it asks of each of the others.
struct Asking {
  Halo halo;
  std::vector<std::uint32_t> place;  ///< of a feature in this rank's order, where it owns it
  std::vector<List> asked;           ///< by rank
};

Asking ask(const HaloRequest& request, int rank, int ranks) {
  const auto& [owners, own] = request.features;
  const List& needed = request.needed;
  Asking asking;
  Halo& halo = asking.halo;
  halo.own = std::ssize(own);
  halo.inputs = std::ssize(needed);
  asking.place.resize(owners.size());
  for (std::size_t i = 0; i < own.size(); ++i) asking.place[own[i]] = static_cast<std::uint32_t>(i);
  asking.asked.resize(static_cast<std::size_t>(ranks));
  std::vector<List> rows(asking.asked.size());  // of inputs, as asked
  for (std::size_t i = 0; i < needed.size(); ++i) {
    const std::uint32_t owner = owners[needed[i]];
    if (static_cast<int>(owner) == rank) {
      halo.own_from.push_back(asking.place[needed[i]]);
      halo.own_to.push_back(static_cast<std::uint32_t>(i));
    } else {
      asking.asked[owner].push_back(needed[i]);
      rows[owner].push_back(static_cast<std::uint32_t>(i));
    }
  }
  for (int peer = 0; peer < ranks; ++peer) {
    if (!rows[peer].empty()) halo.receives.push_back({peer, std::move(rows[peer])});
  }
  halo.in_place = halo.receives.empty() && halo.own == halo.inputs && halo.own_from == halo.own_to;
  return asking;
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

std::vector<Halo> make_halos(int rank, std::span<const HaloRequest> requests,
                             std::span<const HaloAsked> asked) {
  std::vector<Halo> halos;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    const auto ranks = static_cast<int>(asked[i].by_rank.size());
    Asking asking = ask(requests[i], rank, ranks);
    asking.halo.crosses = asked[i].crosses;
    for (int peer = 0; peer < ranks; ++peer) {
      List places;
      for (const std::uint32_t feature : asked[i].by_rank[peer]) {
        const std::vector<std::uint32_t>& owners = requests[i].features.owners;
        if (feature >= owners.size() || static_cast<int>(owners[feature]) != rank) {
          throw CommError(fmt::format("rank {} asks rank {} for feature {}, which it does not own",
                                      peer, rank, feature));
        }
        places.push_back(asking.place[feature]);
      }
      if (!places.empty()) asking.halo.sends.push_back({peer, std::move(places)});
    }
    halos.push_back(std::move(asking.halo));
  }
  return halos;
}

std::vector<Halo> make_halos(Communicator& comm, std::span<const HaloRequest> requests) {
  std::vector<std::uint8_t> crosses;
  std::vector<List> out(static_cast<std::size_t>(comm.size()));
  for (const HaloRequest& request : requests) {
    const Asking own = ask(request, comm.rank(), comm.size());
    crosses.push_back(own.halo.receives.empty() ? 0 : 1);
    for (std::size_t peer = 0; peer < out.size(); ++peer) {
      const List& asked = own.asked[peer];
      out[peer].push_back(static_cast<std::uint32_t>(asked.size()));
      out[peer].insert(out[peer].end(), asked.begin(), asked.end());
    }
  }
  std::vector<std::vector<std::byte>> blocks;
  for (const List& list : out) blocks.push_back(bytes_of(list));
  blocks = exchange_blocks(comm, std::move(blocks));
  comm.all_reduce(crosses.data(), crosses.data(), std::ssize(crosses), DType::u8, Reduction::max,
                  nullptr);
  std::vector<HaloAsked> asked(requests.size());
  for (std::size_t i = 0; i < asked.size(); ++i) asked[i].crosses = crosses[i] != 0;
  for (const auto& block : blocks) {
    const List wanted = list_of(block);
    std::span<const std::uint32_t> rest = wanted;
    for (HaloAsked& one : asked) {
      const auto features = rest.subspan(1, rest.front());
      one.by_rank.emplace_back(features.begin(), features.end());
      rest = rest.subspan(1 + features.size());
    }
  }
  return make_halos(comm.rank(), requests, asked);
}

Halo make_halo(Communicator& comm, std::span<const std::uint32_t> owners,
               std::span<const std::uint32_t> own, const std::vector<std::uint32_t>& needed) {
  const HaloRequest request = {{{owners.begin(), owners.end()}, {own.begin(), own.end()}}, needed};
  return std::move(make_halos(comm, std::span(&request, 1)).front());
}

Halo local_halo(std::int64_t features) {
  Halo halo;
  halo.own = halo.inputs = features;
  halo.in_place = true;
  return halo;
}

}  // namespace spdnn
