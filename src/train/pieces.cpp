// How large pieces are, and their way through the network.
#include "pieces.hpp"

#include <algorithm>
#include <limits>

namespace spdnn::train {
namespace {

/// What a core may count on of the second- and third-level caches, which ranks that compute at the
/// same time share: beyond it they wait for the same memory.
constexpr std::int64_t kCacheBytes = std::int64_t{4} << 20U;

}  // namespace

std::int64_t images_at_once(const TrainSpec& spec, const std::vector<TrainLayer>& layers,
                            const DeviceInfo& device) {
  if (device.kind != DeviceKind::cpu || spec.rewire.method == RewireMethod::rigl) {
    return std::numeric_limits<std::int64_t>::max();
  }
  std::int64_t features = layers.front().inputs();
  std::int64_t widest = 0;
  for (const TrainLayer& layer : layers) {
    features += layer.outputs();
    widest = std::max(widest, layer.outputs());
  }
  const std::int64_t width = panel_width(device);
  const std::int64_t bytes = (features + 2 * widest) * static_cast<std::int64_t>(sizeof(float));
  return std::max<std::int64_t>(kCacheBytes / (bytes * width), 1) * width;
}

Batch piece_of(const Batch& batch, std::int64_t begin, std::int64_t count) {
  Batch piece = batch;
  piece.x.data = batch.x.panel(begin / batch.x.width);
  piece.x.batch = std::min(count, batch.x.batch - begin);
  piece.labels = batch.labels + begin;
  return piece;
}

PiecePass::Next PiecePass::pieces_of(const Batch& batch) const {
  return [batch, begin = std::int64_t{0}, at_once = at_once_]() mutable -> std::optional<Batch> {
    if (begin > 0 && begin >= batch.x.batch) return {};
    const Batch piece = piece_of(batch, begin, at_once);
    const bool last = at_once >= batch.x.batch - begin;
    begin = last ? std::max<std::int64_t>(batch.x.batch, 1) : begin + at_once;
    return piece;
  };
}

Batch PiecePass::run(const Next& next, Loss loss, float scale, const After& after,
                     const AnyBatchPass<float>::Visit& visit) {
  Batch piece = next().value();
  for (bool first = true;; first = false) {
    pass_.start(piece.x, loss, piece.labels, scale);
    pass_.backward(visit, !first);
    const std::optional<Batch> following = next();
    if (!following) return piece;
    after(piece);
    piece = *following;
  }
}

void PiecePass::measure(const Batch& batch, Loss loss, const After& after) {
  std::int64_t begin = 0;
  do {
    const Batch piece = piece_of(batch, begin, at_once_);
    pass_.start(piece.x, loss, piece.labels, 1.0F);
    after(piece);
    begin += at_once_;
  } while (begin < batch.x.batch);
}

}  // namespace spdnn::train
