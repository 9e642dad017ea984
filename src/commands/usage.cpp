// What is said of a command line that does not parse.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "command.hpp"
#include "spdnn/config.hpp"

namespace spdnn {
namespace {

/// The subcommand the line has come to, and its whole name.
struct Place {
  const CLI::App* command;
  std::string name;
};

Place place_of(const CLI::App& app) {
  Place place{&app, app.get_name()};
  while (!place.command->get_subcommands().empty()) {
    place.command = place.command->get_subcommands().back();
    place.name += " " + place.command->get_name();
  }
  return place;
}

std::vector<std::string> subcommands_of(const CLI::App& command) {
  std::vector<std::string> names;
  for (const CLI::App* child : command.get_subcommands(nullptr)) {
    // Groups of options are nameless subcommands.
    if (!child->get_name().empty()) names.push_back(child->get_name());
  }
  return names;
}

std::string hint(std::string_view word, const std::vector<std::string>& choices) {
  const std::string_view near = nearest(word, {choices.begin(), choices.end()});
  return near.empty() ? std::string() : fmt::format("; did you mean '{}'?", near);
}

std::vector<std::string> options_of(const CLI::App& command) {
  std::vector<std::string> names;
  for (const CLI::Option* option : command.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  }
  for (const CLI::App* child : command.get_subcommands(nullptr)) {
    if (!child->get_name().empty()) continue;
    const std::vector<std::string> more = options_of(*child);
    names.insert(names.end(), more.begin(), more.end());
  }
  return names;
}

std::string unknown_option(const Place& place, std::string_view given) {
  const std::string_view option = given.substr(0, given.find('='));
  const std::vector<std::string> names = options_of(*place.command);
  return fmt::format("no option '{}' of '{}'{}", option, place.name, hint(option, names));
}

}  // namespace

std::string usage_error(const CLI::App& app, const CLI::ParseError& error) {
  const Place place = place_of(app);
  const std::vector<std::string> subcommands = subcommands_of(*place.command);
  // What nobody takes says more than what is then missing: it is often that, misspelt.
  const std::vector<std::string> unknown = app.remaining(true);
  const auto option = std::find_if(unknown.begin(), unknown.end(), [](const std::string& word) {
    return word.size() > 1 && word.starts_with('-');
  });
  std::string text = error.what();
  if (option != unknown.end()) {
    text = unknown_option(place, *option);
  } else if (!unknown.empty() && !subcommands.empty()) {
    text = fmt::format("no subcommand '{}'; there are: {}{}", unknown.front(),
                       fmt::join(subcommands, ", "), hint(unknown.front(), subcommands));
  } else if (!unknown.empty()) {
    text = fmt::format("'{}' takes no argument '{}'", place.name, unknown.front());
  } else if (!subcommands.empty()) {
    text = fmt::format("a subcommand is needed; there are: {}", fmt::join(subcommands, ", "));
  }
  return fmt::format("{}\n'{} --help' says more", text, place.name);
}

}  // namespace spdnn
