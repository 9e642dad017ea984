// Progress on a terminal, elsewhere, and when quiet.
#include <gtest/gtest.h>
#include <pty.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>

#include "spdnn/report.hpp"

namespace spdnn {
namespace {

/// A pseudo-terminal: what is written to `out` is read back with `text`.
class Terminal {
 public:
  Terminal() {
    int slave = -1;
    winsize size{};
    size.ws_col = 60;
    size.ws_row = 24;
    setenv("TERM", "xterm", 1);
    if (openpty(&master_, &slave, nullptr, nullptr, &size) == 0) out = fdopen(slave, "w");
  }
  ~Terminal() {
    if (out == nullptr) return;
    std::fclose(out);
    close(master_);
  }
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  /// Reads on until `part` was seen; only the test's own time limit ends the wait.
  void wait_for(const std::string& part) {
    while (text.find(part) == std::string::npos) read_some();
  }
  /// What was written until now and has not been read.
  void drain() {
    std::fputs("<end>", out);
    std::fflush(out);
    wait_for("<end>");
  }

  std::FILE* out = nullptr;  ///< null where the system has no pseudo-terminals
  std::string text;

 private:
  void read_some() {
    char piece[256];
    const ssize_t got = read(master_, piece, sizeof piece);
    ASSERT_GT(got, 0);
    text.append(piece, static_cast<std::size_t>(got));
  }
  int master_ = -1;
};

class OnATerminal : public ::testing::Test {
 protected:
  void SetUp() override {
    if (terminal.out == nullptr) GTEST_SKIP() << "there are no pseudo-terminals here";
  }
  Terminal terminal;
};

TEST_F(OnATerminal, DumbTerminalsGetNoSequencesThatTheyWouldShow) {
  setenv("TERM", "dumb", 1);
  Progress progress;
  progress.total = 10;
  {
    const ProgressPrinter printer(progress, terminal.out, false);
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
  }
  terminal.drain();
  EXPECT_EQ(terminal.text.find('\033'), std::string::npos) << terminal.text;
}

TEST_F(OnATerminal, RedrawsALineOnATerminalAndClearsIt) {
  Progress progress;
  progress.phase = "infer";
  progress.total = 1000;
  {
    const ProgressPrinter printer(progress, terminal.out, false);
    terminal.wait_for("infer [........................]   0 %");
    progress.done = 500;
    terminal.wait_for("infer [############............]  50 %");
    terminal.wait_for("layers/s");
    progress.phase = "verify";
    progress.total = 0;
    terminal.wait_for("\r\033[Kverify, ");
  }
  terminal.drain();
  EXPECT_EQ(terminal.text.substr(terminal.text.size() - 9), "\r\033[K<end>") << terminal.text;
  EXPECT_EQ(terminal.text.find('\n'), std::string::npos);
}

TEST_F(OnATerminal, FitsANarrowTerminal) {
  Progress progress;
  progress.phase = "a phase with a very long name that does not fit in sixty columns at all";
  {
    const ProgressPrinter printer(progress, terminal.out, false);
    terminal.wait_for("a phase");
  }
  terminal.drain();
  EXPECT_EQ(terminal.text.find("at all"), std::string::npos) << terminal.text;
}

TEST_F(OnATerminal, CountsPastTheTotalAsDone) {
  Progress progress;
  progress.total = 10;
  progress.done = 20;
  const ProgressPrinter printer(progress, terminal.out, false);
  terminal.wait_for("100 %");
}

TEST_F(OnATerminal, WritesNothingWhenQuiet) {
  Progress progress;
  {
    const ProgressPrinter printer(progress, terminal.out, true);
    std::this_thread::sleep_for(std::chrono::milliseconds(250));
  }
  terminal.drain();
  EXPECT_EQ(terminal.text, "<end>");
}

TEST(ProgressPrinter, WritesNoControlCharactersToAFile) {
  std::FILE* file = std::tmpfile();
  ASSERT_NE(file, nullptr);
  Progress progress;
  progress.total = 10;
  {
    const ProgressPrinter printer(progress, file, false);
    std::this_thread::sleep_for(std::chrono::milliseconds(250));
  }
  // Shorter than the interval between plain lines.
  EXPECT_EQ(std::ftell(file), 0);
  std::fclose(file);
}

TEST_F(OnATerminal, EndsAtOnce) {
  const Progress progress;
  for (int i = 0; i < 50; ++i) const ProgressPrinter printer(progress, terminal.out, false);
}

}  // namespace
}  // namespace spdnn
