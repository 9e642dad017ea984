// One inference run: sources, profile, plan, ranks, and the comparison with what is known.
#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "agreement.hpp"
#include "devices.hpp"
#include "distinct.hpp"
#include "job.hpp"
#include "join.hpp"
#include "labelled.hpp"
#include "memory.hpp"
#include "message_crew.hpp"
#include "ranks.hpp"
#include "rewrite.hpp"
#include "row_layers.hpp"
#include "spdnn/halo.hpp"
#include "train.hpp"
#include "verify.hpp"
#include "weights.hpp"

namespace spdnn {
namespace {

namespace fs = std::filesystem;

void write_outputs(const fs::path& file, const std::vector<std::int64_t>& images,
                   const Distinct& distinct,
                   const std::map<std::int64_t, std::vector<float>>& outputs) {
  std::string text;
  for (const std::int64_t image : images) {
    const auto found = outputs.find(distinct.of[image]);
    if (found == outputs.end()) continue;
    for (std::size_t f = 0; f < found->second.size(); ++f) {
      if (found->second[f] != 0.0F) {
        fmt::format_to(std::back_inserter(text), "{}\t{}\t{}\n", image + 1, f + 1,
                       found->second[f]);
      }
    }
  }
  write_file_atomically(file, text);
}

/// The images to run, each of a kind once when the configuration says so; `seconds` is what finding
/// them took.
struct Work {
  Csr images;
  Distinct distinct;
  double seconds = 0.0;
};

Work choose_images(const Csr& images, bool deduplicate) {
  const double start = now_seconds();
  Work work = {images, deduplicate ? find_distinct(images.view()) : all_distinct(images.rows())};
  if (std::ssize(work.distinct.ids) < images.rows()) {
    work.images = gather_rows(images, work.distinct.ids);
  }
  work.seconds = now_seconds() - start;
  return work;
}

/// Edges that were computed, and those that the same images would have cost in `given`.
void count_edges(const Model& given, const CompiledModel& network, const Outcome& outcome,
                 RunResult::Edges& edges) {
  for (const PassResult& rank : outcome.ranks) {
    edges.executed_uncompiled += edges_uncompiled(given, network, rank.images_per_layer);
    for (std::size_t l = 0; l < rank.images_per_layer.size(); ++l) {
      edges.executed += static_cast<double>(rank.images_per_layer[l]) *
                        static_cast<double>(layer_edges(network.model.layers[l]));
    }
  }
}

/// What each rank did, and what they saved together.
void describe_devices(const std::vector<RankDevice>& devices, const Outcome& outcome,
                      RunResult& result) {
  for (std::size_t rank = 0; rank < devices.size(); ++rank) {
    DeviceResult device = {devices[rank]};
    device.busy_s = outcome.ranks[rank].busy_s;
    device.idle_s = std::max(outcome.infer_s - device.busy_s, 0.0);
    device.images = outcome.ranks[rank].begun;
    device.images_taken_over = outcome.ranks[rank].taken_over;
    device.helped_segments = outcome.ranks[rank].helped_segments;
    device.replayed_segments = outcome.ranks[rank].replayed_segments;
    result.devices.push_back(std::move(device));
    result.equal_images += outcome.ranks[rank].equal;
    result.fixed_images += outcome.ranks[rank].fixed;
  }
}

/// Checks a sample and the truth, both of the network as it was given, and sets the status.
void verify(const RunConfig& config, const Sources& sources, const Work& work,
            std::vector<std::int64_t> sample, const Outcome& outcome, const Profile& profile,
            const Progress& progress, RunResult& result) {
  const double start = now_seconds();
  compare_categories(sources, result);
  if (config.verify.sample_against_reference > 0) {
    std::int64_t survivors = config.verify.sample_against_reference / 2;
    for (const auto& [image, outputs] : outcome.outputs) {
      if (survivors-- > 0) sample.push_back(image);
    }
    std::sort(sample.begin(), sample.end());
    sample.erase(std::unique(sample.begin(), sample.end()), sample.end());
    const auto& streamed = result.plan.stream_weights;
    const bool short_of_memory =
        std::find(streamed.begin(), streamed.end(), true) != streamed.end() ||
        (config.compile != "off" && memory_is_short(config, sources.model));
    SampleOutcome checked =
        check_sample({&sources.model, &work.images, std::move(sample), &outcome.outputs,
                      is_canonical(result.plan, profile) && result.compile.exact, config.precision,
                      short_of_memory, &progress.cancel});
    result.sample = checked.check;
    std::move(checked.failures.begin(), checked.failures.end(),
              std::back_inserter(result.failures));
  }
  const bool checked = result.categories_match.has_value() || result.sample.images > 0;
  result.status = !result.failures.empty() ? "wrong" : checked ? "verified" : "done";
  result.seconds.verify = now_seconds() - start;
}

/// Living images by their ids in the input, from those of the images really run.
std::vector<std::int64_t> expand_ids(const std::vector<std::int64_t>& living, const Work& work) {
  std::vector<bool> lives(work.distinct.ids.size());
  for (const std::int64_t id : living) lives[id] = true;
  std::vector<std::int64_t> ids;
  for (std::size_t i = 0; i < work.distinct.of.size(); ++i) {
    if (lives[work.distinct.of[i]]) ids.push_back(static_cast<std::int64_t>(i));
  }
  return ids;
}

/// Reads what a run needs.
Sources load(const RunConfig& config, World& world, Progress& progress, RunResult& result) {
  result.job = config.job;
  progress.phase = "reading";
  const double start = now_seconds();
  Sources sources;
  in_turn(world, [&] { sources = load_sources(config); });
  agree_on_network(world, sources.model);
  agree_on_images(world, sources.images);
  result.seconds.load = now_seconds() - start;
  result.notes = sources.notes;
  result.model_origin = sources.model.origin;
  result.input_origin = sources.input_origin;
  result.images = sources.images.rows();
  result.layers = std::ssize(sources.model.layers);
  result.neurons = sources.model.inputs();
  return sources;
}

/// The network to run: the one given where nothing is asked for, or nothing found.
CompiledModel compile_network(const RunConfig& config, const Sources& sources, const Job& job,
                              Progress& progress, RunResult& result) {
  CompiledModel network = share_compiled(job, sources.model, [&] {
    if (config.compile == "off") return rewrite(config, sources, {});
    double start = now_seconds();
    progress.phase = "profiling";
    const std::vector<DeviceSpec> specs = job.specs_here();
    const CostModel cost = cost_of_specs(config, specs);
    result.seconds.profile = now_seconds() - start;
    progress.phase = "compiling";
    start = now_seconds();
    CompiledModel compiled =
        rewrite(config, sources, compile_request(config, sources, specs, cost));
    result.seconds.compile = now_seconds() - start;
    return compiled;
  });
  result.compile = network.report;
  result.notes.insert(result.notes.end(), network.report.notes.begin(), network.report.notes.end());
  return network;
}

/// Writes what a run found to its output folder.
void write_results(const RunConfig& config, const Work& work, const Outcome& outcome,
                   const RunResult& result) {
  std::error_code failed;
  fs::create_directories(config.output, failed);
  if (failed) {
    throw SystemError(fmt::format("{}: {}; name another folder with --output",
                                  config.output.string(), failed.message()));
  }
  write_categories(config.output / "categories.tsv", result.categories);
  if (config.save_outputs) {
    write_outputs(config.output / "outputs.tsv", result.categories, work.distinct, outcome.outputs);
  }
}

/// Ranks of several processes hold what they share, or take over, in memory of their own.
void level_batches(World& world, Plan& plan) {
  if (world.processes().size() == 1 || plan.helping == Helping::none) return;
  const std::int64_t least = *std::min_element(plan.batch.begin(), plan.batch.end());
  std::fill(plan.batch.begin(), plan.batch.end(), least);
}

/// What ranks of several processes take to share rows.
MessageCost measure_job_messages(const Job& job) {
  MessageCost cost;
  job.run_ranks([&](Communicator& comm) {
    const std::unique_ptr<Device> device = open_device(job.specs[comm.rank()]);
    const MessageCost found = measure_messages(comm, *device);
    if (comm.rank() == job.here.begin) cost = found;
  });
  return cost;
}

Plan plan_job(const RunConfig& config, const ModelStats& stats, const Profile& profile,
              const Job& job, RunResult& result) {
  World& world = job.world;
  Plan plan = make_plan(stats, profile, plan_request(config, job));
  level_batches(world, plan);
  if (world.processes().size() > 1 && plan.helping == Helping::images_then_rows) {
    const double start = now_seconds();
    plan.messages = measure_job_messages(job);
    result.seconds.profile += now_seconds() - start;
  }
  return plan;
}

/// What the owners of all rows let cross for one image, where all layers are linear.
RowTraffic expected_traffic(const RunConfig& config, const Model& model,
                            const std::vector<LayerPartition>& owners,
                            const std::vector<double>& speeds) {
  constexpr std::int64_t kWord = sizeof(float);
  RowTraffic rows;
  rows.partition = config.partition.model == "file" ? config.partition.file.filename().string()
                                                    : config.partition.model;
  rows.parts = static_cast<int>(std::ssize(speeds));
  rows.layers.resize(model.layers.size() + 1);
  if (!all_linear(model)) return rows;
  const Traffic traffic = count_traffic(model, {model_key(model), owners});
  rows.imbalance = imbalance(traffic, speeds);
  for (std::size_t l = 0; l < model.layers.size(); ++l) {
    rows.layers[l].predicted_forward = traffic.layers[l].words * kWord;
  }
  rows.layers.back().predicted_forward =
      (model.outputs() - std::ssize(part_of(owners.back(), 0))) * kWord;
  return rows;
}

/// The owners of all rows, where the plan gives them some, found by the first process.
std::vector<LayerPartition> divide_job(const RunConfig& config, const Model& model, const Job& job,
                                       Progress& progress, RunResult& result) {
  if (!result.plan.own_rows) return {};
  progress.phase = "partitioning";
  const double start = now_seconds();
  const auto divide = [&] {
    if (!config.partition.file.empty() && config.compile != "off" &&
        result.compile.before.rows != result.compile.after.rows) {
      throw InputError(config.partition.file,
                       "names the owners of the rows of a network as it is given, and /compile has "
                       "rewritten this one; set /compile to 'off', or /partition to 'hypergraph'");
    }
    return Partition{0, divide_rows(config.partition, model, result.plan.grid.rows)};
  };
  std::vector<LayerPartition> owners = share_partition(job.world.processes(), divide).layers;
  if (job.leads()) result.rows = expected_traffic(config, model, owners, result.plan.grid.rows);
  result.seconds.partition = now_seconds() - start;
  return owners;
}

/// What crossed, beside what so many images let expect.
void count_rows(const Outcome& outcome, RowTraffic& rows) {
  for (const PassResult& rank : outcome.ranks) {
    for (std::size_t l = 0; l < rank.sent.size(); ++l) rows.layers[l].forward += rank.sent[l];
  }
  // The first rank of each group counted its images.
  for (std::size_t l = 0; l < rows.layers.size(); ++l) {
    std::int64_t images = 0;
    for (const PassResult& rank : outcome.ranks) {
      if (rank.images_per_layer.empty()) continue;
      images += l < rank.images_per_layer.size() ? rank.images_per_layer[l] : rank.gathered;
    }
    auto& predicted = rows.layers[l].predicted_forward;
    if (predicted) *predicted *= images;
  }
}

/// What passes of `model` over these images are told, whoever takes part in them.
PassContext context_of(const RunConfig& config, const Model& model, const Work& work) {
  PassContext context;
  context.model = &model;
  context.images = &work.images;
  context.dead_from = dead_stays_dead_from(model);
  context.merge_images = config.merge_images;
  context.replay = config.cuda_graphs;
  context.alike_from = config.skip_fixed_points ? alike_from(model) : std::ssize(model.layers);
  return context;
}

RunResult infer(const RunConfig& config, Progress& progress, World& world) {
  RunResult result;
  const Job job = make_job(config, world);
  const Sources sources = load(config, world, progress, result);
  const CompiledModel network = compile_network(config, sources, job, progress, result);

  progress.phase = "profiling";
  const double start = now_seconds();
  const Profile profile = profile_job(config, network.model, job);
  result.seconds.profile += now_seconds() - start;
  const Work work = choose_images(sources.images, config.deduplicate_images);
  result.unique_images = work.images.rows();
  result.plan = plan_job(config, stats_of(network.model, work.images), profile, job, result);
  if (!result.plan.own_rows) check_needs_no_nccl(config);
  const std::vector<LayerPartition> owners =
      divide_job(config, network.model, job, progress, result);

  progress.phase = "inferring";
  progress.total = work.images.rows() * std::ssize(network.model.layers);
  const std::int64_t checked = config.verify.sample_against_reference;
  std::vector<std::int64_t> sample =
      choose_sample(work.images.rows(), checked - checked / 2, config.seed);
  const bool keep_all = config.save_outputs || !sources.labels.empty();
  SharedForms forms(network.model);
  PassContext context = context_of(config, network.model, work);
  context.plan = &result.plan;
  context.keep_first = keep_all ? work.images.rows() : checked / 2;
  context.keep_ids = &sample;
  context.progress = &progress;
  context.forms = &forms;
  context.rows = &owners;
  RunRanks run_ranks;
  if (result.plan.own_rows) {
    run_ranks = [&](const auto& body) { run_joined(config, job, body, result.notes); };
  }
  Outcome outcome = run_all_ranks(context, job, config.profile_range, run_ranks);
  if (!job.leads()) return {};
  for (auto& [image, outputs] : outcome.outputs) outputs = expand_outputs(network, outputs);
  progress.phase = "verifying";
  progress.total = 0;
  result.seconds.infer = work.seconds + outcome.infer_s;
  result.seconds.infer_resident = work.seconds + outcome.resident_s;
  result.edges.nominal =
      static_cast<double>(result.images) * static_cast<double>(sources.model.edges());
  result.categories = expand_ids(outcome.ids, work);
  if (!sources.labels.empty()) {
    result.labelled =
        measure_outputs(sources.labels, sources.model.outputs(), work.distinct.of, outcome.outputs);
  }
  result.peak_device_bytes = outcome.peak_device_bytes;
  describe_devices(job.devices, outcome, result);
  count_edges(sources.model, network, outcome, result.edges);
  if (result.rows) count_rows(outcome, *result.rows);
  verify(config, sources, work, std::move(sample), outcome, profile, progress, result);
  result.peak_host_bytes = peak_host_bytes();
  check_bars(config.require, result);
  write_results(config, work, outcome, result);
  return result;
}

}  // namespace

RunResult run(const RunConfig& config, Progress& progress, World& world) {
  const ProfileRange range("run");
  agree_on_config(world, config);
  return config.train ? run_training(config, progress, world) : infer(config, progress, world);
}

RunResult run(const RunConfig& config, Progress& progress) {
  const std::unique_ptr<World> world = single_world();
  return run(config, progress, *world);
}

ExitStatus exit_status(const RunResult& result) {
  return result.failures.empty() && result.status != "wrong" ? ExitStatus::done : ExitStatus::wrong;
}

}  // namespace spdnn
