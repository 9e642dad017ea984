// Rates over time, gradient clipping and the optimiser's step.
#include "optimizer.hpp"

#include <cmath>
#include <numbers>

#include "host_view.hpp"

namespace spdnn::train {
namespace {

int state_arrays(OptimizerKind kind) {
  switch (kind) {
    case OptimizerKind::sgd: return 0;
    case OptimizerKind::momentum:
    case OptimizerKind::nesterov: return 1;
    case OptimizerKind::adam:
    case OptimizerKind::adamw: return 2;
  }
  return 0;
}

}  // namespace

double rate_at(const ScheduleSpec& schedule, std::int64_t step, std::int64_t steps_per_epoch,
               std::int64_t total_steps) {
  const auto at = static_cast<double>(step);
  const double warmup = schedule.warmup_epochs * static_cast<double>(steps_per_epoch);
  if (at < warmup) return (at + 1.0) / warmup;
  switch (schedule.kind) {
    case ScheduleKind::constant: return 1.0;
    case ScheduleKind::step:
      return std::pow(schedule.factor,
                      static_cast<double>(step / steps_per_epoch / schedule.every));
    case ScheduleKind::cosine: {
      const double span = std::max(static_cast<double>(total_steps) - warmup, 1.0);
      const double part = std::min((at - warmup) / span, 1.0);
      return schedule.last +
             (1.0 - schedule.last) * 0.5 * (1.0 + std::cos(std::numbers::pi * part));
    }
  }
  return 1.0;
}

Optimizer::Optimizer(const TrainSpec& spec, Network<float>& network, std::int64_t steps_per_epoch,
                     Communicator* model)
    : spec_(spec),
      network_(network),
      model_(model),
      steps_per_epoch_(steps_per_epoch),
      total_steps_(steps_per_epoch * spec.epochs) {
  const std::size_t bytes = static_cast<std::size_t>(network.parameter_count()) * sizeof(float);
  for (int i = 0; i < state_arrays(spec.optimizer.kind); ++i) {
    state_.push_back(network.device().allocate(bytes));
    network.stream().zero(state_.back().data(), bytes);
  }
  if (spec.precision == Precision::fp16) {
    loss_scale_ = network.device().allocate(sizeof(LossScale));
    set_progress({0, {.scale = spec.loss_scale.first}});
  }
  if (spec.optimizer.clip_norm || spec.precision == Precision::fp16)
    squares_ = network.device().allocate(kSquaresRoom * sizeof(double));
}

std::vector<float*> Optimizer::state() const {
  std::vector<float*> arrays;
  for (const Buffer& buffer : state_) arrays.push_back(buffer.as<float>());
  return arrays;
}

std::int64_t Optimizer::bytes() const {
  auto bytes = static_cast<std::int64_t>(squares_.bytes() + loss_scale_.bytes());
  for (const Buffer& buffer : state_) bytes += static_cast<std::int64_t>(buffer.bytes());
  return bytes;
}

/// The gradient's squared length over all rows, in the device's memory: nobody waits for it.
const double* Optimizer::find_squares() {
  if (squares_.bytes() == 0) return nullptr;
  auto* squares = squares_.as<double>();
  network_.kernels().sum_of_squares(network_.gradient(), network_.parameter_count(), squares,
                                    network_.stream());
  if (model_ != nullptr && model_->size() > 1) {
    model_->all_reduce(squares, squares, 1, DType::f64, Reduction::sum,
                       shares_memory(network_.device()) ? nullptr : &network_.stream());
  }
  return squares;
}

/// Whether the gradient is finite, and how the next loss is to be scaled.
const LossScale* Optimizer::judge(const double* squares) {
  if (loss_scale_.bytes() == 0) return nullptr;
  const OptimizerSpec& o = spec_.optimizer;
  auto* scale = loss_scale_.as<LossScale>();
  network_.kernels().judge({scale, squares, spec_.loss_scale.every, o.beta1, o.beta2},
                           network_.stream());
  return scale;
}

const float* Optimizer::loss_scale() const {
  return loss_scale_.bytes() == 0 ? nullptr : &loss_scale_.as<LossScale>()->scale;
}

OptimizerProgress Optimizer::progress() const {
  if (loss_scale_.bytes() == 0) return {steps_, {}};
  const HostView<LossScale> scale(loss_scale_.as<LossScale>(), 1, network_.device(),
                                  network_.stream());
  return {steps_, *scale.data()};
}

void Optimizer::set_progress(const OptimizerProgress& progress) {
  steps_ = progress.steps;
  if (loss_scale_.bytes() == 0) return;
  HostDraft<LossScale> scale(loss_scale_.as<LossScale>(), 1, network_.device(), network_.stream());
  *scale.data() = progress.loss_scale;
  scale.store();
}

double Optimizer::step() {
  const OptimizerSpec& o = spec_.optimizer;
  const double rate = o.rate * rate_at(spec_.schedule, steps_, steps_per_epoch_, total_steps_);
  ++steps_;
  const auto t = static_cast<double>(steps_);
  UpdateArgs<float> args;
  args.kind = o.kind;
  args.rate = static_cast<float>(rate);
  args.momentum = static_cast<float>(o.momentum);
  args.beta1 = static_cast<float>(o.beta1);
  args.beta2 = static_cast<float>(o.beta2);
  args.epsilon = static_cast<float>(o.epsilon);
  args.correction1 = static_cast<float>(1.0 - std::pow(o.beta1, t));
  args.correction2 = static_cast<float>(1.0 - std::pow(o.beta2, t));
  args.squares = find_squares();
  args.clip_norm = o.clip_norm.value_or(args.clip_norm);
  args.loss_scale = judge(args.squares);
  // Values first, then biases, which do not decay.
  const Range parts[2] = {{0, network_.value_count()},
                          {network_.value_count(), network_.parameter_count()}};
  const std::vector<float*> arrays = state();
  for (int i = 0; i < 2; ++i) {
    args.count = parts[i].size();
    args.parameters = network_.parameters() + parts[i].begin;
    args.gradient = network_.gradient() + parts[i].begin;
    args.first = arrays.empty() ? nullptr : arrays[0] + parts[i].begin;
    args.second = arrays.size() < 2 ? nullptr : arrays[1] + parts[i].begin;
    args.decay = i == 0 ? static_cast<float>(o.weight_decay) : 0.0F;
    network_.kernels().update(args, network_.stream());
  }
  return rate;
}

}  // namespace spdnn::train
