// What ranks tell one another of a layer split by inputs: parts of sums on the way there, and the
// gradient by the sums on the way back. It is a halo the other way round.
#pragma once

#include "shard.hpp"

namespace spdnn::train {

template <class T>
class SumExchange {
 public:
  /// Room for `most_images` images, on a device whose memory is the host's. All but the number must
  /// live as long; calls get the same stream.
  SumExchange(const PartialSums& sums, Communicator& comm, Device& device, Stream& stream,
              std::int64_t most_images)
      : sums_(sums), exchange_(sums.halo, comm, device, stream, most_images) {}

  /// Features of the parts that this rank computes, and of the units that it owns.
  [[nodiscard]] std::int64_t parts() const { return sums_.halo.inputs; }
  [[nodiscard]] std::int64_t own() const { return sums_.halo.own; }
  [[nodiscard]] const Epilogue& activation() const { return sums_.activation; }

  /// Sends what others own of `parts`; `own` becomes this rank's part.
  void start_sums(const Panels<const T>& parts, const Panels<T>& own, Range panels,
                  Stream& stream) {
    exchange_.start_backward(parts, own, panels, stream);
  }
  /// Makes outputs of `own`: adds what came, in order of rank, then comes the activation.
  void finish_sums(const Panels<T>& own, Range panels, Stream& stream);
  /// Sends the gradient by the own units' sums to all that have a part in them.
  void start_gradient(const Panels<const T>& own, const Panels<T>& parts, Range panels,
                      Stream& stream) {
    exchange_.start_forward(own, parts, panels, stream);
  }
  void finish_gradient(const Panels<T>& parts, Range panels, Stream& stream) {
    exchange_.finish_forward(parts, panels, stream);
  }

  [[nodiscard]] std::int64_t device_bytes() const { return exchange_.device_bytes(); }
  /// Bytes of sums, and of gradients, that this rank sent so far.
  [[nodiscard]] std::int64_t forward_bytes() const { return exchange_.backward_bytes(); }
  [[nodiscard]] std::int64_t backward_bytes() const { return exchange_.forward_bytes(); }

 private:
  const PartialSums& sums_;
  HaloExchange<T> exchange_;
};

}  // namespace spdnn::train
