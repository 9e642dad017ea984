// Printing, interruption and the options that subcommands share.
#include "command.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>

namespace spdnn {
namespace {

std::atomic<Progress*> to_cancel{nullptr};
std::atomic<bool> signalled{false};
std::atomic<bool> tells_signals{true};
static_assert(std::atomic<bool>::is_always_lock_free && std::atomic<Progress*>::is_always_lock_free,
              "a signal handler may only touch lock-free atomics");

extern "C" void on_interrupt(int) {
  if (signalled.exchange(true)) _exit(interrupted_status);
  if (Progress* progress = to_cancel.load()) progress->cancel = true;
  if (!tells_signals) return;
  constexpr char message[] = "\nstopping; once more to end at once\n";
  const ssize_t ignored = write(STDERR_FILENO, message, sizeof message - 1);
  static_cast<void>(ignored);
}

void handle(void (*handler)(int)) {
  struct sigaction action {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  for (const int signal : {SIGINT, SIGTERM}) sigaction(signal, &action, nullptr);
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

void print(std::string_view text) {
  const bool whole = std::fwrite(text.data(), 1, text.size(), stdout) == text.size();
  if (whole && std::fflush(stdout) == 0) return;
  if (errno == EPIPE) return;
  throw SystemError(fmt::format("standard output can't be written: {}", std::strerror(errno)));
}

InterruptScope::InterruptScope(Progress& progress, bool tells) {
  tells_signals = tells;
  to_cancel = &progress;
  handle(on_interrupt);
}

InterruptScope::~InterruptScope() {
  handle(SIG_DFL);
  to_cancel = nullptr;
}

bool interrupted() { return signalled; }

}  // namespace spdnn
