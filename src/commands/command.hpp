// What the subcommands of spdnn-gpu share: how they register, print, and are interrupted.
#pragma once

#include <CLI/CLI.hpp>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "spdnn/run.hpp"

namespace spdnn {

/// The command line as given, and what it asks for.
struct CommandLine {
  std::vector<std::string> arguments;
  std::function<ExitStatus()> action;  ///< set by the subcommand that was chosen
};

/// Each adds one subcommand; choosing it sets `line.action`.
void add_run(CLI::App& app, CommandLine& line);
void add_bench(CLI::App& app, CommandLine& line);
void add_devices(CLI::App& app, CommandLine& line);
void add_profile(CLI::App& app, CommandLine& line);
void add_generate(CLI::App& app, CommandLine& line);
void add_convert(CLI::App& app, CommandLine& line);
void add_inspect(CLI::App& app, CommandLine& line);
void add_partition(CLI::App& app, CommandLine& line);
void add_simulate(CLI::App& app, CommandLine& line);
void add_schema(CLI::App& app, CommandLine& line);

/// What is wrong with a line that `app` did not parse, and where to read more.
[[nodiscard]] std::string usage_error(const CLI::App& app, const CLI::ParseError& error);

/// Options by which a configuration is read: `--set` and `--data-dir`.
struct ConfigOptions {
  std::filesystem::path file;
  ConfigOverrides overrides;
};
void add_config_options(CLI::App& command, ConfigOptions& options);

/// Checks that an option is a whole number from `least` on that 64 bits hold; CLI11 by itself takes
/// the nearest that they do.
[[nodiscard]] CLI::Validator whole_number(std::int64_t least);

/// Runs a command on all processes of a job, if a launcher has started several. Where one of them
/// fails, one says why, and all end with the same status.
[[nodiscard]] ExitStatus on_all_processes(const std::function<ExitStatus(World&)>& command);

/// Writes to standard output. A reader that has gone away is no error; a full disk is, and throws
/// `SystemError`.
void print(std::string_view text);

/// To be called first. A reader that closes a pipe early, or a file that reaches the limit on its
/// size, is then seen as a failed write; SIGINT and SIGTERM end the process with status 130 and
/// leave no file written in part; and standard streams that were closed are opened on nothing, lest
/// a file of ours gets their number and what is printed lands in it.
void prepare_process();

/// While it lives, SIGINT and SIGTERM set `progress.cancel`, and only a second one ends the
/// process. At most one lives at a time. One process of a job tells that it heard of it.
class InterruptScope {
 public:
  explicit InterruptScope(Progress& progress, bool tells = true);
  ~InterruptScope();
  InterruptScope(const InterruptScope&) = delete;
  InterruptScope& operator=(const InterruptScope&) = delete;
};

/// Status of a process ended by SIGINT or SIGTERM.
inline constexpr int interrupted_status = 130;
/// Whether a signal has asked the process to end.
[[nodiscard]] bool interrupted();

}  // namespace spdnn
