// What ranks do themselves in a training step, as some of them do it with nobody else there: the
// same pass, in the same order, from the same caches as in a run.
#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <numeric>

#include "spdnn/simulate.hpp"
#include "trial_step.hpp"

namespace spdnn {
namespace {

using namespace train;

/// Weights that the ranks tried out have together, at most; leading layers stand for more.
constexpr std::int64_t kMostWeights = std::int64_t{1} << 26U;
constexpr int kLeastTurns = 3, kMostTurns = 7;
constexpr double kTurnsSeconds = 1.0;

/// Seconds that this thread was in kernels since they were last set to 0.
struct InKernels {
  double forward = 0.0, backward_data = 0.0, backward_weights = 0.0, loss = 0.0;
};
thread_local InKernels in_kernels;

class Lap {
 public:
  explicit Lap(double& sum) : sum_(sum), start_(now_seconds()) {}
  Lap(const Lap&) = delete;
  Lap& operator=(const Lap&) = delete;
  ~Lap() { sum_ += now_seconds() - start_; }

 private:
  double& sum_;
  double start_;
};

/// A CPU's kernels, timed. Both gradients at once count as the one that others may wait for.
TrainKernels<float> timed_kernels() {
  TrainKernels<float> timed = cpu_kernels();
  timed.sparse.forward = [](const ForwardArgs<float>& args, Stream& stream) {
    const Lap lap(in_kernels.forward);
    cpu_kernels().sparse.forward(args, stream);
  };
  timed.sparse.backward_data = [](const BackwardDataArgs<float>& args, Stream& stream) {
    const Lap lap(in_kernels.backward_data);
    cpu_kernels().sparse.backward_data(args, stream);
  };
  timed.sparse.backward_weights = [](const BackwardWeightsArgs<float>& args, Stream& stream) {
    const Lap lap(in_kernels.backward_weights);
    cpu_kernels().sparse.backward_weights(args, stream);
  };
  timed.loss_part = [](const LossArgs<float>& args, Stream& stream) {
    const Lap lap(in_kernels.loss);
    cpu_kernels().loss_part(args, stream);
  };
  timed.loss = [](const LossArgs<float>& args, Stream& stream) {
    const Lap lap(in_kernels.loss);
    cpu_kernels().loss(args, stream);
  };
  if (timed.sparse.backward == nullptr) return timed;
  timed.sparse.backward = [](const BackwardDataArgs<float>& args,
                             const ParameterGradient<float>& gradient, Stream& stream) {
    const Lap lap(in_kernels.backward_data);
    cpu_kernels().sparse.backward(args, gradient, stream);
  };
  return timed;
}

/// One rank's seconds in a step, of what simulated steps are made of.
struct Parts {
  double forward, backward_data, backward_weights, update, loss, exchange;
};
constexpr std::array kParts = {&Parts::forward, &Parts::backward_data, &Parts::backward_weights,
                               &Parts::update,  &Parts::loss,          &Parts::exchange};

Parts time_turn(TrialStep& step) {
  in_kernels = {};
  Parts parts{};
  double passes = 0.0;
  {
    const Lap lap(passes);
    step.forward();
    step.backward();
  }
  {
    const Lap lap(parts.update);
    step.update();
  }
  parts.forward = in_kernels.forward;
  parts.backward_data = in_kernels.backward_data;
  parts.backward_weights = in_kernels.backward_weights;
  parts.loss = in_kernels.loss;
  parts.exchange =
      passes - parts.forward - parts.backward_data - parts.backward_weights - parts.loss;
  return parts;
}

/// The median turn of each part.
Parts time_step(Communicator& comm, TrialStep& step) {
  std::vector<Parts> turns;
  double seconds = 0.0;
  for (int turn = 0; turn <= kMostTurns; ++turn) {
    comm.barrier();
    const double start = now_seconds();
    const Parts parts = time_turn(step);
    if (turn > 0) turns.push_back(parts);  // the first warms up
    seconds += now_seconds() - start;
    comm.all_reduce(&seconds, &seconds, 1, DType::f64, Reduction::max, nullptr);
    if (turn >= kLeastTurns && seconds > kTurnsSeconds) break;
  }
  Parts median{};
  const auto middle = turns.begin() + std::ssize(turns) / 2;
  for (const auto part : kParts) {
    std::nth_element(turns.begin(), middle, turns.end(),
                     [&](const Parts& a, const Parts& b) { return a.*part < b.*part; });
    median.*part = (*middle).*part;
  }
  return median;
}

/// Words of an image that a rank sends, receives or copies from itself to itself, both ways.
std::int64_t words_handled(const Shard& shard) {
  std::int64_t words = 0;
  for (std::size_t l = 1; l < shard.halos.size(); ++l) {
    const Halo& halo = shard.halos[l];
    const std::int64_t own = halo.in_place ? 0 : std::ssize(halo.own_to);
    words +=
        (l + 1 < shard.halos.size() ? 2 : 1) * (halo.words_sent() + halo.words_received() + own);
  }
  return words;
}

/// Seconds of a rank's parts of a step for each of what they are paid for.
Parts rates_of(const Parts& seconds, const TrialStep& step, std::int64_t batch) {
  const std::vector<TrainLayer>& layers = step.network().layers();
  std::int64_t weights = 0;
  for (const TrainLayer& layer : layers) weights += layer.pattern.nnz();
  const auto per = [](double time, std::int64_t count, std::int64_t images) {
    return count > 0 ? time / (static_cast<double>(count) * static_cast<double>(images)) : 0.0;
  };
  return {per(seconds.forward, weights, batch),
          per(seconds.backward_data, weights - layers.front().pattern.nnz(), batch),
          per(seconds.backward_weights, weights, batch),
          per(seconds.update, weights, 1),
          per(seconds.loss, std::ssize(step.shard().outputs), batch),
          per(seconds.exchange, words_handled(step.shard()), batch)};
}

/// As many of the first layers as the ranks tried out may have.
std::vector<CsrView> tried_layers(const Model& model, int ranks, int parts) {
  std::vector<CsrView> weights = partitioned_weights(model);
  std::int64_t room = kMostWeights / ranks * parts;
  std::size_t count = 0;
  while (count < weights.size() && (count < 2 || weights[count].nnz <= room)) {
    room -= weights[count++].nnz;
  }
  weights.resize(count);
  return weights;
}

}  // namespace

StepCost measure_step_cost(const Model& model, const Partition& partition, std::int64_t batch,
                           int ranks, const ExchangeCost& others) {
  if (batch < 1) throw InputError(fmt::format("batch {}; give 1 or more", batch));
  validate(partition, model);
  const int parts = partition.parts();
  ranks = std::clamp(ranks, 1, parts);
  const std::vector<CsrView> weights = tried_layers(model, ranks, parts);
  const TrainKernels<float> kernels = timed_kernels();
  StepCost cost;
  run_ranks(ranks, [&](Communicator& comm) {
    const std::unique_ptr<Device> device = open_device(core_of(comm));
    const std::unique_ptr<Stream> stream = device->make_stream();
    const int rank = static_cast<int>(std::int64_t{comm.rank()} * parts / ranks);
    Alone alone(rank, parts);
    const Epilogue relu{0.0F, std::numeric_limits<float>::infinity()};
    TrialStep step(shard_of(weights, partition.layers, relu, rank), batch, alone, kernels, *device,
                   *stream);
    Parts rates = rates_of(time_step(comm, step), step, batch);
    for (const auto part : kParts) {
      comm.all_reduce(&(rates.*part), &(rates.*part), 1, DType::f64, Reduction::sum, nullptr);
      rates.*part /= ranks;
    }
    if (comm.rank() != 0) return;
    const std::int64_t panel = panel_width(device->info());
    cost = {batch,
            rates.forward,
            rates.backward_data,
            rates.backward_weights,
            rates.update,
            rates.loss,
            others,
            std::ssize(halves(batch, panel, panel))};
    cost.exchange.word += rates.exchange;
    cost.exchange.own += rates.exchange;
  });
  return cost;
}

}  // namespace spdnn
