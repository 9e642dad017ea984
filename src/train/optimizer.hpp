// One rank's optimiser: its state on the stored parameters, the rate over time, clipping.
#pragma once

#include "network.hpp"
#include "spdnn/comm.hpp"
#include "spdnn/train.hpp"

namespace spdnn::train {

/// The rate of step `step` (from 0) as a part of the optimiser's.
[[nodiscard]] double rate_at(const ScheduleSpec& schedule, std::int64_t step,
                             std::int64_t steps_per_epoch, std::int64_t total_steps);

/// How far an optimiser is, beside its arrays.
struct OptimizerProgress {
  std::int64_t steps = 0;
  LossScale loss_scale = {};  ///< of fp16
};

class Optimizer {
 public:
  /// `model` joins the ranks that share the network's rows; null: a rank has all of them.
  Optimizer(const TrainSpec& spec, Network<float>& network, std::int64_t steps_per_epoch,
            Communicator* model = nullptr);

  /// Changes the parameters by their gradient; returns the rate. Each call counts as a step. All
  /// ranks that share rows call it.
  double step();
  /// A step that changes nothing: the gradient was used to grow connections.
  void skip_step() { ++steps_; }
  [[nodiscard]] std::int64_t steps() const noexcept { return steps_; }
  [[nodiscard]] std::int64_t total_steps() const noexcept { return total_steps_; }
  /// As it is when all that the stream was given is done, and to go on from.
  [[nodiscard]] OptimizerProgress progress() const;
  void set_progress(const OptimizerProgress& progress);
  /// In the device's memory: what losses are to be multiplied by; null where they are not.
  [[nodiscard]] const float* loss_scale() const;

  /// Arrays of state, each laid out as the parameters: none for sgd, m, then v.
  [[nodiscard]] std::vector<float*> state() const;
  [[nodiscard]] std::int64_t bytes() const;

 private:
  [[nodiscard]] const double* find_squares();
  [[nodiscard]] const LossScale* judge(const double* squares);

  const TrainSpec& spec_;
  Network<float>& network_;
  Communicator* model_;
  std::int64_t steps_per_epoch_, total_steps_;
  std::int64_t steps_ = 0;
  std::vector<Buffer> state_;
  Buffer squares_;     ///< what the device finds of the gradient's length, where it is clipped
  Buffer loss_scale_;  ///< fp16: a `LossScale`
};

}  // namespace spdnn::train
