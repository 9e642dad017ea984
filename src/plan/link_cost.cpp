// Times the exchanges of two ranks of this process.
#include <algorithm>
#include <chrono>
#include <limits>
#include <numeric>

#include "spdnn/halo.hpp"
#include "spdnn/simulate.hpp"

namespace spdnn {
namespace {

constexpr std::int64_t kBatch = 64;
constexpr std::int64_t kMany = 512;
constexpr int kRounds = 7;
constexpr int kExchanges = 50;

/// Seconds that an exchange of `features` each way takes, the least of several rounds.
double time_exchange(Communicator& comm, Device& device, Stream& stream, std::int64_t features) {
  std::vector<std::uint32_t> owners(static_cast<std::size_t>(2 * features), 0);
  std::fill(owners.begin() + features, owners.end(), 1U);
  std::vector<std::uint32_t> own(static_cast<std::size_t>(features));
  std::vector<std::uint32_t> needed(own.size());
  const auto count = static_cast<std::uint32_t>(features);
  std::iota(own.begin(), own.end(), comm.rank() == 0 ? 0U : count);
  std::iota(needed.begin(), needed.end(), comm.rank() == 0 ? count : 0U);
  const Halo halo = make_halo(comm, owners, own, needed);
  HaloExchange<float> exchange(halo, comm, device, stream, kBatch);
  const std::int64_t width = panel_width(device.info());
  const auto size = Panels<float>{nullptr, features, kBatch, width, nullptr}.size();
  std::vector<float> from(static_cast<std::size_t>(size), 1.0F);
  std::vector<float> to(from);
  const Panels<float> inputs{to.data(), features, kBatch, width, nullptr};
  const Panels<const float> outputs{from.data(), features, kBatch, width, nullptr};
  const Range panels{0, inputs.count()};
  double least = std::numeric_limits<double>::infinity();
  for (int round = 0; round < kRounds; ++round) {
    comm.barrier();
    const auto start = std::chrono::steady_clock::now();
    for (int k = 0; k < kExchanges; ++k) {
      exchange.start_forward(outputs, inputs, panels, stream);
      exchange.finish_forward(inputs, panels, stream);
    }
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    least = std::min(least, seconds.count() / kExchanges);
  }
  return least;
}

}  // namespace

LinkClass measure_process_link() {
  LinkClass link;
  run_ranks(2, [&](Communicator& comm) {
    DeviceSpec unpinned;  // opening a device must not pin this thread
    unpinned.cores.clear();
    const std::unique_ptr<Device> device = open_device(unpinned);
    const std::unique_ptr<Stream> stream = device->make_stream();
    const double few = time_exchange(comm, *device, *stream, 1);
    const double many = time_exchange(comm, *device, *stream, kMany);
    if (comm.rank() != 0) return;
    link.latency_s = few;
    // What noise makes shorter is next to nothing.
    const double seconds = std::max(many - few, 1e-3 * many);
    link.bytes_per_s = static_cast<double>((kMany - 1) * kBatch) * sizeof(float) / seconds;
  });
  return link;
}

}  // namespace spdnn
