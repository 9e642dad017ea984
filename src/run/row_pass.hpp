// One rank's part in a forward pass in which every rank owns some rows of each layer, and gets
// what they read of the others' from those who computed it (Demirci and Ferhatosmanoglu, ICS 2021).
#pragma once

#include <memory>

#include "pass.hpp"

namespace spdnn {

/// Drives one device. The ranks of a group take the same images through the same segments; images
/// die where they do on all of them. Used from the thread that opened the device.
class RowPass {
 public:
  /// `comm` is a group of the plan, `rank` this one among all ranks; `context.rows` holds the
  /// owners by number in a group.
  RowPass(const PassContext& context, std::size_t rank, Communicator& comm, Device& device,
          const DeviceSpec& spec);
  ~RowPass();
  /// Cuts out this rank's rows and allocates memory. All ranks of the group call it.
  void prepare();
  /// Takes the group's images to the end. Its first rank has what was found; what was sent, every
  /// rank knows of itself.
  [[nodiscard]] PassResult run();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace spdnn
