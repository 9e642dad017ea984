// Memory that stays for the next one who needs as much.
#pragma once

#include "spdnn/device.hpp"

namespace spdnn::train {

/// At least so many bytes, unset, in `buffer`: what is there already where it is enough. Returns
/// where they are.
inline void* ensure(Device& device, Buffer& buffer, std::size_t bytes) {
  if (buffer.bytes() < bytes) {
    buffer = {};  // first, so that both are never there at once
    buffer = device.allocate(bytes);
  }
  return buffer.data();
}

}  // namespace spdnn::train
