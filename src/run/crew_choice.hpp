// How images under way are shared with idle ranks, and whether a rank is to be helped with the rows
// of its layers by ranks of other processes.
#pragma once

#include <cstdint>
#include <vector>

#include "spdnn/plan.hpp"

namespace spdnn {

/// What a rank has still to do with its images.
struct CrewWork {
  double seconds = 0.0;  ///< that it would take alone
  std::int64_t layers = 0;
  std::int64_t rows = 0;    ///< of all these layers
  std::int64_t inputs = 0;  ///< features of the first one's inputs
  std::int64_t images = 0;
};

/// Seconds that `work` takes a rank of relative speed `speeds[rank]` with so many helpers of the
/// others' average speed: the leader's share of the rows, for every layer a message of its rows
/// from each member to each other one, and once the images to the helpers.
[[nodiscard]] double seconds_in_crew(const CrewWork& work, const std::vector<double>& speeds,
                                     int rank, std::size_t helpers, const MessageCost& messages);

/// How many of `idle` helpers `rank` is to ask: as many as make it done soonest; none where it
/// would not be `worth` times as fast as it is alone.
[[nodiscard]] std::size_t choose_helpers(const CrewWork& work, const std::vector<double>& speeds,
                                         int rank, std::size_t idle, const MessageCost& messages,
                                         double worth);

/// What it takes a rank to hand images under way to others, one after another.
struct Handing {
  double first_s = 0.0;  ///< until a helper has anything
  double image_s = 0.0;  ///< for every image
};

/// Of images of so many features, by messages that cost so much.
[[nodiscard]] Handing handing_of(std::int64_t features, const MessageCost& messages);

/// Who takes how many of `parts` equal parts of some images so that the last is done soonest; by
/// member, whom a part takes `seconds`. The first member has them, and hands a part to another one
/// in `handing.image_s`. The first ones come first where it makes no difference.
[[nodiscard]] std::vector<std::int64_t> share_parts(std::int64_t parts,
                                                    const std::vector<double>& seconds,
                                                    const Handing& handing);

}  // namespace spdnn
