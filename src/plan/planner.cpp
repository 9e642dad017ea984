// The planner: shares of images from measured speeds, batches from memory, segments of layers.
#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "kernel_choice.hpp"
#include "spdnn/plan.hpp"

namespace spdnn {
namespace {

/// Part of a rank's memory that resident weights may take; the rest is for activations.
constexpr double kWeightShare = 0.5;
/// Cache of a core where the system does not tell.
constexpr std::int64_t kLeastCacheBytes = std::int64_t{512} << 10;
/// Batches' worth of memory that a rank with pools may take: its buffers hold one and a half, and
/// each pool follows a halving of the images.
constexpr std::int64_t kPooledBatches = 16;

/// Bytes of activations and messages of a rank that owns rows: enough that messages are few and
/// long. Its kernels take one panel at a time through its caches, whatever the batch.
constexpr std::int64_t kOwnRowsBytes = std::int64_t{256} << 20;

/// Most layers of a segment.
constexpr std::int64_t kLongestSegment = 12;

std::vector<Segment> make_segments(std::int64_t layers) {
  std::vector<Segment> segments;
  for (const Range& range : segment_layers(layers)) {
    segments.push_back({range.begin, range.size(), {}, {}, Exchange::none, {}, {}});
  }
  return segments;
}

std::vector<double> image_weights(const Profile& profile, const PlanRequest& request) {
  std::vector<double> weights(profile.ranks.size(), 1.0);
  if (request.split.kind == SplitKind::ratios) {
    if (request.split.ratios.size() != weights.size()) {
      throw InputError(fmt::format("/split: {} ratios for {} devices; give one for each",
                                   request.split.ratios.size(), weights.size()));
    }
    weights = request.split.ratios;
  } else if (request.split.kind == SplitKind::profiled) {
    for (std::size_t rank = 0; rank < weights.size(); ++rank) {
      weights[rank] = 1.0 / modelled_seconds_per_image(profile, rank);
    }
  }
  return weights;
}

/// Bytes an image takes on a device: two activation buffers; ids twice, parent, flags, compaction
/// map, hash and table of equal images; its input.
double bytes_per_image(const ModelStats& stats) {
  return 2.0 * sizeof(float) * static_cast<double>(stats.max_features) + 64.0 +
         stats.input_bytes_per_image;
}

/// The same of a rank that owns rows: two buffers of what they read, two of what they put out, and
/// messages both ways, none of them wider than a layer.
double owner_bytes_per_image(const ModelStats& stats) {
  return 8.0 * sizeof(float) * static_cast<double>(stats.max_features) + 64.0 +
         stats.input_bytes_per_image;
}

/// Bytes of the rows that a rank owns: as given, cut out, and in a kernel's form.
std::int64_t owned_bytes(std::int64_t weight_bytes, const GridShares& grid, std::size_t rank) {
  const double all = std::accumulate(grid.rows.begin(), grid.rows.end(), 0.0);
  const double own = grid.rows[grid.places[rank] % std::ssize(grid.rows)];
  return static_cast<std::int64_t>(3.0 * static_cast<double>(weight_bytes) * own / all);
}

/// Batches of its share that a GPU takes one after the other where ranks share images, so that
/// there is something left to take.
constexpr std::int64_t kSharedBatches = 8;

/// Threads of all CPU ranks, which share the last cache.
std::int64_t cpu_threads(const Profile& profile) {
  std::int64_t threads = 0;
  for (const DeviceProfile& rank : profile.ranks) {
    if (rank.device.kind == DeviceKind::cpu) threads += rank.device.threads;
  }
  return std::max<std::int64_t>(threads, 1);
}

/// Images of a batch on a CPU: small enough that a segment's activations stay in the core's cache,
/// survivors being pooled into full batches later. Where they can't, two panels share each layer's
/// weights if what they read and write fits a thread's part of the last cache, else there is one.
std::int64_t cpu_batch(const ModelStats& stats, const DeviceInfo& device, std::int64_t width,
                       std::int64_t all_threads) {
  const std::int64_t cache = std::max(device.l2_bytes, kLeastCacheBytes);
  const std::int64_t panel = 4 * width * std::max<std::int64_t>(stats.max_features, 1);
  const std::int64_t last_cache = std::max(device.l3_bytes / all_threads, cache);
  const std::int64_t least = 4 * panel <= last_cache ? 2 : 1;
  return std::max(cache * device.threads / panel, least * device.threads) * width;
}

/// Whether a rank holds a window of layers only, and how many images it takes at once.
void plan_memory(const ModelStats& stats, const Profile& profile, const PlanRequest& request,
                 std::size_t rank, Plan& plan) {
  if (plan.own_rows && plan.grid.places[rank] < 0) {
    plan.batch.push_back(std::max<std::int64_t>(stats.images, 1));
    plan.pools.push_back(false);
    plan.stream_weights.push_back(false);
    return;
  }
  const DeviceProfile& device = profile.ranks[rank];
  std::int64_t weight_bytes = 0;
  std::int64_t largest = 0;
  for (const LayerStats& layer : stats.layers) {
    weight_bytes += layer.weight_bytes;
    largest = std::max(largest, layer.weight_bytes);
  }
  const auto limit = static_cast<double>(device.memory_limit);
  const bool stream = !plan.own_rows && static_cast<double>(weight_bytes) > kWeightShare * limit;
  const std::int64_t held = plan.own_rows ? owned_bytes(weight_bytes, plan.grid, rank)
                            : stream      ? std::min(weight_bytes, 2 * largest)
                                          : weight_bytes;
  const double per_image = plan.own_rows ? owner_bytes_per_image(stats) : bytes_per_image(stats);
  const std::int64_t width = panel_width(device.device);
  const double fits = (limit - static_cast<double>(held)) / per_image;
  if (fits < static_cast<double>(width)) {
    throw InputError(fmt::format(
        "/memory_limit: {} has {} bytes for a rank, but {} bytes of weights and {:.0f} bytes for "
        "each of {} images do not fit; raise memory_limit or use fewer ranks",
        device.device.name, device.memory_limit, held, per_image, width));
  }
  auto most = static_cast<std::int64_t>(fits) / width * width;
  bool pools = false;
  if (plan.own_rows) {
    const auto enough = static_cast<double>(kOwnRowsBytes) / per_image;
    most = std::clamp(static_cast<std::int64_t>(enough) / width * width, width, most);
  } else if (device.device.kind == DeviceKind::cpu && !stream) {
    const std::int64_t pooled = most / kPooledBatches;
    pools = pooled >= width;
    if (pools)
      most = std::min(pooled, cpu_batch(stats, device.device, width, cpu_threads(profile)));
  }
  std::int64_t images = plan.images[rank].size();
  if (plan.sharing != Sharing::own) {
    images = stats.images;
    const auto ranks = std::ssize(profile.ranks);
    if (!pools) most = std::min(most, std::max(width, images / (kSharedBatches * ranks)));
  }
  if (plan.helping == Helping::rows) {
    for (const Range& share : plan.images) images = std::max(images, share.size());
  }
  if (request.batch) most = std::min(most, *request.batch);
  plan.batch.push_back(std::max<std::int64_t>(std::min(most, images), 1));
  plan.pools.push_back(pools);
  plan.stream_weights.push_back(stream);
  if (stream) {
    plan.notes.push_back(
        fmt::format("rank {} streams its weights: {} bytes do not fit in half of {} bytes", rank,
                    weight_bytes, device.memory_limit));
  }
}

/// The strategy to use, and what it means for who begins images and who helps whom.
void choose_strategy(const Profile& profile, const PlanRequest& request, Plan& plan) {
  const auto& ranks = profile.ranks;
  const bool all_cpu = std::all_of(ranks.begin(), ranks.end(), [](const DeviceProfile& rank) {
    return rank.device.kind == DeviceKind::cpu;
  });
  plan.strategy = request.strategy;
  if (plan.strategy == Strategy::automatic) {
    plan.strategy = all_cpu && ranks.size() > 1 ? Strategy::data_then_model : Strategy::data;
  }
  switch (plan.strategy) {
    case Strategy::automatic:
    case Strategy::data: break;
    case Strategy::task_manager: plan.sharing = Sharing::common; break;
    case Strategy::task_stealing: plan.sharing = Sharing::stealing; break;
    case Strategy::data_then_model:
      plan.sharing = Sharing::stealing;
      if (all_cpu) {
        plan.helping = Helping::images_then_rows;
      } else {
        plan.notes.emplace_back(
            "ranks take over images that nobody has begun, but none under way: not all of them are "
            "CPU ranks");
      }
      break;
    case Strategy::model:
    case Strategy::grid: plan.helping = Helping::rows; break;
  }
  const bool by_request = plan.helping == Helping::rows;
  // CPU ranks may share rows of one memory; a GPU's own ones lie in its own.
  plan.own_rows = by_request && (request.own_rows || !all_cpu || plan.strategy == Strategy::grid);
  plan.rebalance_rows =
      !plan.own_rows && (!by_request || request.split.kind == SplitKind::profiled);
}

/// The groups of ranks that own rows.
GridShares group_ranks(const PlanRequest& request, Plan& plan) {
  const auto ranks = std::count_if(plan.speeds.begin(), plan.speeds.end(),
                                   [](double speed) { return speed > 0.0; });
  const bool grid = plan.strategy == Strategy::grid;
  GridShares shares = share_grid(plan.speeds, grid ? request.model_ranks : ranks);
  if (grid) {
    plan.notes.push_back(
        fmt::format("{} groups of {} ranks share the images, each of them the rows",
                    shares.images.size(), shares.rows.size()));
  }
  return shares;
}

/// Each rank's images at the start; those of a group are its first rank's.
std::vector<Range> share_images(const ModelStats& stats, const Plan& plan) {
  if (plan.own_rows) {
    const std::vector<Range> parts = split_in_proportion(stats.images, plan.grid.images);
    std::vector<Range> shares(plan.speeds.size(), {stats.images, stats.images});
    const auto rows = std::ssize(plan.grid.rows);
    for (std::size_t rank = 0; rank < shares.size(); ++rank) {
      const std::int64_t place = plan.grid.places[rank];
      if (place >= 0 && place % rows == 0) shares[rank] = parts[place / rows];
    }
    return shares;
  }
  if (plan.helping != Helping::rows && plan.sharing != Sharing::common) {
    return split_in_proportion(stats.images, plan.speeds);
  }
  std::vector<Range> shares(plan.speeds.size(), {stats.images, stats.images});
  shares[0] = {0, stats.images};
  return shares;
}

}  // namespace

/// Most images of a sparse network die in its first layers, so segments start at one layer and grow
/// by half of the layers before them.
std::vector<Range> segment_layers(std::int64_t layers) {
  std::vector<Range> segments;
  for (std::int64_t first = 0; first < layers;) {
    const std::int64_t length = std::clamp(first / 2, std::int64_t{1}, kLongestSegment);
    segments.push_back({first, std::min(first + length, layers)});
    first = segments.back().end;
  }
  return segments;
}

Plan make_plan(const ModelStats& stats, const Profile& profile, const PlanRequest& request) {
  if (profile.ranks.empty()) throw InputError("/devices: no device to run on");
  Plan plan;
  choose_strategy(profile, request, plan);
  plan.speeds = image_weights(profile, request);
  if (plan.own_rows) plan.grid = group_ranks(request, plan);
  plan.images = share_images(stats, plan);
  plan.grain = panel_width(profile.ranks.front().device);
  plan.segments = make_segments(std::ssize(stats.layers));
  if (plan.own_rows) {
    for (Segment& segment : plan.segments) segment.exchange = Exchange::halo;
  }
  if (std::none_of(profile.ranks.begin(), profile.ranks.end(), [&](const DeviceProfile& rank) {
        return request.kernel == "auto" || lists(rank.times, request.kernel) ||
               lists(rank.chain_times, request.kernel);
      })) {
    // Throws, and lists what there is.
    static_cast<void>(choose_kernel(profile.ranks.front(), 0, request.kernel));
  }
  const bool share_rows = plan.helping != Helping::none && !plan.own_rows;
  for (std::size_t rank = 0; rank < profile.ranks.size(); ++rank) {
    plan_memory(stats, profile, request, rank, plan);
    const std::string wanted = wanted_on(profile.ranks[rank], request.kernel);
    for (Segment& segment : plan.segments) {
      std::vector<std::string>& names = segment.kernels.emplace_back();
      for (std::int64_t layer = segment.first; layer < segment.first + segment.count; ++layer) {
        const auto shape = static_cast<std::size_t>(profile.shape_of_layer[layer]);
        const KernelTime* common =
            share_rows ? common_kernel(profile.ranks, shape, wanted) : nullptr;
        names.push_back(common != nullptr
                            ? common->kernel
                            : choose_kernel(profile.ranks[rank], shape, wanted).kernel);
      }
      // Rows of layers that ranks share, and layers that pass through a window, go one by one.
      const bool whole =
          request.chains && plan.helping == Helping::none && !plan.stream_weights[rank];
      const Range layers = {segment.first, segment.first + segment.count};
      segment.chains.push_back(
          whole ? choose_chain(profile, profile.ranks[rank], layers, request.kernel) : "");
    }
  }
  if (plan.own_rows) {
    const std::int64_t least = *std::min_element(plan.batch.begin(), plan.batch.end());
    std::fill(plan.batch.begin(), plan.batch.end(), least);
  }
  return plan;
}

}  // namespace spdnn
