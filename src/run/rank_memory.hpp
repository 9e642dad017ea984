// A rank's memory for activations, beside its weights.
#pragma once

#include <map>
#include <optional>
#include <vector>

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

/// `images`: of the whole run; `capacity`: that the rank has under way at once; `wanted`: images
/// whose outputs are to be kept.
struct RankMemory {
  RankMemory(Device& device, std::int64_t features, std::int64_t images, std::int64_t capacity,
             std::int64_t segments, std::size_t wanted)
      : work{Slots(device, features, capacity), Slots(device, features, capacity)} {
    parent = device.allocate(static_cast<std::size_t>(images) * sizeof(std::int32_t));
    alive = device.allocate(static_cast<std::size_t>(capacity + panel_width(device.info())));
    const auto counts = static_cast<std::size_t>(segments + 1) * sizeof(std::int32_t);
    live = device.allocate(counts);
    host_live = device.allocate_host(counts);
    const auto& layout = layout_kernels<float>(device.info().kind);
    workspace = device.allocate(layout.compact_workspace_bytes(capacity));
    if (layout.settle != nullptr) settling.emplace(device, layout, images, capacity, wanted);
  }
  /// Images alive after a segment: on the device, and as known on the host.
  [[nodiscard]] std::int32_t* live_after(std::size_t segment) const {
    return live.as<std::int32_t>() + segment + 1;
  }
  [[nodiscard]] std::int32_t& known_after(std::size_t segment) const {
    return host_live.as<std::int32_t>()[segment + 1];
  }

  /// Where images are let go on the device; see `SettleArgs`.
  struct Settling {
    Settling(Device& device, const LayoutKernels<float>& layout, std::int64_t images,
             std::int64_t capacity, std::size_t wanted_images) {
      const auto slots = static_cast<std::size_t>(capacity + panel_width(device.info()));
      first = device.allocate(slots * sizeof(std::int32_t));
      unchanged = device.allocate(slots);
      workspace = device.allocate(layout.find_equal_workspace_bytes(capacity));
      wanted = device.allocate(wanted_images * sizeof(std::int32_t));
      finished = device.allocate(static_cast<std::size_t>(images));
      is_wanted = device.allocate(static_cast<std::size_t>(images));
      counts = device.allocate(2 * sizeof(std::int64_t));
    }
    Buffer first, unchanged, workspace;  ///< by slot
    Buffer wanted;
    Buffer finished, is_wanted;  ///< by image
    Buffer counts;               ///< of equal and of fixed images
  };

  Slots work[2];  ///< input and output of a layer
  Buffer parent;  ///< by image: which one it was merged into on this rank, or −1
  Buffer alive, workspace;
  Buffer live, host_live;  ///< images alive at first and after each segment, there and here
  std::optional<Settling> settling;    ///< where the host does not see a device's flags
  std::map<std::size_t, Slots> pools;  ///< by segment: images waiting for it
};

}  // namespace spdnn
