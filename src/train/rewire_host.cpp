// Connections decided on the host, where a rank has all rows of a layer: its gradient comes some
// rows at a time, and what changes is written where it is, so that no other memory moves.
#include <algorithm>
#include <optional>
#include <utility>

#include "host_view.hpp"
#include "rewire.hpp"

namespace spdnn::train {
namespace {

/// Places whose gradients are there at a time.
constexpr std::int64_t kPlaces = std::int64_t{1} << 18U;

class HostRewirer final : public Rewirer {
 public:
  using Rewirer::Rewirer;
  /// A layer's way back is done when it is seen: its connections change at once.
  void observe(std::size_t layer, const AnyBatchPass<float>::GradientOn& gradient,
               double part_done) override;
  std::int64_t apply(double part_done) override;

 private:
  [[nodiscard]] std::int64_t count_of(std::size_t layer, double part_done) {
    return is_sparse(layer) ? count_for(worker_.network().pattern(layer), part_done) : 0;
  }
  [[nodiscard]] HostView<float> values_of(std::size_t layer) const {
    const Network<float>& network = worker_.network();
    const Range values = network.values_of(layer);
    return {network.parameters() + values.begin, values.size(), network.device(), network.stream()};
  }
  [[nodiscard]] NextPattern grow_largest(std::size_t layer, std::int64_t count,
                                         const AnyBatchPass<float>::GradientOn& gradient);
  void weigh(std::size_t layer, std::optional<GrowLargest>& choice,
             const AnyBatchPass<float>::GradientOn& gradient);
  void change(std::size_t layer, NextPattern next);

  std::int64_t grown_ = 0;  ///< since `apply` last told
};

/// On the first rank; the others help it with the gradient.
NextPattern HostRewirer::grow_largest(std::size_t layer, std::int64_t count,
                                      const AnyBatchPass<float>::GradientOn& gradient_on) {
  const Pattern& pattern = worker_.network().pattern(layer);
  std::optional<GrowLargest> choice;
  if (data_.rank() == 0) choice.emplace(pattern, values_of(layer).data(), count);
  weigh(layer, choice, gradient_on);
  if (!choice) return {};
  NextPattern next = choice->finish();
  count_bytes(choice->bytes() + next.bytes());
  return next;
}

/// Shows the gradients of all places to the choice, where there is one.
void HostRewirer::weigh(std::size_t layer, std::optional<GrowLargest>& choice,
                        const AnyBatchPass<float>::GradientOn& gradient_on) {
  Network<float>& network = worker_.network();
  Device& device = network.device();
  const TrainLayer& of = network.layers()[layer];
  const std::int64_t rows = of.pattern.rows();
  const std::int64_t cols = of.pattern.cols();
  const std::int64_t at_once = std::clamp<std::int64_t>(kPlaces / cols, 1, rows);
  const Buffer gradient =
      device.allocate(static_cast<std::size_t>(at_once * (cols + 1)) * sizeof(float));
  auto* const values = gradient.as<float>();
  for (std::int64_t begin = 0; begin < rows; begin += at_once) {
    const TrainLayer part = {Pattern::dense(std::min(at_once, rows - begin), cols), of.activation,
                             of.form};
    const std::int64_t places = part.pattern.nnz();
    gradient_on(part, begin, nullptr, values, values + places);
    sum(values, places);
    if (!choice) continue;
    const HostView<float> found(values, places, device, network.stream());
    choice->weigh({found.data(), static_cast<std::size_t>(places)});
  }
  const std::int64_t bytes =
      static_cast<std::int64_t>(gradient.bytes()) + worker_.pass().cut_bytes();
  const bool here = shares_memory(device);
  if (!here) device_bytes_ = std::max(device_bytes_, bytes);
  count_bytes((choice ? choice->bytes() : 0) + (here ? bytes : 0));
}

void HostRewirer::observe(std::size_t layer, const AnyBatchPass<float>::GradientOn& gradient,
                          double part_done) {
  const std::int64_t count = count_of(layer, part_done);
  if (count > 0) change(layer, grow_largest(layer, count, gradient));
}

std::int64_t HostRewirer::apply(double part_done) {
  for (std::size_t l = 0; l < worker_.layers().size() && !needs_gradient(); ++l) {
    const std::int64_t count = count_of(l, part_done);
    if (count == 0) continue;
    NextPattern next;
    if (data_.rank() == 0) {
      next = grow_random(worker_.network().pattern(l), values_of(l).data(), count, spec_.seed,
                         grow_stream(l));
    }
    change(l, std::move(next));
  }
  return std::exchange(grown_, 0);
}

/// As the first rank says, on all of them.
void HostRewirer::change(std::size_t layer, NextPattern next) {
  Network<float>& network = worker_.network();
  Stream& stream = network.stream();
  tell(network.pattern(layer), next);
  const std::int64_t moved_bytes = std::ssize(next.source) * std::int64_t{sizeof(float)};
  count_bytes(next.bytes() + moved_bytes);
  for (float* const array : arrays_of(layer)) {
    const HostView<float> now(array, std::ssize(next.source), network.device(), stream);
    const std::vector<float> moved = next.move(now.data());
    stream.copy(array, moved.data(), moved.size() * sizeof(float));
    stream.synchronize();
  }
  network.replace_pattern(layer, std::move(next.row_offsets), std::move(next.col_indices));
  grown_ += next.grown;
}

}  // namespace

std::unique_ptr<Rewirer> make_host_rewirer(const TrainSpec& spec, Worker& worker,
                                           Communicator& data) {
  return std::make_unique<HostRewirer>(spec, worker, data);
}

}  // namespace spdnn::train
