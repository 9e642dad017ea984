// The list of passes, and the loop that runs them until none finds more.
#include "spdnn/compile.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <limits>

#include "network.hpp"

namespace spdnn {
namespace {

using compiler::Network;

struct Pass {
  CompilePass pass;
  bool (*run)(Network& network);
};

/// `constants` does all that `zeros` does, which is left out beside it.
constexpr std::string_view kZeros = "zeros";
constexpr std::string_view kConstants = "constants";

const std::array<Pass, 6> kPasses = {{
    {{"fold", false, "neurons with equal inputs, weights and bias become one"},
     compiler::fold_duplicates},
    {{"identity", true, "layers that only pass values on are left out"}, compiler::drop_identities},
    {{kConstants, false, "as zeros, and constant inputs are moved into biases"},
     compiler::drop_constants},
    {{kZeros, true, "entries that are always 0 are left out, constant neurons become biases"},
     compiler::drop_zeros},
    {{"unread", true, "neurons that nobody reads are left out"}, compiler::drop_unread},
    {{"reorder", true, "neurons that are read together stand together", true},
     compiler::reorder_neurons},
}};

/// Every sweep but the last few shrinks the network, and most networks need four or so; the limit
/// bounds the time where passes feed each other one neuron at a time.
constexpr std::int64_t kMostSweeps = 24;

/// A round of passes that gains less than this part of what a network must gain is the last.
constexpr double kLeastOfARound = 0.2;

void check_name(std::string_view name) {
  std::vector<std::string_view> known;
  for (const Pass& p : kPasses) known.push_back(p.pass.name);
  if (std::find(known.begin(), known.end(), name) == known.end()) {
    throw InputError(
        fmt::format("no compile pass '{}'; there are {}, or off, safe and full for "
                    "none, the exact ones and all",
                    name, fmt::join(known, ", ")));
  }
}

std::vector<const Pass*> choose(const std::vector<std::string>& names) {
  for (const std::string& name : names) check_name(name);
  const auto asked = [&](std::string_view name) {
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  std::vector<const Pass*> chosen;
  for (const Pass& p : kPasses) {
    if (!asked(p.pass.name) || (p.pass.name == kZeros && asked(kConstants))) continue;
    chosen.push_back(&p);
  }
  return chosen;
}

/// Runs one sweep of a pass and adds it to what is told of it. Returns whether it changed anything;
/// where an image would cost more afterwards, all is put back.
bool run_sweep(const Pass& pass, Network& network, PassReport& told, CompileReport& report) {
  const double start = now_seconds();
  const Network::State before = network.state();
  const NetworkSize size = network_size(before.model);
  const CostModel& cost = network.request().cost;
  bool changed = false;
  const auto undo = [&](std::string_view why) {
    network.restore(before);
    changed = false;
    report.notes.push_back(fmt::format("compile: {} was undone: {}", told.name, why));
  };
  try {
    changed = pass.run(network);
    if (changed &&
        seconds_per_image(cost, network.state().model) > seconds_per_image(cost, before.model)) {
      undo("an image would cost more");
    }
  } catch (const compiler::OutOfRange&) {
    undo("a sum of weights leaves the range of fp32");
  }
  const NetworkSize after = network_size(network.state().model);
  told.after.rows += after.rows - size.rows;
  told.after.nonzeros += after.nonzeros - size.nonzeros;
  told.after.bytes += after.bytes - size.bytes;
  told.layers += network.rewritten() - before.rewritten;
  told.stopped = network.stopped();
  told.seconds += now_seconds() - start;
  if (changed && !pass.pass.exact) report.exact = false;
  return changed;
}

/// Runs the passes in turn until each has gone without a change since any other made one, a round
/// of all gains next to nothing, or the time is up.
void run_passes(const std::vector<const Pass*>& passes, Network& network, CompileReport& report) {
  for (const Pass* p : passes) {
    report.passes.push_back({std::string(p->pass.name), 0, {}, {}, 0.0, false});
  }
  const CompileRequest& request = network.request();
  const auto cost = [&] { return seconds_per_image(request.cost, network.state().model); };
  const double least = kLeastOfARound * request.least_gain * cost();
  double before = cost();  // this round
  std::size_t quiet = 0;
  for (std::int64_t sweep = 0; quiet < passes.size() && sweep < kMostSweeps; ++sweep) {
    const std::size_t index = static_cast<std::size_t>(sweep) % passes.size();
    PassReport& pass = report.passes[index];
    if (sweep < std::ssize(passes)) pass.before = pass.after = network_size(network.state().model);
    const bool changed = run_sweep(*passes[index], network, pass, report);
    if (network.stopped()) {
      report.notes.push_back(fmt::format(
          "compile: its {:.3g} s were up in pass {}; the network runs as far as it was rewritten",
          request.most_seconds, pass.name));
      return;
    }
    quiet = changed ? 1 : quiet + 1;
    if (index + 1 < passes.size()) continue;
    if (before - cost() < least) return;
    before = cost();
  }
}

/// Why a network can't be compiled at all; nothing where it can.
std::string obstacle(const Model& model) {
  constexpr std::int64_t most = std::numeric_limits<compiler::Neuron>::max();
  if (!all_linear(model)) return "not all of its layers are linear";
  for (const Layer& layer : model.layers) {
    const CsrView& w = layer_weights(layer).view();
    if (w.value_type != DType::f32) return "its weights are not fp32";
    if (std::max(w.rows, w.cols) >= most) return fmt::format("a layer has over {} neurons", most);
  }
  return {};
}

/// Puts the rewritten network into `compiled`; where it returns why not, the one given stays.
std::string rewrite(const Model& model, const CompileRequest& request,
                    const std::vector<const Pass*>& passes, CompiledModel& compiled) {
  if (std::string why_not = obstacle(model); !why_not.empty()) return why_not;
  Network network(model, request);
  try {
    compiled.report.threads = network.team().size();
    run_passes(passes, network, compiled.report);
  } catch (const compiler::OverBudget& over) {
    return fmt::format("rewritten layers take over {} bytes, but at most {} are left for them",
                       over.bytes, request.memory_limit);
  }
  Network::State state = network.state();
  const double gain =
      1.0 - seconds_per_image(request.cost, state.model) / seconds_per_image(request.cost, model);
  // What a pass gains that runs only where it is named is not in the cost model.
  const bool named =
      std::any_of(passes.begin(), passes.end(), [](const Pass* p) { return p->pass.only_named; });
  if (network.rewritten() > 0 && gain < request.least_gain && !named) {
    return fmt::format("passes would save {:.2g} % of its work", 100.0 * gain);
  }
  compiled.model = std::move(state.model);
  compiled.outputs = std::move(state.outputs);
  compiled.layers = std::move(state.stands_for);
  return {};
}

}  // namespace

std::span<const CompilePass> compile_passes() {
  static const std::array<CompilePass, kPasses.size()> passes = [] {
    std::array<CompilePass, kPasses.size()> list;
    std::transform(kPasses.begin(), kPasses.end(), list.begin(),
                   [](const Pass& p) { return p.pass; });
    return list;
  }();
  return passes;
}

std::vector<std::string> passes_for(std::string_view setting) {
  std::vector<std::string> names;
  if (setting == "off") return names;
  if (setting == "safe" || setting == "full") {
    for (const Pass& p : kPasses) {
      if (!p.pass.only_named && (p.pass.exact || setting == "full"))
        names.emplace_back(p.pass.name);
    }
    return names;
  }
  for (std::size_t begin = 0; begin <= setting.size();) {
    const std::size_t end = std::min(setting.find(',', begin), setting.size());
    check_name(names.emplace_back(setting.substr(begin, end - begin)));
    begin = end + 1;
  }
  return names;
}

NetworkSize network_size(const Model& model) {
  NetworkSize size;
  for (const Layer& layer : model.layers) size.rows += layer_outputs(layer);
  size.nonzeros = model.edges();
  size.bytes = model.weight_bytes();
  return size;
}

CompiledModel compile(const Model& model, const CompileRequest& request) {
  const ProfileRange range("compile");
  const double start = now_seconds();
  CompiledModel compiled;
  compiled.model = model;
  for (std::int64_t l = 0; l < std::ssize(model.layers); ++l) compiled.layers.push_back({l, l + 1});
  CompileReport& report = compiled.report;
  report.before = network_size(model);
  const std::vector<const Pass*> passes = choose(request.passes);
  if (!passes.empty()) {
    const std::string why_not = rewrite(model, request, passes, compiled);
    if (!why_not.empty()) {
      report.exact = true;
      report.notes.push_back("compile: the network runs as it is: " + why_not);
    }
  }
  report.after = network_size(compiled.model);
  report.seconds = now_seconds() - start;
  return compiled;
}

std::vector<float> expand_outputs(const CompiledModel& compiled,
                                  const std::vector<float>& outputs) {
  if (compiled.outputs.empty()) return outputs;
  std::vector<float> all;
  all.reserve(compiled.outputs.size());
  for (const std::int64_t output : compiled.outputs) {
    all.push_back(output < 0 ? 0.0F : outputs[output]);
  }
  return all;
}

}  // namespace spdnn
