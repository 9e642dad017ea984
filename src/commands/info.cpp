// spdnn-gpu devices, profile and schema: what is there, how fast it is, what a configuration may
// say.
#include <cstdio>
#include <memory>

#include "command.hpp"
#include "spdnn/config.hpp"
#include "spdnn/report.hpp"

namespace spdnn {
namespace {

struct ProfileOptions {
  ConfigOptions config;
  bool json = false;
  bool refresh = false;
};

ExitStatus profile_command(const ProfileOptions& options) {
  const RunConfig config = load_config(options.config.file, options.config.overrides);
  std::vector<std::string> notes;
  const Model model = load_model(config, notes);
  const Profile profile = profile_devices(config, model, options.refresh);
  print(options.json ? profile_json(profile) : profile_text(profile));
  for (const std::string& note : notes) std::fprintf(stderr, "note: %s\n", note.c_str());
  return ExitStatus::done;
}

}  // namespace

void add_devices(CLI::App& app, CommandLine& line) {
  CLI::App* command =
      app.add_subcommand("devices", "List devices, and what this build can and can't use");
  const auto json = std::make_shared<bool>(false);
  command->add_flag("--json", *json, "Print JSON");
  command->footer("Example:\n  spdnn-gpu devices --json");
  command->callback([json, &line] {
    line.action = [json] {
      print(*json ? devices_json() : devices_text());
      return ExitStatus::done;
    };
  });
}

void add_profile(CLI::App& app, CommandLine& line) {
  CLI::App* command =
      app.add_subcommand("profile", "Time every kernel on a configuration's network and devices");
  const auto options = std::make_shared<ProfileOptions>();
  add_config_options(*command, options->config);
  command->add_flag("--json", options->json, "Print JSON");
  command->add_flag("--refresh", options->refresh, "Measure again what is remembered");
  command->footer("Example:\n  spdnn-gpu profile configs/quickstart.json --refresh");
  command->callback(
      [options, &line] { line.action = [options] { return profile_command(*options); }; });
}

void add_schema(CLI::App& app, CommandLine& line) {
  CLI::App* command = app.add_subcommand("schema", "Print the JSON Schema of a configuration");
  command->footer("Example:\n  spdnn-gpu schema > configs/schema.json");
  command->callback([&line] {
    line.action = [] {
      print(config_schema());
      return ExitStatus::done;
    };
  });
}

}  // namespace spdnn
