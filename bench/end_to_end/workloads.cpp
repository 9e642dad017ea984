// Reading or generating the jobs. What is generated is kept in the work folder and read again.
#include "end_to_end/workloads.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "networks/random_network.hpp"
#include "spdnn/io.hpp"

namespace spdnn::bench {
namespace {

namespace fs = std::filesystem;

enum class Kind : std::uint8_t { official, radixnet, random };
struct Entry {
  const char* name;
  Kind kind;
  std::int64_t neurons, layers, images;
};
constexpr Entry kEntries[] = {
    {"official_1024x120", Kind::official, 1024, 120, 60000},
    {"radixnet_1024x120", Kind::radixnet, 1024, 120, 60000},
    {"radixnet_4096x120", Kind::radixnet, 4096, 120, 60000},
    {"radixnet_16384x120", Kind::radixnet, 16384, 120, 6000},
    {"radixnet_65536x120", Kind::radixnet, 65536, 120, 6000},
    {"random_1024x30", Kind::random, 1024, 30, 12000},
    {"random_4096x30", Kind::random, 4096, 30, 4000},
    {"random_16384x30", Kind::random, 16384, 30, 1000},
};
constexpr float kRandomBias = -0.05F;
constexpr std::int64_t kScaleSample = 256;

/// Matrices of `file`, made and written by `make` when it is not there.
template <class Make>
std::vector<Csr> kept(const fs::path& file, const std::string& origin, const Make& make) {
  if (!fs::exists(file)) {
    fs::create_directories(file.parent_path());
    write_cache(file, make(), origin);
  }
  return read_cache(file);
}

Csr grey_images(const WorkloadRequest& request, std::int64_t neurons, std::int64_t count,
                std::string& origin, fs::path& file) {
  const bool drawn = request.mnist.empty();
  origin = drawn ? "drawn digits, seed 1" : "MNIST";
  file = request.work_dir /
         fmt::format("images-{}-{}-{}.spdnn", drawn ? "drawn" : "mnist", neurons, count);
  return kept(
             file, origin,
             [&] {
               IdxImages images = drawn ? draw_digits(count, 1) : read_idx_images(request.mnist);
               if (images.count < count) {
                 throw InputError(request.mnist,
                                  fmt::format("{} images, {} are needed; name a larger "
                                              "file or lower --images",
                                              images.count, count));
               }
               images.count = count;
               images.pixels.resize(static_cast<std::size_t>(count * images.height * images.width));
               return std::vector<Csr>{challenge_images(images, neurons)};
             })
      .front();
}

/// The parts of a configuration that all jobs share: nothing that saves work by luck of the data.
RunConfig base_config(const WorkloadRequest& request) {
  RunConfig config;
  config.deduplicate_images = false;
  config.merge_images = false;
  config.skip_fixed_points = false;
  config.compile = "off";
  config.compile_cache = false;  // compiling is timed
  config.output = request.work_dir / "output";
  config.data_dir = request.data_dir;
  config.file = request.work_dir / "bench.json";
  return config;
}

void use_files(Workload& workload, const fs::path& network, const fs::path& images) {
  workload.config.model = FileModel{network, {.bias = {workload.bias}, .clip = {workload.clip}}};
  workload.config.input.source = FileInput{images, std::nullopt};
}

std::optional<Workload> make_official(const Entry& entry, std::int64_t count,
                                      const WorkloadRequest& request) {
  const fs::path folder = request.data_dir / fmt::format("neuron{}", entry.neurons);
  if (request.data_dir.empty() || !fs::exists(folder)) return std::nullopt;
  Workload workload;
  workload.config = base_config(request);
  const CachePolicy cache;
  workload.weights =
      read_graph_challenge_weights(request.data_dir, entry.neurons, entry.layers, cache);
  workload.bias = *graph_challenge_bias(entry.neurons);
  const Csr once =
      read_graph_challenge_images(request.data_dir, entry.neurons, std::nullopt, cache);
  const std::int64_t repeat =
      std::max<std::int64_t>(count / std::max<std::int64_t>(once.rows(), 1), 1);
  std::vector<std::int64_t> ids(static_cast<std::size_t>(once.rows() * repeat));
  for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<std::int64_t>(i) % once.rows();
  workload.images = gather_rows(once, ids);
  workload.origin =
      fmt::format("official network; official images 1 to {}, {} times over", once.rows(), repeat);
  workload.config.model = GraphChallengeModel{entry.neurons, entry.layers, std::nullopt, 32.0F};
  workload.config.input = {GraphChallengeInput{}, repeat};
  return workload;
}

Workload make_radixnet(const Entry& entry, std::int64_t count, const WorkloadRequest& request) {
  Workload workload;
  workload.config = base_config(request);
  RadixNetSpec spec;
  spec.neurons = entry.neurons;
  spec.layers = entry.layers;
  const fs::path network =
      request.work_dir / fmt::format("radixnet-{}x{}.spdnn", spec.neurons, spec.layers);
  workload.weights = kept(network, radixnet_origin(spec), [&] {
    std::vector<Csr> layers;
    for (std::int64_t l = 0; l < spec.layers; ++l) layers.push_back(radixnet_layer(spec, l));
    return layers;
  });
  workload.bias = *graph_challenge_bias(entry.neurons);
  std::string origin;
  fs::path images;
  workload.images = grey_images(request, entry.neurons, count, origin, images);
  workload.origin = fmt::format("{}; {} images of {}", radixnet_origin(spec), count, origin);
  use_files(workload, network, images);
  return workload;
}

Workload make_random(const Entry& entry, std::int64_t count, const WorkloadRequest& request) {
  Workload workload;
  workload.config = base_config(request);
  workload.bias = kRandomBias;
  workload.clip = std::numeric_limits<float>::infinity();
  std::string origin;
  fs::path images;
  workload.images = grey_images(request, entry.neurons, count, origin, images);
  const fs::path network = request.work_dir / fmt::format("random-{}x{}-for-{}", entry.neurons,
                                                          entry.layers, images.filename().string());
  workload.weights = kept(network, "random normal weights, seed 1", [&] {
    const RandomNetwork drawn({entry.neurons, entry.layers, 64, 1});
    std::vector<std::int64_t> sample;  // spread over the images
    const std::int64_t size = std::min(count, kScaleSample);
    for (std::int64_t i = 0; i < size; ++i) sample.push_back(i * count / size);
    return drawn.scaled(scale_for_half(drawn, kRandomBias, gather_rows(workload.images, sample)));
  });
  workload.origin = fmt::format(
      "random: 1 to 64 nonzeros a row, normal weights scaled so that half of the images live; {} "
      "images of {}",
      count, origin);
  use_files(workload, network, images);
  return workload;
}

}  // namespace

double Workload::edges_per_image() const {
  double edges = 0.0;
  for (const Csr& layer : weights) edges += static_cast<double>(layer.nnz());
  return edges;
}

std::vector<std::string> workload_names() {
  std::vector<std::string> names;
  for (const Entry& entry : kEntries) names.emplace_back(entry.name);
  return names;
}

std::optional<Workload> make_workload(const std::string& name, const WorkloadRequest& request) {
  for (const Entry& entry : kEntries) {
    if (name != entry.name) continue;
    const std::int64_t count = std::min(entry.images, request.images.value_or(entry.images));
    std::optional<Workload> workload;
    switch (entry.kind) {
      case Kind::official: workload = make_official(entry, count, request); break;
      case Kind::radixnet: workload = make_radixnet(entry, count, request); break;
      case Kind::random: workload = make_random(entry, count, request); break;
    }
    if (workload) workload->name = name;
    return workload;
  }
  throw InputError(
      fmt::format("--workload {}: unknown; there are {}", name, fmt::join(workload_names(), ", ")));
}

}  // namespace spdnn::bench
