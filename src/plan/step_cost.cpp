// Times the training kernels of a device on invented layers.
#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <limits>

#include "exchange_cost.hpp"
#include "spdnn/halo.hpp"
#include "spdnn/random.hpp"
#include "spdnn/timing.hpp"
#include "spdnn/train_op.hpp"

namespace spdnn {
namespace {

constexpr std::int64_t kWidth = 1024;
/// What the layers of all ranks have together, about: a step comes back to a layer long after it
/// has left the caches.
constexpr std::int64_t kFootprint = std::int64_t{32} << 20U;
constexpr std::int64_t kMostLayers = 24;

/// A layer of random columns with everything its kernels read and write.
struct Layer {
  std::vector<std::int64_t> row_offsets, col_offsets;
  std::vector<std::uint32_t> col_indices, row_indices, entries;
  std::vector<float> values, bias, dvalues, dbias, workspace, x, y, dz, dx;
  std::int64_t batch;

  Layer(std::int64_t row_nnz, std::int64_t images, std::int64_t panel, std::uint64_t number)
      : bias(kWidth, 0.1F), dbias(kWidth), batch(images) {
    Random random(number, static_cast<std::uint64_t>(row_nnz));
    std::vector<std::vector<std::uint32_t>> by_column(kWidth);
    row_offsets.push_back(0);
    for (std::int64_t row = 0; row < kWidth; ++row) {
      std::vector<std::uint32_t> cols;
      while (std::ssize(cols) < row_nnz) {
        const std::uint32_t col = random.below(kWidth);
        if (std::find(cols.begin(), cols.end(), col) == cols.end()) cols.push_back(col);
      }
      std::sort(cols.begin(), cols.end());
      for (const std::uint32_t col : cols) {
        by_column[col].push_back(static_cast<std::uint32_t>(col_indices.size()));
        col_indices.push_back(col);
      }
      row_offsets.push_back(std::ssize(col_indices));
    }
    col_offsets.push_back(0);
    for (const auto& column : by_column) {
      for (const std::uint32_t entry : column) {
        entries.push_back(entry);
        row_indices.push_back(static_cast<std::uint32_t>(entry / row_nnz));
      }
      col_offsets.push_back(std::ssize(entries));
    }
    values.assign(entries.size(), 0.5F / static_cast<float>(row_nnz));
    dvalues.resize(entries.size());
    workspace.resize(entries.size());
    const std::int64_t size = Panels<float>{nullptr, kWidth, images, panel, nullptr}.size();
    x.assign(static_cast<std::size_t>(size), 0.5F);
    y = dz = dx = x;
  }
  [[nodiscard]] std::int64_t bytes() const {
    return 4 * std::ssize(x) * 4 + 6 * std::ssize(entries) * 4;
  }
  [[nodiscard]] PatternView pattern() const {
    return {kWidth,
            kWidth,
            std::ssize(entries),
            row_offsets.data(),
            col_indices.data(),
            col_offsets.data(),
            row_indices.data(),
            entries.data()};
  }
};

/// Seconds of a call on one layer after another, by all ranks at once.
double time_call(Communicator& comm, Stream& stream, std::vector<Layer>& layers,
                 const std::function<void(Layer&)>& call) {
  std::size_t next = 0;
  return fastest_in_a_row(comm, std::ssize(layers), [&](std::int64_t calls) {
    for (std::int64_t k = 0; k < calls; ++k) {
      call(layers[next]);
      next = next + 1 == layers.size() ? 0 : next + 1;
    }
    stream.synchronize();
  });
}

/// Seconds of the three kernels, of an update and of the loss, on a layer of so many weights a row.
struct Times {
  double forward, backward_data, backward_weights, update, loss;
};

Times time_layer(Communicator& comm, const TrainKernels<float>& kernels, Stream& stream,
                 std::int64_t row_nnz, std::int64_t batch, std::int64_t panel) {
  std::vector<Layer> layers;
  layers.emplace_back(row_nnz, batch, panel, 1);
  const std::int64_t count =
      std::clamp<std::int64_t>(kFootprint / comm.size() / layers[0].bytes(), 1, kMostLayers);
  for (std::int64_t k = 1; k < count; ++k) {
    layers.emplace_back(row_nnz, batch, panel, static_cast<std::uint64_t>(k) + 1);
  }
  const Epilogue relu{0.0F, std::numeric_limits<float>::infinity()};
  const auto panels = [&](std::vector<float>& data) {
    return Panels<float>{data.data(), kWidth, batch, panel, nullptr};
  };
  const auto view = [](const Layer& l) {
    return LinearView<float>{l.pattern(), l.values.data(), l.bias.data()};
  };
  Times times{};
  times.forward = time_call(comm, stream, layers, [&](Layer& l) {
    kernels.sparse.forward({view(l), relu, panels(l.x), panels(l.y)}, stream);
  });
  times.backward_data = time_call(comm, stream, layers, [&](Layer& l) {
    kernels.sparse.backward_data(
        {view(l), panels(l.dz), relu, panels(l.x), panels(l.dx), l.workspace.data()}, stream);
  });
  times.backward_weights = time_call(comm, stream, layers, [&](Layer& l) {
    kernels.sparse.backward_weights(
        {l.pattern(), panels(l.dz), panels(l.x), l.dvalues.data(), l.dbias.data()}, stream);
  });
  times.update = time_call(comm, stream, layers, [&](Layer& l) {
    UpdateArgs<float> update;
    update.count = std::ssize(l.values);
    update.parameters = l.values.data();
    update.gradient = l.dvalues.data();
    kernels.update(update, stream);
  });
  const std::vector<std::int32_t> labels(static_cast<std::size_t>(batch));
  times.loss = time_call(comm, stream, layers, [&](Layer& l) {
    double sum = 0.0;
    LossArgs<float> loss;
    loss.activation = relu;
    loss.y = panels(l.y);
    loss.labels = labels.data();
    loss.dz = panels(l.dz);
    loss.loss_sum = &sum;
    kernels.loss(loss, stream);
  });
  return times;
}

StepCost measure_rank(Communicator& comm, Device& device, const DeviceSpec& spec,
                      std::int64_t batch) {
  const std::unique_ptr<Stream> stream = device.make_stream();
  const auto all = train_kernels<float>();
  const auto kernels = std::find_if(all.begin(), all.end(),
                                    [](const auto& k) { return k.device == DeviceKind::cpu; });
  constexpr std::int64_t kMany = 32;
  constexpr std::int64_t kFew = 2;
  const std::int64_t panel = panel_width(device.info());
  const Times many = time_layer(comm, *kernels, *stream, kMany, batch, panel);
  const Times few = time_layer(comm, *kernels, *stream, kFew, batch, panel);
  const double scale = spec.slowdown / static_cast<double>(kWidth * batch);
  // What noise makes negative is next to nothing.
  const auto cost_of = [&](double at_many, double at_few) {
    KernelCost cost;
    cost.entry = scale * std::max((at_many - at_few) / (kMany - kFew), 1e-3 * at_many / kMany);
    cost.row = std::max(scale * at_few - kFew * cost.entry, 0.0);
    return cost;
  };
  StepCost cost;
  cost.batch = batch;
  cost.forward = cost_of(many.forward, few.forward);
  cost.backward_data = cost_of(many.backward_data, few.backward_data);
  cost.backward_weights = cost_of(many.backward_weights, few.backward_weights);
  cost.update = spec.slowdown * many.update / static_cast<double>(kMany * kWidth);
  cost.loss = scale * many.loss;
  cost.exchanges = std::ssize(halves(batch, panel, panel));
  return cost;
}

/// A core for each rank where there are enough, as runs have it.
DeviceSpec device_of(const DeviceSpec& spec, const Communicator& comm) {
  DeviceSpec own = spec;
  const std::vector<int> cores = usable_cores();
  own.cores.clear();
  if (spec.threads == 1 && comm.size() <= std::ssize(cores)) own.cores = {cores[comm.rank()]};
  return own;
}

}  // namespace

StepCost measure_step_cost(const DeviceSpec& spec, std::int64_t batch, int ranks) {
  if (batch < 1) throw InputError(fmt::format("batch {}; give 1 or more", batch));
  if (spec.kind != DeviceKind::cpu) {
    throw InputError("steps are simulated from the kernels of CPU devices; give a CPU rank");
  }
  StepCost cost;
  run_ranks(ranks, [&](Communicator& comm) {
    const std::unique_ptr<Device> device = open_device(device_of(spec, comm));
    const StepCost found = measure_rank(comm, *device, spec, batch);
    if (comm.rank() == 0) cost = found;
  });
  run_ranks(std::max(ranks, 2), [&](Communicator& comm) {
    const std::unique_ptr<Device> device = open_device(device_of(spec, comm));
    const ExchangeCost found = measure_exchange_cost(comm, *device, batch);
    if (comm.rank() == 0) cost.exchange = found;
  });
  cost.exchange.call *= spec.slowdown;
  cost.exchange.word *= spec.slowdown;
  cost.exchange.own *= spec.slowdown;
  return cost;
}

}  // namespace spdnn
