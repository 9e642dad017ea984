// spdnn-gpu generate: writes stand-ins for the Graph Challenge's networks and images.
#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>

#include "command.hpp"
#include "spdnn/report.hpp"

namespace spdnn {
namespace {

namespace fs = std::filesystem;

struct NetworkOptions {
  RadixNetSpec spec;
  fs::path data_dir;
  bool tsv = false;
};

struct ImageOptions {
  std::int64_t neurons = 0;
  fs::path mnist;
  std::int64_t digits = 0;
  std::optional<std::int64_t> count;
  std::uint64_t seed = 1;
  fs::path data_dir;
  bool tsv = false;
};

fs::path data_directory(const fs::path& given) {
  if (!given.empty()) return given;
  const char* set = std::getenv("SPDNN_DATA");
  if (set == nullptr || *set == '\0') {
    throw InputError("no folder to write to: give --data-dir, or set SPDNN_DATA");
  }
  return set;
}

/// Counts the layers, and ends the work when a signal asked for it.
void count_layers(std::int64_t done, std::int64_t total, void* user) {
  auto& progress = *static_cast<Progress*>(user);
  if (progress.cancel) throw SystemError("the files were not finished");
  progress.total = total;
  progress.done = done;
}

ExitStatus generate_network(const NetworkOptions& options) {
  const fs::path data_dir = data_directory(options.data_dir);
  Progress progress;
  const InterruptScope interrupts(progress);
  progress.phase = "generating";
  progress.unit = "layers/s";
  {
    const ProgressPrinter printer(progress, stderr, false);
    generate_graph_challenge_weights(data_dir, options.spec, options.tsv, count_layers, &progress);
  }
  print(fmt::format("{} layers of {} neurons written to {}: {}\n", options.spec.layers,
                    options.spec.neurons,
                    (data_dir / fmt::format("neuron{}", options.spec.neurons)).string(),
                    radixnet_origin(options.spec)));
  return ExitStatus::done;
}

/// The first `count` of the images made, all of them without it. An image depends on the whole set,
/// so the set is cut after they are made.
Csr first_images(const Csr& images, std::optional<std::int64_t> count, const fs::path& file) {
  if (count && *count > images.rows()) {
    throw InputError(file,
                     fmt::format("has {} images, but --count asks for {}", images.rows(), *count));
  }
  return images.slice_rows({0, count.value_or(images.rows())});
}

ExitStatus generate_images(const ImageOptions& options) {
  const fs::path data_dir = data_directory(options.data_dir);
  const bool drawn = options.mnist.empty();
  const IdxImages grey =
      drawn ? draw_digits(options.digits, options.seed) : read_idx_images(options.mnist);
  const Csr images =
      first_images(challenge_images(grey, options.neurons), options.count, options.mnist);
  const std::string origin =
      drawn ? fmt::format("generated ({} drawn digits, seed {})", images.rows(), options.seed)
            : fmt::format("generated ({} images of {}, resized and thresholded)", images.rows(),
                          options.mnist.filename().string());
  generate_graph_challenge_images(data_dir, images, origin, options.tsv);
  print(fmt::format("{} images of {} pixels, {} of them set, written to {}: {}\n", images.rows(),
                    images.cols(), images.nnz(), data_dir.string(), origin));
  return ExitStatus::done;
}

void add_network(CLI::App& generate, CommandLine& line) {
  CLI::App* command =
      generate.add_subcommand("network", "Write a RadiX-Net network as the challenge builds them");
  const auto options = std::make_shared<NetworkOptions>();
  command->add_option("--neurons", options->spec.neurons, "Neurons of every layer")
      ->required()
      ->check(whole_number(1))
      ->type_name("N");
  command->add_option("--layers", options->spec.layers, "Layers")
      ->required()
      ->check(whole_number(1))
      ->type_name("L");
  command
      ->add_option("--fold", options->spec.fold,
                   "Width of the blocks of ones; neurons / fold is a power of two")
      ->check(whole_number(1))
      ->type_name("B")
      ->capture_default_str();
  command->add_option("--weight", options->spec.weight, "Value of every weight")
      ->type_name("W")
      ->capture_default_str();
  command->add_option("--seed", options->spec.seed, "Seed of the permutations")
      ->check(whole_number(0))
      ->type_name("S")
      ->capture_default_str();
  command->add_option("--data-dir", options->data_dir, "Folder to write to; else SPDNN_DATA")
      ->type_name("DIR");
  command->add_flag("--tsv", options->tsv, "Write the challenge's text files as well");
  command->footer(
      "Example:\n"
      "  spdnn-gpu generate network --neurons 65536 --layers 1920 --data-dir generated");
  command->callback(
      [options, &line] { line.action = [options] { return generate_network(*options); }; });
}

void add_images(CLI::App& generate, CommandLine& line) {
  CLI::App* command =
      generate.add_subcommand("images", "Write input images, made of MNIST's or of drawn digits");
  const auto options = std::make_shared<ImageOptions>();
  command->add_option("--neurons", options->neurons, "Inputs of the network, a square number")
      ->required()
      ->check(whole_number(1))
      ->type_name("N");
  CLI::Option_group* source = command->add_option_group("source", "Where the images come from");
  source->add_option("--mnist", options->mnist, "Images in MNIST's idx format, plain or gzip")
      ->type_name("FILE");
  CLI::Option* digits = source->add_option("--digits", options->digits, "Draw so many digits")
                            ->check(whole_number(1))
                            ->type_name("COUNT");
  source->require_option(1);
  command->add_option("--count", options->count, "Take the first so many of --mnist")
      ->check(whole_number(1))
      ->excludes(digits)
      ->type_name("COUNT");
  command->add_option("--seed", options->seed, "Seed of drawn digits")
      ->check(whole_number(0))
      ->type_name("S")
      ->capture_default_str();
  command->add_option("--data-dir", options->data_dir, "Folder to write to; else SPDNN_DATA")
      ->type_name("DIR");
  command->add_flag("--tsv", options->tsv, "Write the challenge's text file as well");
  command->footer(
      "Example:\n"
      "  spdnn-gpu generate images --neurons 1024 --digits 1000 --data-dir generated");
  command->callback(
      [options, &line] { line.action = [options] { return generate_images(*options); }; });
}

}  // namespace

void add_generate(CLI::App& app, CommandLine& line) {
  CLI::App* command =
      app.add_subcommand("generate", "Write stand-ins for the challenge's networks and images");
  command->require_subcommand(1);
  command->footer("Example:\n  spdnn-gpu generate network --help");
  add_network(*command, line);
  add_images(*command, line);
}

}  // namespace spdnn
