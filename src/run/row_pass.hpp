// One rank's part in a forward pass in which every rank owns some rows of each layer, and gets
// what they read of the others' from those who computed it (Demirci and Ferhatosmanoglu, ICS 2021).
#pragma once

#include <memory>

#include "pass.hpp"

namespace spdnn {

/// Drives one device. All ranks take the same images through the same segments; images die where
/// they do on all ranks. Used from the thread that opened the device.
class RowPass {
 public:
  /// `context.rows` holds the owners.
  RowPass(const PassContext& context, Communicator& comm, Device& device, const DeviceSpec& spec);
  ~RowPass();
  /// Cuts out this rank's rows and allocates memory. All ranks call it.
  void prepare();
  /// Takes all images to the end. Rank 0 has what was found; what was sent, every rank knows of
  /// itself.
  [[nodiscard]] PassResult run();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace spdnn
