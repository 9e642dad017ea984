// Connections changed where they are, in a device's memory, layer by layer.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "host_view.hpp"
#include "rewire.hpp"
#include "room.hpp"

namespace spdnn::train {
namespace {

/// How many draws find `count` unlike ones of `free` places, out of all `places`, but for luck of
/// eight deviations and more.
double draws_for(double places, double free, double count) {
  const double expected = places * std::log(free / (free - count));
  return expected + 8.0 * std::sqrt(expected) + 64.0;
}

class DeviceRewirer final : public Rewirer {
 public:
  DeviceRewirer(const TrainSpec& spec, Worker& worker, Communicator& data, const RewireRoom& room)
      : Rewirer(spec, worker, data),
        kernels_(*rewire_kernels(worker.device().info().kind)),
        room_(room) {}
  /// A layer's way back is done when it is seen: its connections change at once.
  void observe(std::size_t layer, const AnyBatchPass<float>::GradientOn& gradient,
               double part_done) override;
  std::int64_t apply(double part_done) override;

 private:
  [[nodiscard]] std::int64_t count_of(std::size_t layer, double part_done) {
    return is_sparse(layer) ? count_for(worker_.network().layers()[layer].pattern, part_done) : 0;
  }
  void make_workspace(RewireArgs& args) {
    args.workspace = ensure(worker_.device(), workspace_, kernels_.workspace_bytes(args));
  }
  void grow_at_random(std::size_t layer, std::int64_t count);
  void change(std::size_t layer, const RewireArgs& args);
  /// Of the device's memory.
  void count_device_bytes() {
    device_bytes_ =
        static_cast<std::int64_t>(workspace_.bytes() + gradient_.bytes() + found_.bytes()) +
        worker_.pass().cut_bytes();
  }
  [[nodiscard]] const float* values_of(std::size_t layer) {
    return worker_.network().parameters() + worker_.network().values_of(layer).begin;
  }

  const RewireKernels& kernels_;
  RewireRoom room_;
  std::int64_t grown_ = 0;  ///< since `apply` last told
  /// As large as any layer wanted them so far: giving memory back waits for all that a GPU has to
  /// do. What was drawn is one number.
  Buffer workspace_, gradient_, found_;
};

void DeviceRewirer::observe(std::size_t layer, const AnyBatchPass<float>::GradientOn& gradient_on,
                            double part_done) {
  RewireArgs args;
  args.count = count_of(layer, part_done);
  if (args.count == 0) return;
  Network<float>& network = worker_.network();
  Stream& stream = network.stream();
  args.pattern = network.change_pattern(layer);
  const std::int64_t cols = args.pattern.cols;
  const std::int64_t at_once = std::clamp<std::int64_t>(
      std::max(room_.places, args.pattern.nnz) / cols, 1, args.pattern.rows);
  args.places = at_once * cols;
  make_workspace(args);
  auto* const found =
      static_cast<float*>(ensure(network.device(), gradient_,
                                 static_cast<std::size_t>(args.places + at_once) * sizeof(float)));
  kernels_.drop(args, values_of(layer), stream);
  for (std::int64_t begin = 0; begin < args.pattern.rows; begin += at_once) {
    const Range rows = {begin, std::min(begin + at_once, args.pattern.rows)};
    const TrainLayer part = {Pattern::dense(rows.size(), cols), network.layers()[layer].activation,
                             network.layers()[layer].form};
    gradient_on(part, begin, nullptr, found, found + part.pattern.nnz());
    sum(found, part.pattern.nnz());
    kernels_.weigh(args, rows, found, stream);
  }
  count_device_bytes();
  change(layer, args);
}

std::int64_t DeviceRewirer::apply(double part_done) {
  for (std::size_t l = 0; l < worker_.layers().size() && !needs_gradient(); ++l) {
    const std::int64_t count = count_of(l, part_done);
    if (count > 0) grow_at_random(l, count);
  }
  return std::exchange(grown_, 0);
}

void DeviceRewirer::grow_at_random(std::size_t layer, std::int64_t count) {
  constexpr double kMostDraws = 0xffffffffU;
  Network<float>& network = worker_.network();
  Stream& stream = network.stream();
  RewireArgs args;
  args.pattern = network.change_pattern(layer);
  args.count = count;
  const auto places = static_cast<double>(args.pattern.rows * args.pattern.cols);
  double draws = room_.draws * draws_for(places, places - static_cast<double>(args.pattern.nnz),
                                         static_cast<double>(count));
  auto* const found =
      static_cast<std::int64_t*>(ensure(network.device(), found_, sizeof(std::int64_t)));
  const Random random(spec_.seed, grow_stream(layer));
  for (bool enough = false; !enough; draws *= 2.0) {
    if (draws > kMostDraws) {
      throw DeviceError(
          fmt::format("growing {} connections of layer {} takes more than {:.0f} "
                      "draws; choose a smaller `train.rewire.fraction`",
                      count, layer, kMostDraws));
    }
    args.draws = static_cast<std::int64_t>(draws) + 1;
    make_workspace(args);
    count_device_bytes();
    kernels_.drop(args, values_of(layer), stream);
    kernels_.draw(args, random, found, stream);
    const HostView<std::int64_t> got(found, 1, network.device(), stream);
    enough = *got.data() == count;
    if (enough) change(layer, args);
  }
}

void DeviceRewirer::change(std::size_t layer, const RewireArgs& args) {
  kernels_.change(args, arrays_of(layer), worker_.network().stream());
  grown_ += args.count;
}

}  // namespace

std::unique_ptr<Rewirer> make_device_rewirer(const TrainSpec& spec, Worker& worker,
                                             Communicator& data, const RewireRoom& room) {
  return std::make_unique<DeviceRewirer>(spec, worker, data, room);
}

}  // namespace spdnn::train
