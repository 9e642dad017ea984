// The time of a crew from measured costs.
#include "crew_choice.hpp"

#include <algorithm>
#include <numeric>

namespace spdnn {
namespace {

/// Letters one after another until a crew has begun: asking, being given helpers, telling them, and
/// the first step.
constexpr double kLettersToBegin = 4.0;

}  // namespace

double seconds_in_crew(const CrewWork& work, const std::vector<double>& speeds, int rank,
                       std::size_t helpers, const MessageCost& messages) {
  const double own = std::max(speeds[static_cast<std::size_t>(rank)], 1e-30);
  const double sum = std::accumulate(speeds.begin(), speeds.end(), 0.0) - own;
  const double other = std::max(sum, 0.0) / std::max(static_cast<double>(speeds.size()) - 1.0, 1.0);
  const auto count = static_cast<double>(helpers);
  const double all = own + count * other;
  // A member sends its rows to each of `count` others, and receives all but its own.
  const double largest = std::max(own, other) / all;
  const double copies = 1.0 + (count - 1.0) * largest;
  const double values = static_cast<double>(work.rows) * static_cast<double>(work.images);
  const double inputs = static_cast<double>(work.inputs) * static_cast<double>(work.images);
  const double bytes = (values * copies + inputs * count) * sizeof(float);
  return work.seconds * own / all +
         (static_cast<double>(work.layers) + kLettersToBegin) * messages.latency_s +
         static_cast<double>(work.rows + work.inputs) * messages.seconds_per_row +
         bytes * messages.seconds_per_byte;
}

std::size_t choose_helpers(const CrewWork& work, const std::vector<double>& speeds, int rank,
                           std::size_t idle, const MessageCost& messages, double worth) {
  std::size_t best = 0;
  double least = work.seconds;
  for (std::size_t helpers = 1; helpers <= idle; ++helpers) {
    const double seconds = seconds_in_crew(work, speeds, rank, helpers, messages);
    if (seconds * worth > work.seconds || (best > 0 && seconds >= least)) continue;
    least = seconds;
    best = helpers;
  }
  return best;
}

Handing handing_of(std::int64_t features, const MessageCost& messages) {
  const double bytes = static_cast<double>(features) * sizeof(float);
  return {kLettersToBegin * messages.latency_s, bytes * messages.seconds_per_byte};
}

std::vector<std::int64_t> share_parts(std::int64_t parts, const std::vector<double>& seconds,
                                      const Handing& handing) {
  std::vector<std::int64_t> shares(seconds.size(), 0);
  const auto done = [&](std::size_t member) {  // with one part more
    const double work = static_cast<double>(shares[member] + 1) * seconds[member];
    if (member == 0) return work;
    const std::int64_t handed = std::accumulate(shares.begin() + 1, shares.end(), std::int64_t{1});
    return handing.first_s + static_cast<double>(handed) * handing.image_s + work;
  };
  for (; parts > 0; --parts) {
    std::size_t next = 0;
    for (std::size_t member = 1; member < seconds.size(); ++member) {
      if (done(member) < done(next)) next = member;
    }
    ++shares[next];
  }
  return shares;
}

}  // namespace spdnn
