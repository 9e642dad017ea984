// A thread that shows how far a run is, on a terminal or as plain lines.
#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string_view>
#include <thread>

#include "format.hpp"
#include "spdnn/report.hpp"

namespace spdnn {
namespace {

constexpr auto poll_interval = std::chrono::milliseconds(100);
constexpr double plain_interval_s = 5.0;
constexpr std::size_t bar_width = 24;
constexpr std::size_t narrowest = 20;

std::string bar(double fraction) {
  const auto full = static_cast<std::size_t>(fraction * static_cast<double>(bar_width));
  return '[' + std::string(full, '#') + std::string(bar_width - full, '.') + ']';
}

/// The first `columns` characters of a line.
std::string cut(const std::string& line, std::size_t columns) {
  std::size_t end = 0;
  for (std::size_t seen = 0; end < line.size(); ++end) {
    const bool starts = (static_cast<unsigned char>(line[end]) & 0xC0U) != 0x80U;
    if (starts && seen++ == columns) break;
  }
  return line.substr(0, end);
}

}  // namespace

struct ProgressPrinter::State {
  State(const Progress& shown, std::FILE* file) : progress(shown), out(file) {
    // One that calls itself dumb shows what erases a line as text.
    const char* const kind = std::getenv("TERM");
    terminal = isatty(fileno(out)) == 1 && (kind == nullptr || std::string_view(kind) != "dumb");
    thread = std::thread([this] { loop(); });
  }

  ~State() {
    {
      const std::lock_guard lock(mutex);
      stopping = true;
    }
    changed.notify_all();
    thread.join();
    if (drawn) write("\r\033[K");
  }

  State(const State&) = delete;
  State& operator=(const State&) = delete;

  void loop() {
    std::unique_lock lock(mutex);
    try {
      while (!changed.wait_for(lock, poll_interval, [this] { return stopping; })) show();
    } catch (const std::exception&) {
      // Out of memory for a line of text: the run is worth more than its progress.
    }
  }

  /// Starts the clock anew when the phase changes, so that the rate is the phase's own.
  void follow(const char* now_phase, double now, std::int64_t done) {
    if (phase != nullptr && std::strcmp(phase, now_phase) == 0 && done >= phase_done) return;
    phase = now_phase;
    phase_start = now;
    phase_done = done;
  }

  void show() {
    const double now = now_seconds();
    const std::int64_t total = progress.total;
    const std::int64_t done = std::min<std::int64_t>(progress.done, total);
    follow(progress.phase, now, done);
    if (terminal) {
      write("\r\033[K" + cut(line(now, done, total, true), columns() - 1));
      drawn = true;
    } else if (now - last_plain >= plain_interval_s) {
      write(line(now, done, total, false) + '\n');
      last_plain = now;
    }
  }

  [[nodiscard]] std::string line(double now, std::int64_t done, std::int64_t total,
                                 bool with_bar) const {
    const double elapsed = now - phase_start;
    if (total <= 0) return fmt::format("{}, {}", phase, report::seconds(std::max(elapsed, 0.0)));
    const double fraction = static_cast<double>(done) / static_cast<double>(total);
    const double speed = report::rate(static_cast<double>(done - phase_done), elapsed);
    std::string text = with_bar
                           ? fmt::format("{} {} {:3.0f} %", phase, bar(fraction), fraction * 100)
                           : fmt::format("{} {:.0f} %", phase, fraction * 100);
    if (speed > 0.0) {
      text += fmt::format(", {}, {} left", report::scaled(speed, progress.unit.load()),
                          report::seconds(static_cast<double>(total - done) / speed));
    }
    return text;
  }

  [[nodiscard]] std::size_t columns() const {
    winsize size{};
    if (ioctl(fileno(out), TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
    return std::max<std::size_t>(size.ws_col, narrowest);
  }

  void write(const std::string& text) const {
    std::fwrite(text.data(), 1, text.size(), out);
    std::fflush(out);
  }

  const Progress& progress;
  std::FILE* out;
  bool terminal = false;
  bool drawn = false;
  const char* phase = nullptr;
  double phase_start = 0.0;
  std::int64_t phase_done = 0;
  double last_plain = now_seconds();
  std::mutex mutex;
  std::condition_variable changed;
  bool stopping = false;
  std::thread thread;
};

ProgressPrinter::ProgressPrinter(const Progress& progress, std::FILE* out, bool quiet)
    : state_(quiet ? nullptr : std::make_unique<State>(progress, out)) {}

ProgressPrinter::~ProgressPrinter() = default;

}  // namespace spdnn
