// How unlike devices share the steps of a training: by images, by rows of the layers, or by both.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "spdnn/balance.hpp"
#include "spdnn/partition.hpp"
#include "spdnn/plan.hpp"

namespace spdnn {

/// What is to be shared.
struct TrainProblem {
  std::int64_t batch = 1;  ///< images of a step
  std::int64_t grain = 1;  ///< images that are shared together
  /// By layer: neurons or filters; 0 for a pooling, which is shared as the layer before it.
  std::vector<std::int64_t> units;
  /// By layer: bytes that an image's inputs take which ranks that share rows tell each other, there
  /// and back; the last entry is what all devices would say of the loss. One more than layers.
  std::vector<double> halo_bytes;
  /// By layer: bytes that an image's sums take, where ranks tell each other these instead of the
  /// inputs; 0 where a layer can't be split by inputs, as the first one and poolings. None: no
  /// layer can.
  std::vector<double> sum_bytes;
  /// By layer, how it is split; empty: each as is modelled to be sooner done.
  std::vector<LayerSplit> splits;
  double parameter_bytes = 0.0;
  CollectiveCost sums;   ///< of gradients between ranks with the same rows
  CollectiveCost halos;  ///< between ranks that share rows
};

/// What one device takes, as measured.
struct TrainDevice {
  RankCost images;  ///< a step with all rows, by images
  /// By layer: an image's way there and back, by units; slower by the factor of `images`. Not
  /// looked at where rows are not shared.
  std::vector<CostCurve> rows;
  /// Times that this device takes for one and the same piece of a layer between meetings of ranks,
  /// as multiples of their mean, ascending and equally likely; none: always the same.
  std::vector<double> spread;
};

/// What planning by speed goes by: measured, or known beforehand.
struct TrainCosts {
  std::vector<TrainDevice> devices;  ///< by rank
  CollectiveCost sums, halos;        ///< as in `TrainProblem`
};

/// How many times longer devices take together that meet after each layer, and would take equally
/// long on average: the mean of the longest of their times, since it is another one's each time.
[[nodiscard]] double waiting_factor(std::span<const TrainDevice> devices);

/// Who does what. Ranks that share the rows of a network are a group; each group has images of its
/// own, and ranks with the same number in their groups the same rows.
struct TrainLayout {
  Strategy strategy = Strategy::data;  ///< data, model or grid
  std::int64_t rows = 1;               ///< ranks of a group
  std::vector<std::int64_t> places;    ///< by device: group · rows + number in it; −1: left out
  std::vector<std::int64_t> images;    ///< of a step, by group
  std::vector<std::vector<std::int64_t>> units;  ///< by layer: by number in the group
  std::vector<LayerSplit> splits;                ///< by layer; empty where every rank has all rows
  double work_s = 0.0, communication_s = 0.0;
  [[nodiscard]] double seconds() const { return work_s + communication_s; }
};

/// The layout of a strategy with the shortest step; of `automatic` the best of all of them.
///
/// data: `choose_ranks`. model: for each number of ranks the fastest ones, every layer shared so
/// that its last rank is done soonest, since ranks meet before each. grid: all devices, in groups
/// of `rows` (0: of any number that divides them), each number of a group held by devices that are
/// next to each other in speed; images and rows are shared in turn until neither gains.
/// Throws `InputError` where there is no room for the batch, or `rows` does not divide the devices.
[[nodiscard]] TrainLayout lay_out(const TrainProblem& problem, std::span<const TrainDevice> devices,
                                  Strategy strategy, std::int64_t rows = 0);

/// Layers by inputs where that takes fewer bytes, the others by outputs, for devices of which
/// nothing is known: as many messages go either way.
[[nodiscard]] std::vector<LayerSplit> splits_by_bytes(const TrainProblem& problem);

/// Units (`TrainLayout::units`) with which ranks are done with each layer as soon as can be, their
/// groups having so many images; `devices` by place. A layer split by inputs is work of those who
/// own what it reads, so it counts with the layer before; where nothing else depends on them, its
/// own units follow that one's. Empty where there is no room for them.
[[nodiscard]] std::vector<std::vector<std::int64_t>> share_rows(
    const TrainProblem& problem, std::span<const TrainDevice> devices,
    std::span<const std::int64_t> images);

/// Seconds of work of the slowest group: of each layer its last rank's, since all of a group meet
/// before the next, and their waiting for one another. Between a layer split by outputs and one
/// split by inputs they don't meet.
[[nodiscard]] double rows_seconds(const TrainProblem& problem, std::span<const TrainDevice> devices,
                                  const std::vector<std::vector<std::int64_t>>& units,
                                  std::span<const std::int64_t> images);

/// Rows that follow measured times, as `Balancer` does it with images.
class RowBalancer {
 public:
  /// Starts from the layout; `devices` by place, none left out.
  RowBalancer(TrainProblem problem, std::vector<TrainDevice> devices, const TrainLayout& layout,
              const BalanceRule& rule = {});
  [[nodiscard]] const std::vector<std::vector<std::int64_t>>& units() const { return units_; }
  /// Seconds of work of a step as far as is known.
  [[nodiscard]] double predicted() const;
  /// A step in which the ranks worked so long, by place, on so many images, by group. Returns
  /// whether units changed.
  bool observe(std::span<const std::int64_t> images, std::span<const double> seconds);

 private:
  bool change_by(int steps);

  TrainProblem problem_;
  std::vector<TrainDevice> devices_;
  std::vector<std::int64_t> images_;
  std::vector<std::vector<std::int64_t>> units_;
  RecentTimes times_;
};

}  // namespace spdnn
