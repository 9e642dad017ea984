// spdnn-gpu partition: what each way of dividing a network's rows makes cross between the parts.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "partition_models.hpp"
#include "partition_vertices.hpp"
#include "spdnn/config.hpp"
#include "spdnn/report.hpp"
#include "stopwatch.hpp"

namespace spdnn {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

struct Options : PartitionOptions {
  std::vector<double> speeds;
  fs::path score, save, hypergraph;
};

int parts_of(const HypergraphRequest& request) {
  return static_cast<int>(std::ssize(request.speeds));
}

/// One line of the table.
struct Row {
  std::string model;
  int parts = 0;
  Traffic traffic;
  double imbalance = 0.0;
  Elapsed elapsed;
};

std::string table(const std::vector<Row>& rows) {
  std::string text =
      fmt::format("{:<11}{:>6}{:>12}{:>10}{:>12}{:>12}{:>11}{:>10}{:>10}\n", "model", "parts",
                  "words", "messages", "max sent", "max recv.", "imbalance", "seconds", "CPU s");
  for (const Row& row : rows) {
    text += fmt::format("{:<11}{:>6}{:>12}{:>10}{:>12}{:>12}{:>10.2f}%{:>10.2f}{:>10.2f}\n",
                        row.model, row.parts, row.traffic.words, row.traffic.messages,
                        row.traffic.max_sent, row.traffic.max_received, 100.0 * row.imbalance,
                        row.elapsed.seconds, row.elapsed.cpu_seconds);
  }
  return text;
}

Json json_of(const Row& row) {
  Json layers = Json::array();
  for (const LayerTraffic& layer : row.traffic.layers) layers.push_back(layer.words);
  return {{"model", row.model},
          {"parts", row.parts},
          {"words", row.traffic.words},
          {"messages", row.traffic.messages},
          {"max_sent", row.traffic.max_sent},
          {"max_received", row.traffic.max_received},
          {"imbalance", row.imbalance},
          {"seconds", row.elapsed.seconds},
          {"cpu_seconds", row.elapsed.cpu_seconds},
          {"words_by_layer", std::move(layers)}};
}

Chart chart_of(const Model& model, const std::vector<Row>& rows) {
  Chart chart{"Words that cross for one image: " + model.name, "parts", "words", {}};
  for (const Row& row : rows) {
    auto at = std::find_if(chart.series.begin(), chart.series.end(),
                           [&](const ChartSeries& s) { return s.name == row.model; });
    if (at == chart.series.end()) at = chart.series.insert(at, {row.model, {}});
    at->points.emplace_back(row.parts, static_cast<double>(row.traffic.words));
  }
  return chart;
}

Row measure(const Model& model, const std::string& name, const HypergraphRequest& request,
            Partition& partition) {
  const Stopwatch watch;
  partition = make_partition(name, model, request);
  const Elapsed elapsed = watch.elapsed();
  Row row{name, parts_of(request), count_traffic(model, partition), 0.0, elapsed};
  row.imbalance = imbalance(row.traffic, request.speeds);
  return row;
}

/// The fewest words within the balance asked for; the fewest of all where none is.
bool better(const Row& row, const Row& than, double allowed) {
  const bool fits = row.imbalance <= allowed + 1e-12;
  const bool other = than.imbalance <= allowed + 1e-12;
  return fits != other ? fits : row.traffic.words < than.traffic.words;
}

/// The table of a number of parts; the best of it is saved where that was asked for.
void add_rows(const Model& model, const Options& options, const HypergraphRequest& request,
              Progress& progress, std::vector<Row>& rows, std::vector<fs::path>& written) {
  std::optional<Partition> given;  // read first: a search takes long
  if (!options.score.empty()) {
    given = read_partition(options.score, model, parts_of(request));
  }
  Partition best;
  const std::size_t first = rows.size();
  std::size_t best_row = first;
  for (const std::string& name : options.models) {
    Partition partition;
    rows.push_back(measure(model, name, request, partition));
    ++progress.done;
    if (rows.size() == first + 1 || better(rows.back(), rows[best_row], request.imbalance)) {
      best = std::move(partition);
      best_row = rows.size() - 1;
    }
  }
  if (given) {
    Row row{options.score.filename().string(),
            parts_of(request),
            count_traffic(model, *given),
            0.0,
            {}};
    row.imbalance = imbalance(row.traffic, request.speeds);
    rows.push_back(std::move(row));
  }
  if (options.save.empty()) return;
  written.push_back(options.save / fmt::format("{}-{}.part", options.config.file.stem().string(),
                                               parts_of(request)));
  write_partition(written.back(), best);
}

bool is_hypergraph(const Options& options) { return options.config.file.extension() == ".hgr"; }

/// Options that concern networks alone.
void refuse_for_hypergraphs(const CLI::App& command) {
  for (const char* name : {"--models", "--layers", "--phase-layers", "--set", "--data-dir",
                           "--chart", "--hypergraph"}) {
    if (command.count(name) == 0) continue;
    throw InputError(fmt::format("{}: is for networks, not for a hypergraph; leave it out", name));
  }
}

ExitStatus partition_command(const Options& options) {
  check_partition_models(options.models);
  std::vector<HypergraphRequest> requests = requests_of(options);
  if (!options.speeds.empty()) {
    requests.resize(1);
    requests.front().speeds = options.speeds;
  }
  if (!options.save.empty()) fs::create_directories(options.save);
  check_outputs({options.chart, options.hypergraph,
                 options.save.empty() ? fs::path() : options.save / "partition"});
  if (is_hypergraph(options)) {
    return partition_vertices_command(
        {options.config.file, std::move(requests), options.score, options.save, options.json});
  }
  const Model model = network_of(options);
  std::vector<Row> rows;
  std::vector<fs::path> written;
  Progress progress;
  progress.phase = "dividing";
  progress.unit = "partitions/s";
  progress.total = std::ssize(requests) * std::ssize(options.models);
  {
    const ProgressPrinter printer(progress, stderr, options.json);
    for (const HypergraphRequest& request : requests) {
      add_rows(model, options, request, progress, rows, written);
    }
  }
  if (!options.hypergraph.empty()) {
    write_hypergraph(options.hypergraph, model);
    written.push_back(options.hypergraph);
  }
  if (!options.chart.empty()) {
    write_file_atomically(options.chart, chart_svg(chart_of(model, rows)));
    written.push_back(options.chart);
  }
  if (options.json) {
    Json list = Json::array();
    for (const Row& row : rows) list.push_back(json_of(row));
    const Json json{{"name", model.name},
                    {"origin", model.origin},
                    {"layers", model.layers.size()},
                    {"nonzeros", model.edges()},
                    {"imbalance_allowed", options.request.imbalance},
                    {"seed", options.request.seed},
                    {"effort", options.request.effort},
                    {"searches", options.request.searches},
                    {"partitions", std::move(list)}};
    print(json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
    return ExitStatus::done;
  }
  print(fmt::format("{}: {} layers, {} nonzeros; words of one image, one way\n", model.name,
                    model.layers.size(), model.edges()) +
        table(rows));
  for (const fs::path& file : written) print(fmt::format("written: {}\n", file.string()));
  return ExitStatus::done;
}

}  // namespace

void add_partition(CLI::App& app, CommandLine& line) {
  CLI::App* command = app.add_subcommand(
      "partition", "Divide a network's rows between ranks, and count what crosses between them");
  const auto options = std::make_shared<Options>();
  options->parts = {2, 4, 8, 16};
  add_partition_options(*command, *options);
  command
      ->add_option("--speeds", options->speeds,
                   "Speeds of the parts in place of --parts: their shares of every layer")
      ->delimiter(',')
      ->type_name("S,…");
  command->add_option("--score", options->score, "A partition file to be counted beside them")
      ->type_name("FILE");
  command->add_option("--save", options->save, "Folder for the best partition of each --parts")
      ->type_name("DIR");
  command
      ->add_option("--hypergraph", options->hypergraph,
                   "Write the hypergraph for hMETIS, PaToH or Mt-KaHyPar")
      ->type_name("FILE.hgr");
  command->footer(
      "Example:\n  spdnn-gpu partition configs/quickstart.json --parts 2,4 --save partitions\n"
      "In place of CONFIG a hypergraph, FILE.hgr, as hMETIS and Mt-KaHyPar read it.");
  command->callback([command, options, &line] {
    if (is_hypergraph(*options)) refuse_for_hypergraphs(*command);
    line.action = [options] { return partition_command(*options); };
  });
}

}  // namespace spdnn
