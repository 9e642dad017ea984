// Starts spdnn-gpu in a folder of its own and gathers what it prints and how it ends.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "support/scratch.hpp"

namespace spdnn::test {

struct Outcome {
  int status = -1;  ///< exit status; 128 + signal when one ended the process
  std::string out, err;
};

class CliTest : public ::testing::Test {
 protected:
  /// Starts the program in the test's folder with no data directory and a profile cache of its own;
  /// standard output goes to `out`. `prepare` is called in the new process, just before.
  [[nodiscard]] pid_t start(
      const std::vector<std::string>& arguments, const std::string& out = "stdout",
      const std::function<bool()>& prepare = [] { return true; }) const {
    std::vector<std::string> all{SPDNN_PROGRAM};
    all.insert(all.end(), arguments.begin(), arguments.end());
    std::vector<char*> argv;
    for (std::string& argument : all) argv.push_back(argument.data());
    argv.push_back(nullptr);
    const std::string cache = (folder_ / "cache").string();
    const pid_t child = fork();
    if (child != 0) return child;
    unsetenv("SPDNN_DATA");
    setenv("XDG_CACHE_HOME", cache.c_str(), 1);
    const int in = open("/dev/null", O_RDONLY);
    if (chdir(folder_.path().c_str()) != 0) _exit(126);
    const int to = open(out.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
    const int errors = open("stderr", O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (in < 0 || to < 0 || errors < 0) _exit(126);
    dup2(in, STDIN_FILENO);
    dup2(to, STDOUT_FILENO);
    dup2(errors, STDERR_FILENO);
    if (!prepare()) _exit(126);
    execv(argv[0], argv.data());
    _exit(127);
  }

  [[nodiscard]] Outcome finish(pid_t child) const {
    int status = 0;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status),
            read_text(folder_ / "stdout"), read_text(folder_ / "stderr")};
  }

  [[nodiscard]] Outcome run(const std::vector<std::string>& arguments) const {
    return finish(start(arguments));
  }

  std::string write(const std::string& name, const std::string& text) const {
    write_text(folder_ / name, text);
    return name;
  }

  ScratchDir folder_;
};

inline void expect_part(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << "no \"" << part << "\" in:\n" << text;
}

}  // namespace spdnn::test
