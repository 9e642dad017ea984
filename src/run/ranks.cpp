// Runs ranks as threads and joins their results.
#include "ranks.hpp"

#include <algorithm>
#include <numeric>

#include "image_queue.hpp"
#include "roster.hpp"
#include "spdnn/comm.hpp"

namespace spdnn {
namespace {

/// Gathers every rank's list, in rank order, on all ranks.
std::vector<std::int64_t> gather(Communicator& comm, const std::vector<std::int64_t>& list) {
  const std::vector<std::int64_t> ones(static_cast<std::size_t>(comm.size()), 1);
  std::vector<std::int64_t> counts(ones.size());
  const std::int64_t count = std::ssize(list);
  comm.all_gather(&count, counts.data(), ones, DType::i64, nullptr);
  std::vector<std::int64_t> all(
      static_cast<std::size_t>(std::accumulate(counts.begin(), counts.end(), std::int64_t{0})));
  comm.all_gather(list.data(), all.data(), counts, DType::i64, nullptr);
  return all;
}

/// Which image went on for each: itself, or the last of those it was merged into, in turn.
std::vector<std::int64_t> origins(std::int64_t images, const std::vector<std::int64_t>& merged) {
  std::vector<std::int64_t> of(static_cast<std::size_t>(images));
  std::iota(of.begin(), of.end(), 0);
  for (std::size_t i = 0; i + 1 < merged.size(); i += 2) of[merged[i]] = merged[i + 1];
  for (std::int64_t& origin : of) {
    while (of[origin] != origin) origin = of[origin];
  }
  return of;
}

/// Living images, ascending: those that went through all layers, and those merged into them.
std::vector<std::int64_t> living(const std::vector<std::int64_t>& ids,
                                 const std::vector<std::int64_t>& origin_of) {
  std::vector<bool> lives(origin_of.size());
  for (const std::int64_t id : ids) lives[id] = true;
  std::vector<std::int64_t> all;
  for (std::size_t i = 0; i < origin_of.size(); ++i) {
    if (lives[origin_of[i]]) all.push_back(static_cast<std::int64_t>(i));
  }
  return all;
}

/// Gives merged images the outputs of those that went on for them, where they are to be kept.
void copy_outputs(const PassContext& context, const std::vector<std::int64_t>& origin_of,
                  Outcome& outcome) {
  for (const std::int64_t id : outcome.ids) {
    if (origin_of[id] == id) continue;
    const auto found = outcome.outputs.find(origin_of[id]);
    const bool kept = std::ssize(outcome.outputs) < context.keep_first ||
                      std::binary_search(context.keep_ids->begin(), context.keep_ids->end(), id);
    if (kept && found != outcome.outputs.end()) outcome.outputs[id] = found->second;
  }
}

}  // namespace

Outcome run_all_ranks(const PassContext& shared, const std::vector<DeviceSpec>& specs,
                      bool profile_range) {
  Outcome outcome;
  std::vector<std::int64_t> origin_of;
  ImageQueue queue(shared.plan->images, shared.plan->sharing, shared.plan->grain);
  Roster roster(static_cast<int>(specs.size()), specs.size() <= usable_cores().size());
  PassContext context = shared;
  context.queue = &queue;
  context.roster = &roster;
  outcome.ranks.resize(specs.size());
  std::vector<std::int64_t> peaks(specs.size());
  run_ranks(static_cast<int>(specs.size()), [&](Communicator& comm) {
    const auto rank = static_cast<std::size_t>(comm.rank());
    const std::unique_ptr<Device> device = open_device(specs[rank]);
    Pass pass(context, comm.rank(), *device, specs[rank].slowdown);
    if (rank == 0 && profile_range) set_profiler_capture(true);
    comm.barrier();
    const double start = now_seconds();
    pass.prepare();
    comm.barrier();
    const double resident = now_seconds();
    outcome.ranks[rank] = pass.run();
    const std::vector<std::int64_t> ids = gather(comm, outcome.ranks[rank].ids);
    const std::vector<std::int64_t> merged = gather(comm, outcome.ranks[rank].merged);
    if (rank == 0) {
      origin_of = origins(context.images->rows(), merged);
      outcome.ids = living(ids, origin_of);
      outcome.infer_s = now_seconds() - start;
      outcome.resident_s = now_seconds() - resident;
      if (profile_range) set_profiler_capture(false);
    }
    if (specs[rank].kind == DeviceKind::cuda) peaks[rank] = device->peak_bytes();
  });
  for (PassResult& rank : outcome.ranks) outcome.outputs.merge(rank.outputs);
  copy_outputs(context, origin_of, outcome);
  outcome.peak_device_bytes = *std::max_element(peaks.begin(), peaks.end());
  return outcome;
}

}  // namespace spdnn
