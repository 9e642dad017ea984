// A rank's work on a batch in pieces: few enough images that what they leave behind in each layer
// is still in the caches when the way back needs it.
#pragma once

#include <functional>
#include <optional>

#include "any_pass.hpp"
#include "loader.hpp"
#include "spdnn/train.hpp"

namespace spdnn::train {

/// Images that a device takes through these layers at once: on a CPU whole panels, at least one,
/// that depend on nothing but the layers, so that equal runs have equal bits on any machine with
/// any number of threads. Elsewhere, and where rewiring looks at a whole batch, any number.
[[nodiscard]] std::int64_t images_at_once(const TrainSpec& spec,
                                          const std::vector<TrainLayer>& layers,
                                          const DeviceInfo& device);

/// The images of a batch from `begin` on, where a panel begins, at most `count` of them.
[[nodiscard]] Batch piece_of(const Batch& batch, std::int64_t begin, std::int64_t count);

/// Takes batches through a pass piece by piece, and adds up the gradients of the pieces in order.
class PiecePass {
 public:
  /// Pieces of up to `at_once` images, for which `pass` has room; it must live as long.
  PiecePass(AnyBatchPass<float>& pass, std::int64_t at_once) : pass_(pass), at_once_(at_once) {}

  /// Called behind each piece whose loss is to be fetched (`AnyBatchPass::finish_loss`) before the
  /// next one starts.
  using After = std::function<void(const Batch& piece)>;
  /// The next piece, of any batch, when the one before is computed; there is at least one, which
  /// may be without images.
  using Next = std::function<std::optional<Batch>()>;
  /// Fills the network's gradient from all pieces, each of at most as many images as there is room
  /// for. Returns the last piece, whose loss is left to be fetched; `after` was called for all
  /// others.
  Batch run(const Next& next, Loss loss, float scale, const After& after,
            const AnyBatchPass<float>::Visit& visit = {});
  /// The pieces of one batch.
  [[nodiscard]] Next pieces_of(const Batch& batch) const;
  /// The most images of a piece.
  [[nodiscard]] std::int64_t at_once() const noexcept { return at_once_; }
  /// The way forward and the loss alone; `after` is called for every piece.
  void measure(const Batch& batch, Loss loss, const After& after);

 private:
  AnyBatchPass<float>& pass_;
  std::int64_t at_once_;
};

}  // namespace spdnn::train
