// Runs ranks as threads and joins their results.
#include "ranks.hpp"

#include <algorithm>
#include <numeric>

#include "help_desk.hpp"
#include "image_queue.hpp"
#include "pack.hpp"
#include "remote.hpp"
#include "roster.hpp"
#include "row_pass.hpp"
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

template <class Archive, class Result>
void name_fields(Archive& archive, Result& rank) {
  archive(rank.ids, rank.merged, rank.images_per_layer, rank.begun, rank.taken_over,
          rank.helped_segments, rank.equal, rank.fixed, rank.replayed_segments, rank.sent,
          rank.gathered, rank.busy_s);
}

/// One rank's part in the run, and when all ranks had their weights.
template <class Part>
std::pair<PassResult, double> run_part(Part part, Communicator& comm) {
  part.prepare();
  comm.barrier();
  const double resident = now_seconds();
  return {part.run(), resident};
}

/// The same for a rank among groups that own rows; one that is left out waits for the others.
std::pair<PassResult, double> run_rows(const PassContext& context, Communicator& comm,
                                       Device& device, const DeviceSpec& spec) {
  const GridShares& grid = context.plan->grid;
  const auto rank = static_cast<std::size_t>(comm.rank());
  const std::int64_t place = grid.places[rank];
  const auto groups = std::ssize(grid.images);
  const std::unique_ptr<Communicator> group =
      comm.split(static_cast<int>(place < 0 ? groups : place / std::ssize(grid.rows)),
                 static_cast<int>(place));
  if (place >= 0) return run_part(RowPass(context, rank, *group, device, spec), comm);
  comm.barrier();
  return {PassResult{}, now_seconds()};
}

/// Every rank's results to the first process.
void join_results(const Job& job, std::vector<PassResult>& ranks) {
  Communicator& processes = job.world.processes();
  if (processes.size() == 1) return;
  Packer packer;
  for (auto rank = ranks.begin() + job.here.begin; rank != ranks.begin() + job.here.end; ++rank) {
    name_fields(packer, *rank);
    packer.add(rank->outputs.size());
    for (const auto& [id, outputs] : rank->outputs) packer(id, outputs);
  }
  auto next = ranks.begin();
  for (const auto& bytes : gather_on_first(processes, packer.bytes())) {
    for (Unpacker unpacker(bytes); !unpacker.exhausted(); ++next) {
      PassResult result;
      std::size_t kept = 0;
      name_fields(unpacker, result);
      for (unpacker(kept); kept > 0; --kept) {
        std::int64_t id = 0;
        std::vector<float> outputs;
        unpacker(id, outputs);
        result.outputs.emplace(id, std::move(outputs));
      }
      *next = std::move(result);
    }
  }
}

}  // namespace

Outcome run_all_ranks(const PassContext& shared, const Job& job, bool profile_range,
                      const RunRanks& run_ranks) {
  Outcome outcome;
  std::vector<std::int64_t> origin_of;
  const std::size_t ranks = job.specs.size();
  ImageQueue queue(shared.plan->images, shared.plan->sharing, shared.plan->grain);
  SharedRoster roster(shared.plan->speeds, ranks <= usable_cores().size());
  const bool alone = job.world.processes().size() == 1;
  ImageDesk desk(job.world, queue);
  std::optional<HelpDesk> help;
  if (!alone && shared.plan->helping == Helping::images_then_rows)
    help.emplace(job, shared.plan->speeds);
  outcome.ranks.resize(ranks);
  const auto body = [&](Communicator& comm) {
    const auto rank = static_cast<std::size_t>(comm.rank());
    const std::unique_ptr<Device> device = open_device(job.specs[rank]);
    comm.show_device(device->info().name);
    comm.show("preparing", -1);
    PassContext context = shared;
    DeskSource asked(desk, comm);
    context.queue = &queue;
    if (!alone && shared.plan->sharing != Sharing::own) context.queue = &asked;
    std::unique_ptr<Roster> own;
    if (help) own = std::make_unique<DeskRoster>(*help, shared, comm, *device);
    context.roster = own == nullptr ? static_cast<Roster*>(&roster) : own.get();
    if (rank == 0 && profile_range) set_profiler_capture(true);
    comm.barrier();
    const double start = now_seconds();
    double resident = 0.0;
    std::tie(outcome.ranks[rank], resident) =
        shared.plan->own_rows ? run_rows(context, comm, *device, job.specs[rank])
                              : run_part(Pass(context, comm, *device, job.specs[rank]), comm);
    comm.show("gathering", -1);
    const std::vector<std::int64_t> ids = gather(comm, outcome.ranks[rank].ids);
    const std::vector<std::int64_t> merged = gather(comm, outcome.ranks[rank].merged);
    if (rank == 0) {
      origin_of = origins(shared.images->rows(), merged);
      outcome.ids = living(ids, origin_of);
      outcome.infer_s = now_seconds() - start;
      outcome.resident_s = now_seconds() - resident;
      if (profile_range) set_profiler_capture(false);
    }
    std::int64_t bytes = job.specs[rank].kind == DeviceKind::cuda ? device->peak_bytes() : 0;
    comm.all_reduce(&bytes, &bytes, 1, DType::i64, Reduction::max, nullptr);
    if (rank == 0) outcome.peak_device_bytes = bytes;
  };
  if (run_ranks) {
    run_ranks(body);
  } else {
    job.run_ranks(body);
  }
  join_results(job, outcome.ranks);
  if (!job.leads()) return outcome;
  for (PassResult& rank : outcome.ranks) outcome.outputs.merge(rank.outputs);
  copy_outputs(shared, origin_of, outcome);
  return outcome;
}

}  // namespace spdnn
