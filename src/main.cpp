// The command line of spdnn-gpu: parses it, runs what it asks for, and turns errors into statuses.
#include <fmt/format.h>
#include <sys/resource.h>

#include <cstdio>
#include <exception>
#include <filesystem>
#include <new>
#include <sstream>
#include <system_error>

#include "commands/command.hpp"
#include "spdnn/io.hpp"
#include "spdnn/report.hpp"

namespace {

using spdnn::ExitStatus;

std::string version_text() {
  const spdnn::Version v = spdnn::version();
  std::string text = "spdnn-gpu " + v.version;
  if (!v.commit.empty()) text += fmt::format(" ({}{})", v.commit, v.dirty ? ", modified" : "");
  return text;
}

/// The limit that a shell or a queue set on this process's memory, if any.
std::string address_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return "";
  return fmt::format(" within the {} kB that this process may take (ulimit -v)",
                     limit.rlim_cur / 1024);
}

int fail(ExitStatus status, const std::string& message) {
  std::fprintf(stderr, "error: %s\n", message.c_str());
  return static_cast<int>(status);
}

/// Says what went wrong, and what status that is; every error of the library ends here.
int report(const std::exception& error) {
  // A launcher interrupts all processes when one has died, which is what is to be told.
  if (spdnn::interrupted() && dynamic_cast<const spdnn::OthersFailed*>(&error) == nullptr) {
    std::fprintf(stderr, "interrupted: %s\n", error.what());
    return spdnn::interrupted_status;
  }
  if (const auto* own = dynamic_cast<const spdnn::Error*>(&error)) {
    return fail(own->status(), own->what());
  }
  if (dynamic_cast<const std::bad_alloc*>(&error) != nullptr) {
    return fail(
        ExitStatus::failure,
        fmt::format("out of memory{}; a smaller /batch or a /memory_limit makes a run smaller",
                    address_limit()));
  }
  if (dynamic_cast<const std::filesystem::filesystem_error*>(&error) != nullptr) {
    return fail(
        ExitStatus::failure,
        fmt::format("{}; check that the path exists, may be written and has room", error.what()));
  }
  const auto* system = dynamic_cast<const std::system_error*>(&error);
  if (system != nullptr && system->code() == std::errc::resource_unavailable_try_again) {
    return fail(ExitStatus::failure,
                fmt::format("a thread can't be started: {}; list fewer threads under /devices, or "
                            "raise the limits on processes and memory (ulimit -u, -v)",
                            error.what()));
  }
  return fail(ExitStatus::failure, fmt::format("unexpected: {}", error.what()));
}

int run_program(int argc, char** argv) {
  CLI::App app("Runs sparse deep neural networks on the CPUs and GPUs of this machine.",
               "spdnn-gpu");
  app.require_subcommand(1);
  app.set_version_flag("--version", version_text());
  app.footer("Example:\n  spdnn-gpu run configs/quickstart.json");
  spdnn::CommandLine line;
  line.arguments.assign(argv, argv + argc);
  spdnn::add_run(app, line);
  spdnn::add_devices(app, line);
  spdnn::add_bench(app, line);
  spdnn::add_profile(app, line);
  spdnn::add_generate(app, line);
  spdnn::add_convert(app, line);
  spdnn::add_inspect(app, line);
  spdnn::add_partition(app, line);
  spdnn::add_simulate(app, line);
  spdnn::add_schema(app, line);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    // What is asked about has to be there: `spdnn-gpu reprot --help`.
    if (error.get_exit_code() != 0 || !app.remaining(true).empty()) {
      return fail(ExitStatus::bad_input, spdnn::usage_error(app, error));
    }
    std::ostringstream asked_for;  // help, or the version
    app.exit(error, asked_for, asked_for);
    spdnn::print(asked_for.str());
    return 0;
  }
  return static_cast<int>(line.action());
}

}  // namespace

int main(int argc, char** argv) {
  spdnn::prepare_process();
  spdnn::report_lost_pages();
  try {
    try {
      return run_program(argc, argv);
    } catch (const std::exception& error) {
      return report(error);
    }
  } catch (...) {  // no memory left even for the message
    return static_cast<int>(ExitStatus::failure);
  }
}
