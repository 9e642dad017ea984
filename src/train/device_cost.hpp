// What training steps, and rows of layers, cost on a rank's device.
#pragma once

#include <span>
#include <vector>

#include "layer.hpp"
#include "spdnn/balance.hpp"
#include "spdnn/train.hpp"

namespace spdnn::train {

/// Images that a device's share of a batch is a multiple of: on a CPU half a vector of 512 bits,
/// since convolutions leave out what no image needs, elsewhere a panel.
[[nodiscard]] std::int64_t grain_of(const DeviceInfo& device);

/// Who else is there while a device is measured.
struct Company {
  std::int64_t cpu_ranks = 1;  ///< that share the host's memory
  std::int64_t twins = 1;      ///< of the same host, measured at the same time
};

struct DeviceCost {
  std::int64_t most = 0;                            ///< images that fit
  std::vector<CostCurve::Point> steps;              ///< seconds of a step with all rows, by images
  std::vector<std::vector<CostCurve::Point>> rows;  ///< by layer: seconds an image, by units
};

/// This rank's device, measured or remembered from an earlier run; rows only where asked for.
[[nodiscard]] DeviceCost measure_device(const TrainSpec& spec,
                                        const std::vector<TrainLayer>& layers, Device& device,
                                        const Company& company, bool rows);

/// As numbers that travel in one message, and back.
[[nodiscard]] std::vector<double> to_numbers(const DeviceCost& cost);
[[nodiscard]] DeviceCost from_numbers(std::span<const double> numbers);

}  // namespace spdnn::train
