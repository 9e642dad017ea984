// A rank's memory for activations, beside its weights.
#pragma once

#include <map>

#include "spdnn/op.hpp"

namespace spdnn {

/// Images at one depth of the network: activations, and which image a slot holds.
struct Slots {
  Slots(Device& device, std::int64_t features, std::int64_t images) {
    const std::int64_t width = panel_width(device.info());
    const Panels<float> shape = {nullptr, features, images, width, nullptr};
    activations = device.allocate(static_cast<std::size_t>(shape.size()) * sizeof(float));
    ids = device.allocate(static_cast<std::size_t>(images) * sizeof(std::int32_t));
  }
  Buffer activations, ids;
  std::int64_t count = 0;  ///< images set aside, in a pool
};

/// `images`: of the whole run; `capacity`: that the rank has under way at once.
struct RankMemory {
  RankMemory(Device& device, std::int64_t features, std::int64_t images, std::int64_t capacity,
             std::int64_t segments)
      : work{Slots(device, features, capacity), Slots(device, features, capacity)} {
    parent = device.allocate(static_cast<std::size_t>(images) * sizeof(std::int32_t));
    alive = device.allocate(static_cast<std::size_t>(capacity + panel_width(device.info())));
    const auto counts = static_cast<std::size_t>(segments) * sizeof(std::int32_t);
    live = device.allocate(counts);
    host_live = device.allocate_host(counts);
    const auto& layout = layout_kernels<float>(device.info().kind);
    workspace = device.allocate(layout.compact_workspace_bytes(capacity));
  }
  Slots work[2];  ///< input and output of a layer
  Buffer parent;  ///< by image: which one it was merged into on this rank, or −1
  Buffer alive, workspace;
  Buffer live, host_live;  ///< images alive after each segment, on the device and as known here
  std::map<std::size_t, Slots> pools;  ///< by segment: images waiting for it
};

}  // namespace spdnn
