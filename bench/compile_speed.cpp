// How fast networks are compiled: every pass on RadiX-Net networks of the challenge's recipe, and
// on networks in which nothing can be found.
//   compile_speed [--networks radixnet random] [--neurons N…] [--threads T…] [--output FILE] …
// The networks are generated in memory, and the cache of compiled networks is not involved.
#include <CLI/CLI.hpp>
#include <cstdio>

#include "networks/random_network.hpp"
#include "spdnn/compile.hpp"
#include "spdnn/io.hpp"
#include "support/record.hpp"

namespace {

using namespace spdnn;

struct Arguments {
  std::vector<std::int64_t> neurons = {1024, 4096, 16384, 65536};
  std::int64_t layers = 120;
  std::vector<std::string> networks = {"radixnet", "random"};
  std::vector<int> threads = {1};
  int repetitions = 15;
  std::filesystem::path output;
};

Model radixnet(std::int64_t neurons, std::int64_t layers) {
  RadixNetSpec spec;
  spec.neurons = neurons;
  spec.layers = layers;
  validate(spec);
  Model model;
  for (std::int64_t l = 0; l < layers; ++l) {
    model.layers.push_back(
        SparseLinear{radixnet_layer(spec, l), {*graph_challenge_bias(neurons)}, {0.0F, 32.0F}});
  }
  return model;
}

Model random(std::int64_t neurons, std::int64_t layers) {
  Model model;
  const bench::RandomNetwork drawn({neurons, layers, 64, 1});
  for (Csr& weights : drawn.scaled(0.1F)) {
    model.layers.push_back(SparseLinear{std::move(weights), {-0.05F}, {0.0F, 32.0F}});
  }
  return model;
}

nlohmann::json measure(const std::string& name, const Model& model, int threads, int repetitions) {
  CompileRequest request;
  request.passes = passes_for("full");
  request.threads = threads;
  std::vector<double> seconds;
  CompileReport report;
  const bench::OtherLoad others;
  for (int run = 0; run <= repetitions; ++run) {
    report = compile(model, request).report;
    if (run > 0) seconds.push_back(report.seconds);  // the first warms up
  }
  nlohmann::json record = bench::summarize(seconds);
  const double per_nonzero = record["median_s"].get<double>() * 1e9 /
                             static_cast<double>(std::max<std::int64_t>(report.before.nonzeros, 1));
  record["network"] = name;
  record["neurons"] = model.inputs();
  record["layers"] = model.layers.size();
  record["threads"] = threads;
  record["nonzeros_before"] = report.before.nonzeros;
  record["nonzeros_after"] = report.after.nonzeros;
  record["ns_per_nonzero"] = per_nonzero;
  record["other_cores"] = others.cores();
  nlohmann::json passes = nlohmann::json::object();
  for (const PassReport& pass : report.passes) passes[pass.name] = pass.seconds;
  record["passes_s"] = passes;
  std::printf(
      "%-9s%6lld × %zu  %d threads  %9.3f ms (least %9.3f)  %6.3f ns a nonzero  "
      "%lld → %lld nonzeros\n",
      name.c_str(), static_cast<long long>(model.inputs()), model.layers.size(), threads,
      record["median_s"].get<double>() * 1e3, record["min_s"].get<double>() * 1e3, per_nonzero,
      static_cast<long long>(report.before.nonzeros),
      static_cast<long long>(report.after.nonzeros));
  std::fflush(stdout);
  return record;
}

int run_all(const Arguments& arguments, const std::vector<std::string>& command) {
  nlohmann::json result = {{"benchmark", "compile_speed"},
                           {"conditions", bench::describe_conditions(command)},
                           {"results", nlohmann::json::array()}};
  for (const std::int64_t neurons : arguments.neurons) {
    for (const std::string& network : arguments.networks) {
      const Model model = network == "random" ? random(neurons, arguments.layers / 4)
                                              : radixnet(neurons, arguments.layers);
      for (const int threads : arguments.threads) {
        result["results"].push_back(measure(network, model, threads, arguments.repetitions));
      }
    }
  }
  if (!arguments.output.empty()) write_file_atomically(arguments.output, result.dump(1) + '\n');
  return 0;
}

}  // namespace

int main(int argc, char** argv) try {
  Arguments arguments;
  CLI::App app("Times the network compiler.");
  app.add_option("--neurons", arguments.neurons, "Sizes of the networks");
  app.add_option("--networks", arguments.networks, "Kinds of networks (default: both)")
      ->check(CLI::IsMember({"radixnet", "random"}));
  app.add_option("--layers", arguments.layers,
                 "Layers of a RadiX-Net; random networks have a quarter")
      ->check(CLI::Range(4, 100000));
  app.add_option("--threads", arguments.threads, "Thread counts to compile with")
      ->check(CLI::Range(1, 1024));
  app.add_option("--repetitions", arguments.repetitions, "Timed runs")->check(CLI::Range(1, 1000));
  app.add_option("--output", arguments.output, "Result file (JSON)");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : static_cast<int>(ExitStatus::bad_input);
  }
  return run_all(arguments, {argv, argv + argc});
} catch (const spdnn::Error& error) {
  std::fprintf(stderr, "compile_speed: %s\n", error.what());
  return static_cast<int>(error.status());
} catch (const std::exception& error) {
  std::fprintf(stderr, "compile_speed: %s\n", error.what());
  return static_cast<int>(spdnn::ExitStatus::failure);
}
