// Times the exchanges of the ranks of a process, beside what each does of them with nobody there.
#include <fmt/format.h>

#include <algorithm>

#include "spdnn/simulate.hpp"
#include "spdnn/timing.hpp"
#include "trial_step.hpp"

namespace spdnn {
namespace {

using train::Alone;
using train::core_of;

constexpr std::uint32_t kMany = 256;
constexpr std::int64_t kUnderWay = 8;

struct Kind {
  std::uint32_t features;  ///< that every rank reads of each other one
  std::int64_t under_way;  ///< exchanges that begin before the first of them ends
  bool alone;              ///< with nobody there
};

/// Seconds of an exchange.
double time_exchange(Communicator& comm, Device& device, Stream& stream, std::int64_t batch,
                     const Kind& kind) {
  const std::uint32_t features = kind.features;
  const auto ranks = static_cast<std::uint32_t>(comm.size());
  const auto me = static_cast<std::uint32_t>(comm.rank());
  std::vector<std::uint32_t> owners;
  std::vector<std::uint32_t> own;
  std::vector<std::uint32_t> needed;
  for (std::uint32_t f = 0; f < ranks * features; ++f) {
    owners.push_back(f / features);
    (owners.back() == me ? own : needed).push_back(f);
  }
  const Halo halo = make_halo(comm, owners, own, needed);
  Alone nobody(comm.rank(), comm.size());
  HaloExchange<float> exchange(halo, kind.alone ? nobody : comm, device, stream, batch);
  const std::int64_t width = panel_width(device.info());
  Panels<float> inputs{nullptr, std::ssize(needed), batch, width, nullptr};
  Panels<const float> outputs{nullptr, features, batch, width, nullptr};
  std::vector<float> to(static_cast<std::size_t>(inputs.size()));
  const std::vector<float> from(static_cast<std::size_t>(outputs.size()), 1.0F);
  inputs.data = to.data();
  outputs.data = from.data();
  const Range panels{0, inputs.count()};
  return fastest_in_a_row(comm, kUnderWay, [&](std::int64_t exchanges) {
    for (std::int64_t k = 0; k < exchanges; k += kind.under_way) {
      for (std::int64_t i = 0; i < kind.under_way; ++i) {
        exchange.start_forward(outputs, inputs, panels, stream);
      }
      for (std::int64_t i = 0; i < kind.under_way; ++i) {
        exchange.finish_forward(inputs, panels, stream);
      }
    }
  });
}

}  // namespace

ExchangeCost measure_exchange_cost(int ranks, std::int64_t batch) {
  if (batch < 1) throw InputError(fmt::format("batch {}; give 1 or more", batch));
  ExchangeCost cost;
  run_ranks(std::max(ranks, 2), [&](Communicator& comm) {
    const std::unique_ptr<Device> device = open_device(core_of(comm));
    const std::unique_ptr<Stream> stream = device->make_stream();
    // What others add to an exchange.
    const auto time = [&](std::uint32_t features, std::int64_t under_way) {
      return time_exchange(comm, *device, *stream, batch, {features, under_way, false}) -
             time_exchange(comm, *device, *stream, batch, {features, under_way, true});
    };
    const double waited_for = time(1, 1);
    const double least = time(1, kUnderWay);
    const double many = time(kMany, kUnderWay);
    if (comm.rank() != 0) return;
    // What noise makes negative is nothing.
    cost.call = std::max(least, 0.0);
    cost.latency = std::max(waited_for - cost.call, 0.0);
    cost.word = std::max(many - least, 0.0) /
                (2.0 * (comm.size() - 1) * (kMany - 1) * static_cast<double>(batch));
  });
  return cost;
}

}  // namespace spdnn
