// spdnn-gpu partition: what each way of dividing a network's rows makes cross between the parts.
#include "spdnn/partition.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>

#include "command.hpp"
#include "spdnn/config.hpp"
#include "spdnn/report.hpp"

namespace spdnn {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

struct Options {
  ConfigOptions config;
  std::vector<int> parts = {2, 4, 8, 16};
  std::vector<std::string> models;
  std::vector<double> speeds;
  fs::path score;
  HypergraphRequest request;
  std::int64_t layers = 0;
  bool json = false;
  fs::path chart, save, hypergraph;
};

/// A way of dividing rows, by its name.
using Maker = Partition (*)(const Model&, const HypergraphRequest&);
int parts_of(const HypergraphRequest& request) {
  return static_cast<int>(std::ssize(request.speeds));
}
const std::vector<std::pair<std::string, Maker>>& makers() {
  static const std::vector<std::pair<std::string, Maker>> all = {
      {"random",
       [](const Model& m, const HypergraphRequest& r) {
         return random_partition(m, parts_of(r), r.seed);
       }},
      {"block", [](const Model& m,
                   const HypergraphRequest& r) { return proportional_partition(m, r.speeds); }},
      {"cyclic",
       [](const Model& m, const HypergraphRequest& r) { return cyclic_partition(m, parts_of(r)); }},
      {"hypergraph", hypergraph_partition}};
  return all;
}

Maker maker_of(const std::string& name) {
  std::string names;
  for (const auto& [known, maker] : makers()) {
    if (known == name) return maker;
    names += (names.empty() ? "" : ", ") + known;
  }
  throw InputError(fmt::format("--models: '{}' is none of {}", name, names));
}

/// One line of the table.
struct Row {
  std::string model;
  int parts = 0;
  Traffic traffic;
  double imbalance = 0.0;
  double seconds = 0.0;
};

std::string table(const std::vector<Row>& rows) {
  std::string text =
      fmt::format("{:<11}{:>6}{:>12}{:>10}{:>12}{:>12}{:>11}{:>10}\n", "model", "parts", "words",
                  "messages", "max sent", "max recv.", "imbalance", "seconds");
  for (const Row& row : rows) {
    text += fmt::format("{:<11}{:>6}{:>12}{:>10}{:>12}{:>12}{:>10.2f}%{:>10.2f}\n", row.model,
                        row.parts, row.traffic.words, row.traffic.messages, row.traffic.max_sent,
                        row.traffic.max_received, 100.0 * row.imbalance, row.seconds);
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
          {"seconds", row.seconds},
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
  const auto start = std::chrono::steady_clock::now();
  partition = maker_of(name)(model, request);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  Row row{name, parts_of(request), count_traffic(model, partition), 0.0, seconds.count()};
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
              std::vector<Row>& rows, std::vector<fs::path>& saved) {
  Partition best;
  const std::size_t first = rows.size();
  std::size_t best_row = first;
  for (const std::string& name : options.models) {
    Partition partition;
    rows.push_back(measure(model, name, request, partition));
    if (rows.size() == first + 1 || better(rows.back(), rows[best_row], request.imbalance)) {
      best = std::move(partition);
      best_row = rows.size() - 1;
    }
  }
  if (!options.score.empty()) {
    const Partition given = read_partition(options.score, model, parts_of(request));
    Row row{options.score.filename().string(), parts_of(request), count_traffic(model, given), 0.0,
            0.0};
    row.imbalance = imbalance(row.traffic, request.speeds);
    rows.push_back(std::move(row));
  }
  if (options.save.empty()) return;
  fs::create_directories(options.save);
  saved.push_back(options.save / fmt::format("{}-{}.part", options.config.file.stem().string(),
                                             parts_of(request)));
  write_partition(saved.back(), best);
}

/// The requests: one for each number of parts, or the one that the speeds stand for.
std::vector<HypergraphRequest> requests_of(const Options& options) {
  std::vector<HypergraphRequest> requests;
  HypergraphRequest request = options.request;
  if (!options.speeds.empty()) {
    request.speeds = options.speeds;
    return {request};
  }
  for (const int parts : options.parts) {
    if (parts < 1 || parts > kMaxParts) {
      throw InputError(fmt::format("--parts: {}; give 1 to {}", parts, kMaxParts));
    }
    request.speeds.assign(static_cast<std::size_t>(parts), 1.0);
    requests.push_back(request);
  }
  return requests;
}

void warn_of(const std::vector<std::string>& notes) {
  for (const std::string& note : notes) std::fprintf(stderr, "note: %s\n", note.c_str());
}

ExitStatus partition_command(const Options& options) {
  for (const std::string& name : options.models) (void)maker_of(name);
  const std::vector<HypergraphRequest> requests = requests_of(options);
  std::vector<std::string> notes;
  Model model = load_model(load_config(options.config.file, options.config.overrides), notes);
  warn_of(notes);
  if (options.layers > 0 && options.layers < std::ssize(model.layers)) {
    model.layers.resize(static_cast<std::size_t>(options.layers));
  }
  std::vector<Row> rows;
  std::vector<fs::path> saved;
  for (const HypergraphRequest& request : requests) add_rows(model, options, request, rows, saved);
  if (!options.hypergraph.empty()) write_hypergraph(options.hypergraph, model);
  if (!options.chart.empty())
    write_file_atomically(options.chart, chart_svg(chart_of(model, rows)));
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
  for (const fs::path& file : saved) print(fmt::format("written: {}\n", file.string()));
  return ExitStatus::done;
}

void add_search_options(CLI::App& command, HypergraphRequest& request) {
  command
      .add_option("--imbalance", request.imbalance,
                  "How far a part may exceed its share of a layer's weights")
      ->type_name("PART")
      ->capture_default_str();
  command.add_option("--seed", request.seed, "Seed of random partitions and searches")
      ->type_name("S")
      ->capture_default_str();
  command.add_option("--effort", request.effort, "How long to search, relative")
      ->type_name("E")
      ->capture_default_str();
  command.add_option("--searches", request.searches, "Searches, of which the best is kept")
      ->type_name("N")
      ->capture_default_str();
  command.add_option("--threads", request.threads, "Searches at a time")
      ->type_name("T")
      ->capture_default_str();
  command
      .add_option("--phase-layers", request.phase_layers,
                  "Layers partitioned at once, those before them fixed; 0: as many as memory is "
                  "fine with")
      ->type_name("L")
      ->capture_default_str();
}

}  // namespace

void add_partition(CLI::App& app, CommandLine& line) {
  CLI::App* command = app.add_subcommand(
      "partition", "Divide a network's rows between ranks, and count what crosses between them");
  const auto options = std::make_shared<Options>();
  options->request.threads = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  for (const auto& [name, maker] : makers()) options->models.push_back(name);
  add_config_options(*command, options->config);
  command->add_option("--parts", options->parts, "Numbers of parts, with commas between")
      ->delimiter(',')
      ->type_name("K,…")
      ->capture_default_str();
  command
      ->add_option("--speeds", options->speeds,
                   "Speeds of the parts in place of --parts: their shares of every layer")
      ->delimiter(',')
      ->type_name("S,…");
  command->add_option("--models", options->models, "Ways of dividing, with commas between")
      ->delimiter(',')
      ->type_name("NAME,…")
      ->capture_default_str();
  command->add_option("--layers", options->layers, "Only the first so many layers; 0: all")
      ->type_name("L");
  add_search_options(*command, options->request);
  command->add_option("--score", options->score, "A partition file to be counted beside them")
      ->type_name("FILE");
  command->add_option("--save", options->save, "Folder for the best partition of each --parts")
      ->type_name("DIR");
  command
      ->add_option("--hypergraph", options->hypergraph,
                   "Write the hypergraph for hMETIS, PaToH or Mt-KaHyPar")
      ->type_name("FILE.hgr");
  command->add_option("--chart", options->chart, "Draw words over parts")->type_name("FILE.svg");
  command->add_flag("--json", options->json, "Print JSON");
  command->footer(
      "Example:\n  spdnn-gpu partition configs/quickstart.json --parts 2,4 --save partitions");
  command->callback(
      [options, &line] { line.action = [options] { return partition_command(*options); }; });
}

}  // namespace spdnn
