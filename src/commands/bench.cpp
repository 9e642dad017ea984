// spdnn-gpu bench node: what the devices of a machine, or of several, can do, and what each would
// get to do.
#include <fmt/format.h>

#include <memory>

#include "command.hpp"
#include "spdnn/config.hpp"
#include "spdnn/io.hpp"
#include "spdnn/report.hpp"

namespace spdnn {
namespace {

struct Options {
  ConfigOptions config;
  bool json = false;
  bool refresh = false;
  std::filesystem::path html;
};

ExitStatus node_command(World& world, const Options& options) {
  const RunConfig config = load_config(options.config.file, options.config.overrides);
  world.set_patience(config.comm.patience_s);
  const bool leads = world.processes().rank() == 0;
  if (leads && !options.html.empty()) check_writable(options.html);
  const NodeReport report = measure_node(config, options.refresh, world);
  if (!leads) return ExitStatus::done;
  if (!options.html.empty()) write_file_atomically(options.html, node_html(report));
  print(options.json ? node_json(report) : node_text(report));
  if (!options.html.empty() && !options.json) {
    print(fmt::format("\nwritten: {}\n", options.html.string()));
  }
  return ExitStatus::done;
}

}  // namespace

void add_bench(CLI::App& app, CommandLine& line) {
  CLI::App* bench = app.add_subcommand("bench", "Measure this machine, or several");
  bench->require_subcommand(1);
  bench->footer("Example:\n  spdnn-gpu bench node configs/quickstart.json");
  CLI::App* command = bench->add_subcommand(
      "node",
      "Measure every device beside its limits, the links between ranks, and the share of a "
      "configuration's work that each would get");
  const auto options = std::make_shared<Options>();
  add_config_options(*command, options->config);
  command->add_flag("--json", options->json, "Print JSON");
  command
      ->add_option("--html", options->html, "Write a page with charts, which needs no other file")
      ->type_name("FILE");
  command->add_flag("--refresh", options->refresh, "Measure again what is remembered");
  command->footer(
      "Under mpirun or srun it measures the devices of all processes, on one host or several.\n\n"
      "Example:\n  spdnn-gpu bench node configs/quickstart.json --html node.html");
  command->callback([options, &line] {
    line.action = [options] {
      return on_all_processes([&](World& world) { return node_command(world, *options); });
    };
  });
}

}  // namespace spdnn
