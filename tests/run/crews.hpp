// Runs in which rank 0 has all images, and too few of them to give any away, so that all others
// join it in crews: no clock decides whether they do. For threads and for processes.
#pragma once

#include <chrono>
#include <functional>
#include <limits>
#include <memory>
#include <thread>

#include "image_queue.hpp"
#include "pass.hpp"
#include "ranks.hpp"
#include "roster.hpp"
#include "support/networks.hpp"
#include "weights.hpp"

namespace spdnn::test {

struct CrewNetwork {
  Model model;
  Csr images;
};

inline SparseLinear crew_layer(std::int64_t outputs, std::int64_t inputs, Rows rows,
                               std::mt19937_64& random) {
  SparseLinear layer;
  layer.weights = random_csr({outputs, inputs, 9, rows, random() % 3 == 0}, random);
  layer.bias = {-0.01F * static_cast<float>(random() % 10)};
  layer.activation = {0.0F, 4.0F};
  return layer;
}

/// Linear layers of all sorts, behind two convolutions and a pooling where `planes`.
inline CrewNetwork crew_network(std::int64_t layers, std::int64_t images, bool planes,
                                std::mt19937_64& random) {
  CrewNetwork network;
  const auto some = [&] { return 24 + static_cast<std::int64_t>(random() % 40); };
  std::int64_t width = planes ? 3 * 8 * 8 : some();
  network.images = random_csr({images, width, width / 3, Rows::equal, true}, random);
  if (planes) {
    const auto convolve = [&](const Window2d& window, std::int64_t filters) {
      SparseConv2d layer;
      layer.window = window;
      layer.weights =
          random_csr({filters, window.channels * window.taps(), 9, Rows::irregular, false}, random);
      layer.bias = random_floats(static_cast<std::size_t>(filters), random);
      layer.activation = {0.0F, 4.0F};
      network.model.layers.emplace_back(std::move(layer));
    };
    convolve(make_window(3, 8, 8, 3, 1, std::nullopt), 11);
    convolve(make_window(11, 8, 8, 3, 1, std::nullopt), 11);
    network.model.layers.emplace_back(Pool2d{make_window(11, 8, 8, 2, 2, 0), LayerKind::max_pool});
    convolve(make_window(11, 4, 4, 3, 1, std::nullopt), 7);
    width = 7 * 16;
  }
  for (std::int64_t l = 0; l < layers; ++l) {
    const std::int64_t outputs = some();
    const Rows rows[] = {Rows::equal, Rows::irregular, Rows::grouped};
    network.model.layers.emplace_back(crew_layer(outputs, width, rows[random() % 3], random));
    width = outputs;
  }
  return network;
}

inline Profile crew_profile(const Model& model, std::size_t ranks) {
  Profile profile;
  DeviceProfile rank;
  rank.device.kind = DeviceKind::cpu;
  rank.memory_limit = std::int64_t{1} << 30;
  for (const char* name : {"panel", "conv_tile", "pool", "pool"}) {
    rank.times.push_back({{name, "", 1e-6, 256}});
  }
  profile.shapes.resize(4);
  for (const Layer& layer : model.layers) {
    profile.shape_of_layer.push_back(static_cast<std::int64_t>(layer_kind(layer)));
  }
  profile.ranks.assign(ranks, rank);
  return profile;
}

/// Rank 0 begins all images, in batches, and a crew is worth whatever it costs.
inline Plan crew_plan(const CrewNetwork& network, std::size_t ranks, std::int64_t batch) {
  PlanRequest request;
  request.strategy = Strategy::data_then_model;
  request.batch = batch;
  Plan plan = make_plan(stats_of(network.model, network.images), crew_profile(network.model, ranks),
                        request);
  plan.sharing = Sharing::own;
  plan.images.assign(ranks, {network.images.rows(), network.images.rows()});
  plan.images[0] = {0, network.images.rows()};
  plan.worth_help_s = 0.0;
  plan.worth_rows = 0.0;
  plan.messages = MessageCost{};
  return plan;
}

/// What all ranks of a run share.
struct CrewRun {
  CrewRun(const CrewNetwork& network, Plan with) : plan(std::move(with)), forms(network.model) {
    context.model = &network.model;
    context.images = &network.images;
    context.plan = &plan;
    context.dead_from = dead_stays_dead_from(network.model);
    context.keep_first = network.images.rows();
    context.keep_ids = &none;
    context.alike_from = std::ssize(network.model.layers);
    context.progress = &progress;
    context.forms = &forms;
  }
  Plan plan;
  SharedForms forms;
  std::vector<std::int64_t> none;
  Progress progress;
  PassContext context;
};

using MakeRoster = std::function<std::unique_ptr<Roster>(const PassContext& context,
                                                         Communicator& comm, Device& device)>;

/// One rank's part. Rank 0 begins when all others wait for work.
inline PassResult run_crew_rank(const CrewRun& run, Communicator& comm, const DeviceSpec& spec,
                                const MakeRoster& make_roster) {
  const std::unique_ptr<Device> device = open_device(spec);
  PassContext context = run.context;
  ImageQueue queue(run.plan.images, run.plan.sharing, run.plan.grain);
  comm.show_device(device->info().name);
  const std::unique_ptr<Roster> roster = make_roster(run.context, comm, *device);
  context.queue = &queue;
  context.roster = roster.get();
  Pass pass(context, comm, *device, spec);
  pass.prepare();
  comm.show("waiting for the others", -1);
  while (comm.rank() == 0 && roster->idle() + 1 < comm.size()) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return pass.run();
}

/// The same on one rank.
inline PassResult run_alone(const CrewNetwork& network, std::int64_t batch) {
  Plan plan = crew_plan(network, 1, batch);
  plan.helping = Helping::none;
  const CrewRun run(network, std::move(plan));
  PassResult result;
  run_ranks(1, [&](Communicator& comm) {
    result = run_crew_rank(run, comm, {}, [](const PassContext&, Communicator&, Device&) {
      return std::make_unique<SharedRoster>(std::vector{1.0}, false);
    });
  });
  return result;
}

}  // namespace spdnn::test
