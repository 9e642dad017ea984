// Times the exchanges of the ranks of a process.
#include "exchange_cost.hpp"

#include <algorithm>

#include "spdnn/halo.hpp"
#include "spdnn/timing.hpp"

namespace spdnn {
namespace {

constexpr std::uint32_t kMany = 256;

/// Seconds of an exchange in which every rank reads `features` features of each other one, and its
/// own where `with_own`.
double time_exchange(Communicator& comm, Device& device, Stream& stream, std::int64_t batch,
                     std::uint32_t features, bool with_own) {
  const auto ranks = static_cast<std::uint32_t>(comm.size());
  const auto me = static_cast<std::uint32_t>(comm.rank());
  std::vector<std::uint32_t> owners;
  std::vector<std::uint32_t> own;
  std::vector<std::uint32_t> needed;
  for (std::uint32_t f = 0; f < ranks * features; ++f) {
    owners.push_back(f / features);
    if (owners.back() == me) own.push_back(f);
    if (owners.back() != me || with_own) needed.push_back(f);
  }
  const Halo halo = make_halo(comm, owners, own, needed);
  HaloExchange<float> exchange(halo, comm, device, stream, batch);
  const std::int64_t width = panel_width(device.info());
  Panels<float> inputs{nullptr, std::ssize(needed), batch, width, nullptr};
  Panels<const float> outputs{nullptr, features, batch, width, nullptr};
  std::vector<float> to(static_cast<std::size_t>(inputs.size()));
  const std::vector<float> from(static_cast<std::size_t>(outputs.size()), 1.0F);
  inputs.data = to.data();
  outputs.data = from.data();
  const Range panels{0, inputs.count()};
  return fastest_in_a_row(comm, 1, [&](std::int64_t exchanges) {
    for (std::int64_t k = 0; k < exchanges; ++k) {
      exchange.start_forward(outputs, inputs, panels, stream);
      exchange.finish_forward(inputs, panels, stream);
    }
  });
}

}  // namespace

ExchangeCost measure_exchange_cost(Communicator& comm, Device& device, std::int64_t batch) {
  const std::unique_ptr<Stream> stream = device.make_stream();
  const double least = time_exchange(comm, device, *stream, batch, 1, false);
  const double many = time_exchange(comm, device, *stream, batch, kMany, false);
  const double with_own = time_exchange(comm, device, *stream, batch, kMany, true);
  const double words = 2.0 * (comm.size() - 1) * (kMany - 1) * static_cast<double>(batch);
  // What noise makes shorter is next to nothing.
  ExchangeCost cost;
  cost.call = least;
  cost.word = std::max(many - least, 1e-3 * many) / words;
  cost.own = std::max(with_own - many, 0.0) / (kMany * static_cast<double>(batch));
  return cost;
}

}  // namespace spdnn
