// Everybody's device and the links between them measured, and the layout that follows.
#include "step_cost.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "any_pass.hpp"
#include "host_view.hpp"
#include "layer_splits.hpp"
#include "meeting_times.hpp"
#include "spdnn/halo.hpp"
#include "spdnn/plan.hpp"
#include "spdnn/timing.hpp"

namespace spdnn::train {
namespace {

constexpr int kRuns = 4;
/// Most floats of a message that shows the rate of a link.
constexpr std::int64_t kMostMessage = std::int64_t{1} << 22U;

std::int64_t parameters_of(const std::vector<TrainLayer>& layers) {
  std::int64_t count = 0;
  for (const TrainLayer& layer : layers) count += layer.pattern.nnz() + layer.pattern.rows();
  return count;
}

/// What summing gradients costs this group, from a short and a full sum.
CollectiveCost measure_sums(Communicator& comm, Device& device, std::int64_t parameters) {
  if (comm.size() == 1) return {};
  const std::unique_ptr<Stream> stream = device.make_stream();
  const Buffer numbers = device.allocate(static_cast<std::size_t>(parameters) * sizeof(float));
  stream->zero(numbers.data(), numbers.bytes());
  const auto sum = [&](std::int64_t count) {
    return fastest_together(comm, kRuns, [&] {
      comm.all_reduce(numbers.data(), numbers.data(), count, DType::f32, Reduction::sum,
                      shares_memory(device) ? nullptr : stream.get());
    });
  };
  const double shortest = sum(1);
  const double full = std::max(sum(parameters), shortest);
  const auto k = static_cast<double>(comm.size());
  CollectiveCost cost;
  cost.latency_s = shortest / 2.0 / std::ceil(std::log2(k));
  cost.seconds_per_byte =
      (full - shortest) / (2.0 * (k - 1.0) / k * 4.0 * static_cast<double>(parameters));
  return cost;
}

/// Seconds until every rank has `features` of each of the others, of so many images.
double time_halo(Communicator& comm, Device& device, std::int64_t features, std::int64_t images) {
  std::vector<std::uint32_t> all(static_cast<std::size_t>(features * comm.size()));
  std::iota(all.begin(), all.end(), 0U);
  std::vector<std::uint32_t> owners(all);
  for (std::uint32_t& owner : owners) owner /= static_cast<std::uint32_t>(features);
  const auto own = all.begin() + features * comm.rank();
  const Halo halo = make_halo(comm, owners, std::vector<std::uint32_t>(own, own + features), all);
  const std::unique_ptr<Stream> stream = device.make_stream();
  HaloExchange<float> exchange(halo, comm, device, *stream, images);
  std::vector<Buffer> memory;
  const auto panels_of = [&](std::int64_t rows) {
    Panels<float> panels = {nullptr, rows, images, panel_width(device.info()), nullptr};
    memory.push_back(device.allocate(static_cast<std::size_t>(panels.size()) * sizeof(float)));
    stream->zero(memory.back().data(), memory.back().bytes());
    panels.data = memory.back().as<float>();
    return panels;
  };
  const Panels<float> from = panels_of(halo.own);
  const Panels<float> to = panels_of(halo.inputs);
  return fastest_together(comm, kRuns, [&] {
    exchange.start_forward(from, to, {0, from.count()}, *stream);
    exchange.finish_forward(to, {0, to.count()}, *stream);
    stream->synchronize();
  });
}

/// What it costs that every rank gets what the others have, as halos bring it: of the largest
/// layer, and of half a batch.
CollectiveCost measure_halos(const TrainSpec& spec, const std::vector<TrainLayer>& layers,
                             Communicator& comm, Device& device) {
  std::int64_t most = 1;
  for (const TrainLayer& layer : layers) most = std::max(most, layer.outputs());
  const std::int64_t features = std::min((most + comm.size() - 1) / comm.size(), kMostMessage);
  const std::int64_t images = std::clamp((spec.batch + 1) / 2, std::int64_t{1},
                                         std::max<std::int64_t>(kMostMessage / features, 1));
  const double shortest = time_halo(comm, device, 1, 1);
  const double full = std::max(time_halo(comm, device, features, images), shortest);
  CollectiveCost cost;
  cost.latency_s = shortest / std::ceil(std::log2(static_cast<double>(comm.size())));
  // Each rank received the pieces of all others, as of an all_gather of them together.
  const std::int64_t received = features * images * (comm.size() - 1);
  cost.seconds_per_byte = (full - shortest) / (4.0 * static_cast<double>(received));
  return cost;
}

/// What a rank's device is, and on which host: equal numbers stand for equal names.
struct Place {
  std::int64_t host = 0, kind = 0;
  bool operator==(const Place&) const = default;
};

/// By rank.
std::vector<Place> places_of(Communicator& comm, const Device& device) {
  const auto number = [](const std::string& name) {
    return static_cast<std::int64_t>(std::hash<std::string>()(name));
  };
  const Place own = {number(host_name()), number(name_of_kind(device.info()))};
  std::vector<Place> places(static_cast<std::size_t>(comm.size()));
  comm.all_gather(&own, places.data(), std::vector<std::int64_t>(places.size(), 2), DType::i64,
                  nullptr);
  return places;
}

/// Everybody's device. Those of a host that are alike are measured at once, since in training they
/// share caches and memory too, and the first one's times count for all of them; hosts measure
/// side by side.
std::vector<DeviceCost> measure_all(const TrainSpec& spec, const std::vector<TrainLayer>& layers,
                                    const std::vector<DeviceSpec>& devices, Communicator& comm,
                                    Device& device, bool rows) {
  const std::vector<Place> places = places_of(comm, device);
  const Place own_place = places[static_cast<std::size_t>(comm.rank())];
  Company company = {0, std::count(places.begin(), places.end(), own_place)};
  std::vector<std::size_t> first;  // by rank, the one that measures for it
  std::vector<std::size_t> turns;  // by rank, kinds of its host that are measured before its own
  for (std::size_t r = 0; r < places.size(); ++r) {
    const bool here = places[r].host == own_place.host;
    if (here && devices[r].kind == DeviceKind::cpu) ++company.cpu_ranks;
    const auto twin = std::find(places.begin(), places.end(), places[r]);
    first.push_back(static_cast<std::size_t>(twin - places.begin()));
    std::size_t turn = 0;
    for (std::size_t f = 0; f < first[r]; ++f) {
      if (first[f] == f && places[f].host == places[r].host) ++turn;
    }
    turns.push_back(turn);
  }
  std::vector<double> own;
  for (std::size_t turn = 0; turn <= *std::max_element(turns.begin(), turns.end()); ++turn) {
    comm.barrier();
    if (turn != turns[static_cast<std::size_t>(comm.rank())]) continue;
    own = to_numbers(measure_device(spec, layers, device, company, rows));
  }
  const std::int64_t size = std::ssize(own);
  std::vector<std::int64_t> sizes(first.size());
  comm.all_gather(&size, sizes.data(), std::vector<std::int64_t>(first.size(), 1), DType::i64,
                  nullptr);
  std::vector<double> told(
      static_cast<std::size_t>(std::accumulate(sizes.begin(), sizes.end(), std::int64_t{0})));
  comm.all_gather(own.data(), told.data(), sizes, DType::f64, nullptr);
  std::vector<DeviceCost> costs;
  std::size_t at = 0;
  for (std::size_t r = 0; r < first.size(); ++r) {
    const auto count = static_cast<std::size_t>(sizes[r]);
    costs.push_back(first[r] == r ? from_numbers(std::span(told).subspan(at, count))
                                  : costs[first[r]]);
    at += count;
  }
  return costs;
}

/// Everybody's device, and the links between them.
TrainCosts measure_costs(const TrainSpec& spec, const std::vector<TrainLayer>& layers,
                         const std::vector<DeviceSpec>& devices, Communicator& comm, Device& device,
                         bool rows) {
  TrainCosts costs;
  for (const DeviceCost& cost : measure_all(spec, layers, devices, comm, device, rows)) {
    TrainDevice& found = costs.devices.emplace_back();
    found.images = {CostCurve(cost.steps), 1.0, cost.most};
    for (const auto& points : cost.rows) {
      found.rows.push_back(points.empty() ? CostCurve() : CostCurve(points));
    }
  }
  costs.sums = measure_sums(comm, device, parameters_of(layers));
  if (!rows || comm.size() == 1) return costs;
  costs.halos = measure_halos(spec, layers, comm, device);
  std::vector<std::vector<double>> spreads = measure_spreads(spec, layers, comm, device);
  for (std::size_t r = 0; r < spreads.size(); ++r) costs.devices[r].spread = std::move(spreads[r]);
  return costs;
}

std::int64_t largest(Communicator& comm, std::int64_t number) {
  comm.all_reduce(&number, &number, 1, DType::i64, Reduction::max, nullptr);
  return number;
}

/// What is to be shared, as far as the layers tell.
TrainProblem problem_of(const TrainSpec& spec, const std::vector<TrainLayer>& layers,
                        const std::vector<DeviceSpec>& devices, std::int64_t grain) {
  TrainProblem problem;
  problem.batch = spec.batch;
  problem.grain = grain;
  problem.parameter_bytes = 4.0 * static_cast<double>(parameters_of(layers));
  const auto word = static_cast<double>(stored_bytes(spec.precision));
  for (const TrainLayer& layer : layers) {
    const bool pools = std::holds_alternative<PoolForm>(layer.form);
    const bool first = problem.units.empty();  // its inputs are known to every rank
    problem.units.push_back(pools ? 0 : layer.units());
    problem.halo_bytes.push_back(pools || first ? 0.0 : word * static_cast<double>(layer.inputs()));
    problem.sum_bytes.push_back(pools || first ? 0.0 : word * static_cast<double>(layer.outputs()));
  }
  problem.splits = given_splits(spec, layers, devices);
  const auto loss_words = LossPart::words * std::ssize(devices);
  problem.halo_bytes.push_back(4.0 * static_cast<double>(loss_words));
  return problem;
}

/// The layout that was asked for, whatever the devices.
TrainLayout given_layout(const TrainSpec& spec, const TrainProblem& problem, int ranks) {
  std::vector<double> shares(static_cast<std::size_t>(ranks), 1.0);
  if (spec.split.kind == SplitKind::ratios) shares = spec.split.ratios;
  if (std::ssize(shares) != ranks) {
    throw InputError(
        fmt::format("/split: {} ratios for {} devices; give one for each", shares.size(), ranks));
  }
  // Under `model` all that take part share the rows.
  const std::int64_t sharers =
      spec.model_ranks == ranks
          ? std::count_if(shares.begin(), shares.end(), [](double share) { return share > 0.0; })
          : std::max(spec.model_ranks, 1);
  GridShares grid = share_grid(shares, sharers);
  TrainLayout layout;
  layout.rows = std::ssize(grid.rows);
  layout.strategy = layout.rows == 1          ? Strategy::data
                    : grid.images.size() == 1 ? Strategy::model
                                              : Strategy::grid;
  layout.places = std::move(grid.places);
  for (const Range& range : split_in_proportion(spec.batch, grid.images, problem.grain)) {
    layout.images.push_back(range.size());
  }
  for (const std::int64_t units : problem.units) {
    std::vector<std::int64_t>& layer = layout.units.emplace_back();
    for (const Range& range : split_in_proportion(units, grid.rows)) layer.push_back(range.size());
    if (units == 0 && layout.units.size() > 1) layer = layout.units[layout.units.size() - 2];
  }
  if (layout.rows > 1) {
    layout.splits = problem.splits.empty() ? splits_by_bytes(problem) : problem.splits;
  }
  return layout;
}

/// Whether the configuration asks for the same of every rank, and they have it of the same kind,
/// which on several hosts may be another one.
bool all_alike(const std::vector<DeviceSpec>& devices, Communicator& comm, const Device& device) {
  const std::vector<Place> places = places_of(comm, device);
  const DeviceSpec& first = devices.front();
  for (std::size_t r = 0; r < devices.size(); ++r) {
    const DeviceSpec& d = devices[r];
    if (!same_device(d, first) || d.slowdown != first.slowdown || !d.slowdown_changes.empty() ||
        places[r].kind != places.front().kind) {
      return false;
    }
  }
  return true;
}

Strategy strategy_of(const TrainSpec& spec, const std::vector<TrainLayer>& layers,
                     const std::vector<DeviceSpec>& devices) {
  const std::int64_t ranks = std::ssize(devices);
  if (spec.model_ranks == 1 || ranks == 1) return Strategy::data;
  if (spec.model_ranks == ranks) return Strategy::model;
  if (spec.model_ranks > 1) return Strategy::grid;
  const bool divides = !std::holds_alternative<PoolForm>(layers.front().form);
  return divides ? Strategy::automatic : Strategy::data;
}

void add_notes(StepPlan& plan) {
  const TrainLayout& layout = plan.layout;
  if (layout.strategy != Strategy::data) {
    plan.notes.push_back(fmt::format(
        "{} ranks share the rows of a network each: a step is expected to take {:.3g} s, {:.3g} s "
        "of it communication",
        layout.rows, layout.seconds(), layout.communication_s));
  }
  for (std::size_t r = 0; r < plan.devices.size(); ++r) {
    const std::int64_t place = layout.places[r];
    const RankCost& cost = plan.devices[r].images;
    if (place >= 0) continue;
    plan.notes.push_back(fmt::format(
        "rank {} is left out: {} images take it {:.3g} s, and a step of the others takes {:.3g} s",
        r, plan.problem.grain, cost.at(plan.problem.grain), layout.seconds()));
  }
}

/// Gives the first rank the first place, without images or rows.
std::string keep_first(TrainLayout& layout) {
  if (layout.images.size() > 1 && layout.rows > 1) {
    throw InputError(
        "/split: rank 0 has no share, nor has another rank of its process, which writes what all "
        "learn; give one of them a share");
  }
  for (std::int64_t& place : layout.places) place += place < 0 ? 0 : 1;
  layout.places[0] = 0;
  if (layout.rows == 1) {
    layout.images.insert(layout.images.begin(), 0);
  } else {
    ++layout.rows;
    for (auto& layer : layout.units) layer.insert(layer.begin(), 0);
  }
  return "rank 0 has no share of the steps, but goes with them, since its process writes what all "
         "learn and has no other rank that takes part";
}

}  // namespace

const TrainKernels<float>& kernels_for(const Device& device) {
  const DeviceKind kind = device.info().kind;
  for (const TrainKernels<float>& kernels : train_kernels<float>()) {
    if (kernels.device == kind) return kernels;
  }
  throw DeviceError(
      fmt::format("this build has no kernels that train on {} devices; name CPU "
                  "devices (`\"devices\": [{{\"cpu\": {{}}}}]`)",
                  to_string(kind)));
}

std::string choose_leader(TrainLayout& layout, const std::vector<bool>& beside_first) {
  std::size_t leader = 0;
  while (leader < beside_first.size() && (layout.places[leader] < 0 || !beside_first[leader])) {
    ++leader;
  }
  if (leader == beside_first.size()) return keep_first(layout);
  const std::int64_t group = layout.places[leader] / layout.rows;
  const std::int64_t number = layout.places[leader] % layout.rows;
  const auto swapped = [](std::int64_t x, std::int64_t with) {
    return x == with ? 0 : x == 0 ? with : x;
  };
  for (std::int64_t& place : layout.places) {
    if (place < 0) continue;
    place =
        swapped(place / layout.rows, group) * layout.rows + swapped(place % layout.rows, number);
  }
  std::swap(layout.images[0], layout.images[group]);
  for (auto& layer : layout.units) std::swap(layer[0], layer[number]);
  if (leader == 0) return "";
  return fmt::format("rank {} writes what all learn, since rank 0 is left out", leader);
}

StepPlan plan_steps(const TrainSpec& spec, const std::vector<TrainLayer>& layers,
                    const std::vector<DeviceSpec>& devices, Communicator& comm, Device& device,
                    const TrainCosts* known) {
  const bool alike = all_alike(devices, comm, device);
  const bool follow = spec.rebalance.value_or(!alike) && comm.size() > 1;
  Strategy strategy = strategy_of(spec, layers, devices);
  const std::int64_t grain = largest(comm, grain_of(device.info()));
  // Equal devices share images unless they are told otherwise, so that equal runs have equal bits.
  if (strategy == Strategy::automatic && alike && !follow) strategy = Strategy::data;
  const bool given = spec.split.kind != SplitKind::profiled || spec.partition.chosen();
  if (given || (alike && !follow)) {
    StepPlan plan;
    plan.problem = problem_of(spec, layers, devices, grain);
    plan.layout = given_layout(spec, plan.problem, comm.size());
    add_split_note(spec, devices, plan.problem, plan.layout, plan.notes);
    return plan;
  }
  StepPlan plan = plan_measured(spec, layers, devices, comm, device, strategy, known);
  plan.follow = follow;
  return plan;
}

StepPlan plan_measured(const TrainSpec& spec, const std::vector<TrainLayer>& layers,
                       const std::vector<DeviceSpec>& devices, Communicator& comm, Device& device,
                       Strategy strategy, const TrainCosts* known) {
  const bool rows = strategy != Strategy::data;
  StepPlan plan;
  plan.problem = problem_of(spec, layers, devices, largest(comm, grain_of(device.info())));
  TrainCosts costs =
      known != nullptr ? *known : measure_costs(spec, layers, devices, comm, device, rows);
  for (std::size_t r = 0; r < devices.size(); ++r)
    costs.devices[r].images.factor = devices[r].slowdown;
  plan.devices = std::move(costs.devices);
  plan.problem.sums = costs.sums;
  plan.problem.halos = costs.halos;
  plan.layout = lay_out(plan.problem, plan.devices, strategy,
                        strategy == Strategy::grid ? spec.model_ranks : 0);
  add_notes(plan);
  add_split_note(spec, devices, plan.problem, plan.layout, plan.notes);
  return plan;
}

}  // namespace spdnn::train
