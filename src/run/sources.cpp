// Reads or generates the network, the images and the truth a configuration names.
#include "sources.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <limits>
#include <mutex>
#include <system_error>
#include <thread>

#include "labelled.hpp"

namespace spdnn {
namespace {

namespace fs = std::filesystem;

/// The folder that has `entry`: the data directory, else the configuration's own; the first of them
/// when neither has it, for the reader's message.
fs::path folder_with(const RunConfig& config, const fs::path& entry) {
  std::vector<fs::path> folders;
  if (!config.data_dir.empty()) folders.push_back(config.data_dir);
  folders.push_back(config.file.parent_path());
  for (const fs::path& folder : folders) {
    std::error_code ignored;
    if (fs::exists(folder / entry, ignored)) return folder;
  }
  return folders.front();
}

float bias_or_table(const std::optional<float>& bias, std::int64_t neurons, const char* pointer) {
  if (bias) return *bias;
  if (const auto official = graph_challenge_bias(neurons)) return *official;
  throw InputError(fmt::format(
      "{}: required for {} neurons; only the official sizes 1024, 4096, 16384 and 65536 have a "
      "bias of their own",
      pointer, neurons));
}

void add_note(const ReadReport& report, std::vector<std::string>& notes) {
  if (!report.cache_note.empty()) notes.push_back(report.cache_note);
}

Model with_layers(std::vector<Csr> weights, std::vector<float> bias, Epilogue activation) {
  Model model;
  for (std::size_t l = 0; l < weights.size(); ++l) {
    const float b = bias.size() == 1 ? bias.front() : bias[l];
    model.layers.push_back(SparseLinear{std::move(weights[l]), {b}, activation});
  }
  return model;
}

constexpr std::string_view kOfficial = "official files";
constexpr std::string_view kOwn = "own files";

/// Text of an official size is taken for the official files; of another size it can't be.
std::string origin_for(std::int64_t neurons, const std::string& origin) {
  return origin == kOfficial && !graph_challenge_bias(neurons) ? std::string(kOwn) : origin;
}

Model load(const GraphChallengeModel& source, const RunConfig& config,
           std::vector<std::string>& notes) {
  const float bias = bias_or_table(source.bias, source.neurons, "/model/graph_challenge/bias");
  ReadReport report;
  const fs::path folder = folder_with(config, fmt::format("neuron{}", source.neurons));
  Model model = with_layers(read_graph_challenge_weights(folder, source.neurons, source.layers,
                                                         {config.cache, {}}, &report),
                            {bias}, {0.0F, source.clip});
  model.name = fmt::format("Graph Challenge {} × {}", source.neurons, source.layers);
  model.origin = origin_for(source.neurons, report.origin);
  add_note(report, notes);
  return model;
}

/// Throws `InputError` where the columns alone, of 16 bits at least, are more than this machine's
/// memory: taking it page by page would end the process, or others, without a word.
void check_fits_memory(const RadixNetSpec& spec) {
  const double bytes = static_cast<double>(spec.layers) * static_cast<double>(spec.neurons) * 2.0 *
                       static_cast<double>(spec.fold) * sizeof(std::uint16_t);
  const auto memory = static_cast<double>(open_device(DeviceSpec{})->info().memory_bytes);
  if (bytes <= memory) return;
  throw InputError(fmt::format(
      "/model/radixnet: {} layers of {} neurons take more than {:.3g} GB, but this machine has "
      "{:.3g} GB of memory; generate fewer, or write them to a file with 'spdnn-gpu "
      "generate network' and run that as /model/graph_challenge, layer by layer",
      spec.layers, spec.neurons, bytes / 1e9, memory / 1e9));
}

Model load(const RadixNetModel& source, const RunConfig& /*config*/,
           std::vector<std::string>& /*notes*/) {
  const RadixNetSpec& spec = source.spec;
  validate(spec);
  check_fits_memory(spec);
  const float bias = bias_or_table(source.bias, spec.neurons, "/model/radixnet/bias");
  std::vector<Csr> weights(static_cast<std::size_t>(spec.layers));
  std::atomic<std::int64_t> next{0};
  std::mutex mutex;
  std::exception_ptr error;
  const auto work = [&] {
    try {
      for (std::int64_t l = next++; l < spec.layers; l = next++)
        weights[l] = radixnet_layer(spec, l);
    } catch (...) {
      const std::lock_guard lock(mutex);
      error = std::current_exception();
    }
  };
  std::vector<std::thread> threads;
  try {
    for (std::size_t t = 1; t < usable_cores().size(); ++t) threads.emplace_back(work);
  } catch (const std::system_error&) {
    // Fewer threads do the same work.
  }
  work();
  for (std::thread& thread : threads) thread.join();
  if (error) std::rethrow_exception(error);
  Model model = with_layers(std::move(weights), {bias}, {0.0F, source.clip});
  model.name = fmt::format("RadiX-Net {} × {}", spec.neurons, spec.layers);
  model.origin = radixnet_origin(spec);
  return model;
}

Model load(const FileModel& source, const RunConfig& /*config*/,
           std::vector<std::string>& /*notes*/) {
  return read_network(source.path, source.settings);
}

/// What training begins with; its first layer takes what the images have.
Model load(const LayersModel& /*source*/, const RunConfig& config,
           std::vector<std::string>& /*notes*/) {
  return initial_network(*config.train, load_labelled(config.input).sets.train);
}

Csr first_rows(const Csr& images, const std::optional<std::int64_t>& count, const fs::path& file) {
  if (!count) return images;
  if (*count > images.rows()) {
    throw InputError(file, fmt::format("{} images asked for, but it has {}; ask for fewer", *count,
                                       images.rows()));
  }
  return images.slice_rows({0, *count});
}

struct Input {
  Csr images;
  std::string origin;
  std::vector<std::int32_t> labels{};
};

Input load_input(const GraphChallengeInput& source, const RunConfig& config, std::int64_t features,
                 std::vector<std::string>& notes) {
  ReadReport report;
  const std::string name = fmt::format("sparse-images-{}", features);
  fs::path folder = folder_with(config, name + ".tsv");
  if (!fs::exists(folder / (name + ".tsv"))) folder = folder_with(config, name + ".spdnn");
  Csr images =
      read_graph_challenge_images(folder, features, source.images, {config.cache, {}}, &report);
  add_note(report, notes);
  return {std::move(images), origin_for(features, report.origin)};
}

Input load_input(const IdxInput& source, const RunConfig& /*config*/, std::int64_t features,
                 std::vector<std::string>& /*notes*/) {
  const IdxImages images = read_idx_images(source.path);
  return {first_rows(challenge_images(images, features), source.images, source.path),
          fmt::format("{}, resized and thresholded", source.path.filename().string())};
}

Input load_input(const DigitsInput& source, const RunConfig& config, std::int64_t features,
                 std::vector<std::string>& /*notes*/) {
  return {challenge_images(draw_digits(source.images, config.seed), features),
          fmt::format("{} drawn digits, seed {}", source.images, config.seed)};
}

Input load_input(const FileInput& source, const RunConfig& /*config*/, std::int64_t /*features*/,
                 std::vector<std::string>& /*notes*/) {
  if (network_format_of(source.path) == NetworkFormat::tsv) {
    throw InputError(
        source.path,
        "lines of image, feature, value are read by graph_challenge (or by "
        "spdnn-gpu convert with input and output exchanged); name a .spdnn, .npz, .mtx "
        "or .smtx file");
  }
  const Model file = read_network(source.path);
  if (file.layers.size() != 1) {
    throw InputError(source.path, fmt::format("{} matrices, but input is one matrix [images × "
                                              "inputs]; name another file",
                                              file.layers.size()));
  }
  const Csr& images = std::get<SparseLinear>(file.layers.front()).weights;
  return {first_rows(images, source.images, source.path), file.origin};
}

/// The test images: those a network has not learned from.
template <Labelled Source>
Input load_input(const Source& source, const RunConfig& /*config*/, std::int64_t /*features*/,
                 std::vector<std::string>& /*notes*/) {
  NamedSets read = load_labelled(source);
  LabelledImages& test = read.sets.test;
  return {sparse_rows(test), fmt::format("{}, test images", read.name), std::move(test.labels)};
}

Csr repeat_images(const Csr& images, std::int64_t times) {
  if (times == 1) return images;
  std::vector<std::int64_t> ids;
  ids.reserve(static_cast<std::size_t>(images.rows() * times));
  for (std::int64_t t = 0; t < times; ++t) {
    for (std::int64_t i = 0; i < images.rows(); ++i) ids.push_back(i);
  }
  return gather_rows(images, ids);
}

/// Reads the truth for the images before they were repeated, and repeats it likewise.
void load_truth(const RunConfig& config, bool generated, std::int64_t images, Sources& sources) {
  const VerifyConfig& verify = config.verify;
  if (verify.categories == VerifyCategories::off) return;
  const bool required = verify.categories == VerifyCategories::required;
  fs::path file = verify.truth;
  const auto* model = std::get_if<GraphChallengeModel>(&config.model);
  if (file.empty() && model != nullptr) {
    const fs::path name = categories_path({}, model->neurons, model->layers);
    file = folder_with(config, name) / name;
  }
  std::error_code ignored;
  if (file.empty() || (!required && verify.truth.empty() && !fs::exists(file, ignored))) {
    if (required) {
      throw InputError(
          "/verify/categories: true, but there is no truth for this model; name a "
          "file under /verify/truth");
    }
    return;
  }
  if (generated && !required && verify.truth.empty()) {
    sources.notes.push_back(fmt::format(
        "{} was not used: it is the truth of the files beside it, and this run's are generated",
        file.string()));
    return;
  }
  std::vector<std::int64_t> truth = read_categories(file, std::numeric_limits<std::int64_t>::max());
  truth.erase(std::lower_bound(truth.begin(), truth.end(), images), truth.end());
  const std::size_t once = truth.size();
  for (std::int64_t t = 1; t < config.input.repeat; ++t) {
    for (std::size_t i = 0; i < once; ++i) truth.push_back(truth[i] + t * images);
  }
  sources.truth = std::move(truth);
  sources.truth_file = file;
}

/// Labels of the images, repeated as they are.
void take_labels(const RunConfig& config, std::vector<std::int32_t> labels, Sources& sources) {
  if (labels.empty()) return;
  const std::int32_t largest = *std::max_element(labels.begin(), labels.end());
  if (largest >= sources.model.outputs()) {
    throw InputError(fmt::format("/input: labels go up to {}, but the network has {} outputs",
                                 largest, sources.model.outputs()));
  }
  for (std::int64_t t = 0; t < config.input.repeat; ++t) {
    sources.labels.insert(sources.labels.end(), labels.begin(), labels.end());
  }
}

}  // namespace

Model load_model(const RunConfig& config, std::vector<std::string>& notes) {
  Model model =
      std::visit([&](const auto& source) { return load(source, config, notes); }, config.model);
  validate(model);
  return model;
}

Sources load_sources(const RunConfig& config) {
  Sources sources;
  sources.model = load_model(config, sources.notes);
  const std::int64_t features = sources.model.inputs();
  Input input = std::visit(
      [&](const auto& source) { return load_input(source, config, features, sources.notes); },
      config.input.source);
  if (input.images.cols() != features) {
    throw InputError(
        fmt::format("/input: images have {} features, but the model's first layer "
                    "takes {}",
                    input.images.cols(), features));
  }
  if (input.images.rows() == 0)
    throw InputError("/input: there is no image in it; give at least 1");
  const std::int64_t most = std::numeric_limits<std::int32_t>::max();
  if (input.images.rows() > most / config.input.repeat) {
    throw InputError(fmt::format("/input: {} images {} times over are more than {}",
                                 input.images.rows(), config.input.repeat, most));
  }
  const auto is_text = [](const std::string& origin) {
    return origin == kOfficial || origin == kOwn;
  };
  const bool generated = !is_text(sources.model.origin) || !is_text(input.origin);
  load_truth(config, generated, input.images.rows(), sources);
  sources.images = repeat_images(input.images, config.input.repeat);
  sources.input_origin = input.origin;
  take_labels(config, std::move(input.labels), sources);
  return sources;
}

}  // namespace spdnn
