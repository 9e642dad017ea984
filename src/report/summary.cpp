// The summary a person reads at the end of a run: the verdict first, then what ran and how fast.
#include <fmt/format.h>

#include <algorithm>
#include <cctype>

#include "format.hpp"
#include "spdnn/report.hpp"

namespace spdnn {
namespace {

using report::count;

std::string plural(std::int64_t number, const std::string& noun) {
  return fmt::format("{} {}{}", count(number), noun, number == 1 ? "" : "s");
}

/// What the verdict rests on.
std::string checks_of(const RunResult& result) {
  std::string text = result.categories.size() == 1
                         ? "1 category"
                         : count(std::ssize(result.categories)) + " categories";
  if (result.categories_match) {
    text += *result.categories_match ? " as in the truth file" : " that differ from the truth file";
  } else {
    text += ", no truth file to compare with";
  }
  if (result.sample.images > 0) {
    text += fmt::format("; {} {} the reference", plural(result.sample.images, "image"),
                        result.sample.match ? "checked against" : "checked, not as in");
  }
  return text;
}

std::string accuracy_of(const RunResult& result) {
  if (!result.labelled) return "";
  return fmt::format("; {:.2f} % of the labels named", 100.0 * result.labelled->accuracy());
}

std::string verdict(const RunResult& result) {
  std::string status = result.status;
  std::transform(status.begin(), status.end(), status.begin(),
                 [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  return fmt::format("{}  {}\n", status, checks_of(result) + accuracy_of(result));
}

std::string with_origin(const std::string& what, const std::string& origin) {
  return origin.empty() ? what : fmt::format("{}: {}", what, origin);
}

/// What the compiler made of the network.
std::string rewriting_of(const CompileReport& compile) {
  std::string names;
  for (const PassReport& pass : compile.passes) names += (names.empty() ? "" : ", ") + pass.name;
  return fmt::format("{} of {} weights and {} of {} neurons left by {}{}{}",
                     count(compile.after.nonzeros), count(compile.before.nonzeros),
                     count(compile.after.rows), count(compile.before.rows), names,
                     compile.exact ? "" : "; sums in another order",
                     compile.from_cache ? "; kept from an earlier run" : "");
}

/// What ran, in one line each.
std::string facts(const RunResult& result) {
  std::string images = plural(result.images, "image");
  if (result.unique_images > 0 && result.unique_images != result.images) {
    images += fmt::format(", {} distinct ones run", count(result.unique_images));
  }
  const std::string network =
      fmt::format("{} × {}", plural(result.neurons, "neuron"), plural(result.layers, "layer"));
  std::vector<std::vector<std::string>> rows{
      {"network", with_origin(network, result.model_origin)},
      {"input", with_origin(images, result.input_origin)},
      {"strategy", fmt::format("{} on {}", to_string(result.plan.strategy),
                               plural(std::ssize(result.devices), "device"))}};
  if (!result.compile.passes.empty()) {
    rows.insert(rows.begin() + 1, {"compiled", rewriting_of(result.compile)});
  }
  return report::table(rows, {false, false}, "  ");
}

std::string devices(const RunResult& result) {
  std::vector<std::vector<std::string>> rows{{"", "device", "images", "busy", "idle"}};
  const auto labels = report::labels_of({result.devices.begin(), result.devices.end()});
  for (std::size_t i = 0; i < result.devices.size(); ++i) {
    const DeviceResult& d = result.devices[i];
    rows.push_back({std::to_string(i), labels[i], count(d.images), report::seconds(d.busy_s),
                    report::seconds(d.idle_s)});
  }
  return report::table(rows, {true, false, true, true, true}, "  ");
}

std::string figures(const RunResult& result) {
  const RunResult::Seconds& s = result.seconds;
  std::string before =
      fmt::format("load {}, profile {}", report::seconds(s.load), report::seconds(s.profile));
  if (s.compile > 0.0) before += ", compile " + report::seconds(s.compile);
  std::string memory = "host " + report::bytes(result.peak_host_bytes);
  if (result.peak_device_bytes > 0) memory += ", GPU " + report::bytes(result.peak_device_bytes);
  const double nominal = report::rate(result.edges.nominal, s.infer);
  const double executed = report::rate(result.edges.executed, s.infer);
  return report::table(
      {{"inference", report::seconds(s.infer),
        fmt::format("{} with network and input on the devices", report::seconds(s.infer_resident))},
       {"nominal", report::scaled(nominal, "edges/s"),
        "every image through every layer of the network as given"},
       {"executed", report::scaled(executed, "edges/s"), "multiply–adds really done"},
       {"beside it", fmt::format("{}, verify {}", before, report::seconds(s.verify))},
       {"peak memory", memory}},
      {false, false, false}, "  ");
}

/// What a training run came to.
std::string training(const RunResult& result) {
  const TrainResult& train = *result.train;
  std::int64_t connections = 0;
  std::int64_t possible = 0;
  for (const LayerReport& layer : train.layers) {
    connections += layer.connections;
    possible += layer.inputs * layer.outputs;
  }
  std::vector<std::vector<std::string>> rows{
      {"network", fmt::format("{} → {} in {}, {} of {} connections", count(result.neurons),
                              count(train.layers.back().outputs), plural(result.layers, "layer"),
                              count(connections), count(possible))},
      {"input", with_origin(plural(result.images, "image"), result.input_origin)}};
  if (!train.epochs.empty()) {
    const EpochReport& last = train.epochs.back();
    std::string text =
        fmt::format("{} of {}, loss {:.4f}, accuracy {:.2f} %", last.epoch,
                    plural(last.steps, "step"), last.train.loss, 100.0 * last.train.accuracy());
    if (last.validation) {
      text += fmt::format("; validation {:.4f}, {:.2f} %", last.validation->loss,
                          100.0 * last.validation->accuracy());
    }
    rows.push_back({"last epoch", text});
  }
  if (train.resumed_epochs > 0) {
    rows.push_back(
        {"resumed", fmt::format("after epoch {} of an earlier run", train.resumed_epochs)});
  }
  rows.push_back({"training", fmt::format("{}, load {}", report::seconds(train.train_s),
                                          report::seconds(result.seconds.load))});
  rows.push_back({"peak memory", "host " + report::bytes(result.peak_host_bytes)});
  return report::table(rows, {false, false}, "  ");
}

std::string training_summary(const RunResult& result) {
  const TrainResult& train = *result.train;
  std::string text = result.labelled
                         ? fmt::format("TRAINED  {:.2f} % of {} right, mean loss {:.4f}\n",
                                       100.0 * result.labelled->accuracy(),
                                       plural(train.test.images, "test image"), train.test.loss)
                         : "TRAINED  no test images\n";
  for (const std::string& failure : result.failures) text += "  ! " + failure + '\n';
  text += '\n' + training(result) + '\n' + devices(result);
  for (const std::string& note : result.notes) text += "  note: " + note + '\n';
  return text;
}

}  // namespace

std::string result_summary(const RunResult& result) {
  if (result.train) return training_summary(result);
  std::string text = verdict(result);
  for (const std::string& failure : result.failures) text += "  ! " + failure + '\n';
  text += '\n' + facts(result);
  if (!result.devices.empty()) text += '\n' + devices(result);
  text += '\n' + figures(result);
  std::vector<std::string> notes = result.plan.notes;
  notes.insert(notes.end(), result.notes.begin(), result.notes.end());
  if (!notes.empty()) text += '\n';
  for (const std::string& note : notes) text += "  note: " + note + '\n';
  return text;
}

}  // namespace spdnn
