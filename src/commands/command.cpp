// Printing, interruption and the options that subcommands share.
#include "command.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>

#include "spdnn/io.hpp"

namespace spdnn {
namespace {

std::atomic<Progress*> to_cancel{nullptr};
std::atomic<bool> signalled{false};
std::atomic<bool> tells_signals{true};
static_assert(std::atomic<bool>::is_always_lock_free && std::atomic<Progress*>::is_always_lock_free,
              "a signal handler may only touch lock-free atomics");

extern "C" void on_interrupt(int) {
  Progress* const progress = to_cancel.load();
  if (progress == nullptr || signalled.exchange(true)) {
    remove_unfinished_files();
    _exit(interrupted_status);
  }
  progress->cancel = true;
  if (!tells_signals) return;
  constexpr char message[] = "\nstopping; once more to end at once\n";
  const ssize_t ignored = write(STDERR_FILENO, message, sizeof message - 1);
  static_cast<void>(ignored);
}

/// Where another process died and this one does not come to notice: says so, and ends.
[[noreturn]] void end_at_once(const std::string& reason) {
  if (!reason.empty()) fmt::print(stderr, "error: {}\n", reason);
  std::_Exit(static_cast<int>(ExitStatus::failure));
}

}  // namespace

void add_config_options(CLI::App& command, ConfigOptions& options) {
  command.add_option("config", options.file, "Configuration, a JSON file")
      ->required()
      ->type_name("CONFIG.json");
  command
      .add_option("--set", options.overrides.sets,
                  "Set a key: a JSON pointer and a JSON value, or a bare word as a string; may be "
                  "given more than once")
      ->type_name("/POINTER=VALUE")
      ->allow_extra_args(false)
      ->take_all();
  command
      .add_option("--data-dir", options.overrides.data_dir,
                  "Where data are looked up first; else the folder that SPDNN_DATA names")
      ->type_name("DIR");
}

CLI::Validator whole_number(std::int64_t least) {
  const auto check = [least](const std::string& text) -> std::string {
    std::int64_t number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (end == text.data() + text.size() && error == std::errc() && number >= least) return "";
    return fmt::format("'{}'; give a whole number from {} to {}", text, least,
                       std::numeric_limits<std::int64_t>::max());
  };
  return CLI::Validator(check, "");
}

ExitStatus on_all_processes(const std::function<ExitStatus(World&)>& command) {
  WorldSpec spec;
  spec.last_resort = end_at_once;
  const std::unique_ptr<World> world = open_world(spec);
  try {
    return command(*world);
  } catch (const std::exception& error) {
    const World::Ending ending = world->fail(error);
    if (!ending.speaks) return ending.status;
    if (!ending.reason.empty()) throw OthersFailed(ending.reason);
    throw;
  }
}

void print(std::string_view text) {
  const bool whole = std::fwrite(text.data(), 1, text.size(), stdout) == text.size();
  if (whole && std::fflush(stdout) == 0) return;
  if (errno == EPIPE) return;
  throw SystemError(fmt::format("standard output can't be written: {}", std::strerror(errno)));
}

void prepare_process() {
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; ++fd) {
    if (fcntl(fd, F_GETFD) != -1) continue;
    // The wrong way round, so that using it fails as it would have.
    const int lowest_free = open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);
    static_cast<void>(lowest_free);
  }
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
  struct sigaction action {};
  action.sa_handler = on_interrupt;
  action.sa_flags = SA_RESTART;
  for (const int signal : {SIGINT, SIGTERM}) sigaction(signal, &action, nullptr);
}

InterruptScope::InterruptScope(Progress& progress, bool tells) {
  tells_signals = tells;
  to_cancel = &progress;
}

InterruptScope::~InterruptScope() { to_cancel = nullptr; }

bool interrupted() { return signalled; }

}  // namespace spdnn
