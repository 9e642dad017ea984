// Measuring what `spdnn-gpu bench node` shows.
#include "spdnn/node.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "agreement.hpp"
#include "devices.hpp"
#include "job.hpp"
#include "labelled.hpp"
#include "pack.hpp"
#include "sources.hpp"
#include "spdnn/limits.hpp"
#include "spdnn/run.hpp"
#include "spdnn/timing.hpp"

namespace spdnn {
namespace {

constexpr int kRuns = 5;
/// Copied within a device, and to it: more than any cache holds.
constexpr std::size_t kCopyBytes = std::size_t{64} << 20U;
/// Sent between ranks; and what stands for nothing, to see the latency.
constexpr std::int64_t kSentBytes = std::int64_t{4} << 20U;
constexpr std::int64_t kLeastBytes = 8;

/// The fastest of a few runs after a warm-up, since noise only ever adds.
template <class Work>
double fastest(const Work& work) {
  double best = 0.0;
  for (int run = 0; run <= kRuns; ++run) {
    const double start = now_seconds();
    work();
    const double seconds = now_seconds() - start;
    if (run > 0 && (best == 0.0 || seconds < best)) best = seconds;
  }
  return best;
}

/// Copies and, on a CPU, what its cores and memory can do at best.
void measure_limits(const DeviceSpec& spec, DeviceSpeed& speed) {
  DeviceSpec unpinned = spec;  // opening a device must not pin this thread
  unpinned.cores.clear();
  const std::unique_ptr<Device> device = open_device(unpinned);
  const std::unique_ptr<Stream> stream = device->make_stream();
  const Buffer from = device->allocate(kCopyBytes);
  const Buffer to = device->allocate(kCopyBytes);
  const Buffer host = device->allocate_host(kCopyBytes);
  stream->zero(from.data(), kCopyBytes);
  stream->zero(to.data(), kCopyBytes);
  std::fill_n(host.as<std::byte>(), kCopyBytes, std::byte{1});
  const auto rate = [&](const void* source) {
    return static_cast<double>(kCopyBytes) / fastest([&] {
             stream->copy(to.data(), source, kCopyBytes);
             stream->synchronize();
           });
  };
  speed.copy_bytes_per_s = rate(from.data());
  speed.host_bytes_per_s = rate(host.data());
  speed.fma_per_s = device->info().fma_per_s;
  if (spec.kind == DeviceKind::cpu) {
    speed.fma_per_s = limits::fma_rate(spec.threads);
    speed.memory_bytes_per_s = limits::load_rate(kCopyBytes, spec.threads);
  }
}

/// What a rank gets to do: images, and where ranks own rows its part of these for all images of its
/// group.
void set_share(const Plan& plan, std::size_t rank, DeviceSpeed& speed) {
  speed.share = plan.images[rank].size();
  if (!plan.own_rows) return;
  const std::int64_t place = plan.grid.places[rank];
  speed.rows = 0.0;
  if (place < 0) return;
  const std::int64_t ranks = std::ssize(plan.grid.rows);
  // A group's images stand at the first of its ranks.
  const auto first =
      std::find(plan.grid.places.begin(), plan.grid.places.end(), place / ranks * ranks);
  speed.share = plan.images[static_cast<std::size_t>(first - plan.grid.places.begin())].size();
  speed.rows = plan.grid.rows[static_cast<std::size_t>(place % ranks)] /
               std::accumulate(plan.grid.rows.begin(), plan.grid.rows.end(), 0.0);
}

/// Every distinct layer with its fastest kernel.
void measure_layers(const RunConfig& config, const Job& job, bool refresh, NodeReport& report) {
  Sources sources;
  in_turn(job.world, [&] { sources = load_sources(config); });
  const Profile profile = profile_job(config, sources.model, job, refresh, true);
  const ModelStats stats = stats_of(sources.model, sources.images);
  const Plan plan = make_plan(stats, profile, plan_request(config, job));
  double images_per_s = 0.0;
  for (std::size_t r = 0; r < profile.ranks.size(); ++r) {
    const DeviceProfile& rank = profile.ranks[r];
    for (std::size_t s = 0; s < profile.shapes.size(); ++s) {
      const KernelTime* best = nullptr;
      for (const KernelTime& time : rank.times[s]) {
        if (!time.declined.empty()) continue;
        if (best == nullptr || time.seconds_per_image < best->seconds_per_image) best = &time;
      }
      if (best == nullptr) continue;
      const SpmmShape& shape = profile.shapes[s];
      const double floor = s < rank.floors.size() ? rank.floors[s] : 0.0;
      report.devices[r].works.push_back(
          {fmt::format("{} × {}, {} nonzeros", shape.rows, shape.cols, shape.nnz), best->kernel,
           best->seconds_per_image, static_cast<double>(shape.nnz) / best->seconds_per_image,
           floor * rank.slowdown / best->seconds_per_image});
    }
    set_share(plan, r, report.devices[r]);
    images_per_s += 1.0 / modelled_seconds_per_image(profile, r);
  }
  report.items = "images of the input";
  report.count = stats.images;
  report.predicted_s = static_cast<double>(stats.images) / images_per_s;
  report.notes.insert(report.notes.end(), plan.notes.begin(), plan.notes.end());
}

/// Steps of training over a few images, and the shares that follow.
void measure_steps(const RunConfig& config, const Job& job, bool refresh, NodeReport& report) {
  TrainSpec spec = *config.train;
  spec.split = config.plan.split;
  spec.memory_limit = config.memory_limit;
  if (!refresh) spec.profile_cache = profile_cache_file();
  const LabelledSets sets = load_labelled(config.input).sets;
  const TrainingPlan plan =
      plan_training(spec, sets.train, job.specs, [&](const auto& body) { job.run_ranks(body); });
  if (!job.leads()) return;
  for (std::size_t r = 0; r < job.specs.size(); ++r) {
    for (const CostCurve::Point& point : plan.costs[r].curve.points()) {
      const double seconds = plan.costs[r].factor * point.seconds;
      if (point.count == 0 || seconds <= 0.0) continue;
      report.devices[r].works.push_back(
          {fmt::format("a step over {} images", point.count), "", seconds,
           plan.edges_per_image * static_cast<double>(point.count) / seconds, 0.0});
    }
    report.devices[r].share = plan.shares.shares[r];
  }
  report.items = "images of a step";
  report.count = spec.batch;
  report.predicted_s = plan.shares.seconds();
  report.notes.insert(report.notes.end(), plan.notes.begin(), plan.notes.end());
}

/// Time of a full transfer less that of an empty one, as a rate.
double rate_of(double bytes, double full, double least) {
  return bytes / std::max(full - least, 1e-9);
}

void measure_links(Communicator& comm, NodeReport& report) {
  std::vector<std::byte> buffer(static_cast<std::size_t>(kSentBytes));
  for (int from = 0; from < comm.size(); ++from) {
    for (int to = 0; to < comm.size(); ++to) {
      if (from == to) continue;
      const auto send = [&](std::int64_t bytes) {
        return fastest_together(comm, kRuns, [&] {
          std::vector<Communicator::Message> sends;
          std::vector<Communicator::Message> receives;
          const auto size = static_cast<std::size_t>(bytes);
          if (comm.rank() == from) sends.push_back({to, buffer.data(), size});
          if (comm.rank() == to) receives.push_back({from, buffer.data(), size});
          comm.exchange(sends, receives, nullptr);
        });
      };
      const double least = send(kLeastBytes);
      const double full = send(kSentBytes);
      if (comm.rank() == 0) {
        report.links.push_back({from, to, least, rate_of(kSentBytes, full, least)});
      }
    }
  }
}

void measure_collectives(Communicator& comm, NodeReport& report) {
  const auto ranks = static_cast<std::int64_t>(comm.size());
  std::vector<float> piece(static_cast<std::size_t>(kSentBytes) / sizeof(float));
  std::vector<float> all(piece.size());
  const auto gather = [&](std::int64_t bytes) {
    const std::vector<std::int64_t> counts(static_cast<std::size_t>(ranks), bytes / 4 / ranks);
    return fastest_together(comm, kRuns, [&] {
      comm.all_gather(piece.data(), all.data(), counts, DType::f32, nullptr);
    });
  };
  const auto reduce = [&](std::int64_t bytes) {
    return fastest_together(comm, kRuns, [&] {
      comm.all_reduce(piece.data(), all.data(), bytes / 4, DType::f32, Reduction::sum, nullptr);
    });
  };
  const double least_gather = gather(kLeastBytes * ranks);
  const double gathered = gather(kSentBytes);
  const double least_reduce = reduce(kLeastBytes);
  const double reduced = reduce(kSentBytes);
  if (comm.rank() != 0) return;
  report.collectives = {{"all_gather", least_gather, rate_of(kSentBytes, gathered, least_gather)},
                        {"all_reduce", least_reduce, rate_of(kSentBytes, reduced, least_reduce)}};
}

/// Measures what is on this host in turn, while other hosts do the same; a device that several of
/// its ranks have, once.
void measure_devices(const Job& job, NodeReport& report) {
  const std::size_t ranks = job.specs.size();
  std::vector<std::size_t> twins;       // by rank, the first one on the same device
  std::map<std::string, int> measured;  // by host
  std::vector<int> turns;
  for (std::size_t r = 0; r < ranks; ++r) {
    std::size_t twin = 0;
    while (job.devices[twin].host != job.devices[r].host ||
           !same_device(job.specs[twin], job.specs[r])) {
      ++twin;
    }
    twins.push_back(twin);
    turns.push_back(twin == r ? measured[job.devices[r].host]++ : -1);
  }
  Packer packer;
  for (int turn = 0; turn <= *std::max_element(turns.begin(), turns.end()); ++turn) {
    job.world.processes().barrier();
    for (std::int64_t r = job.here.begin; r < job.here.end; ++r) {
      if (turns[r] != turn) continue;
      DeviceSpeed speed;
      measure_limits(job.specs[r], speed);
      packer(r, speed.fma_per_s, speed.memory_bytes_per_s, speed.copy_bytes_per_s,
             speed.host_bytes_per_s);
    }
  }
  report.devices.resize(ranks);
  for (const auto& bytes : gather_bytes(job.world.processes(), packer.bytes())) {
    for (Unpacker unpacker(bytes); !unpacker.exhausted();) {
      std::int64_t rank = 0;
      unpacker(rank);
      DeviceSpeed& speed = report.devices[rank];
      unpacker(speed.fma_per_s, speed.memory_bytes_per_s, speed.copy_bytes_per_s,
               speed.host_bytes_per_s);
    }
  }
  for (std::size_t r = 0; r < ranks; ++r) {
    report.devices[r] = report.devices[twins[r]];
    static_cast<RankDevice&>(report.devices[r]) = job.devices[r];
  }
}

}  // namespace

NodeReport measure_node(const RunConfig& config, bool refresh, World& world) {
  agree_on_config(world, config);
  const Job job = make_job(config, world);
  NodeReport report;
  report.job = config.job;
  measure_devices(job, report);
  if (config.job == "train") {
    measure_steps(config, job, refresh, report);
  } else {
    measure_layers(config, job, refresh, report);
  }
  if (job.specs.size() > 1) {
    job.run_ranks([&](Communicator& comm) {
      measure_links(comm, report);
      measure_collectives(comm, report);
    });
  }
  return report;
}

}  // namespace spdnn
