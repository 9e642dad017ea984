// SciPy in a Python process of its own, which waits for a line between two steps.
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "spdnn/error.hpp"
#include "train_step/step.hpp"

namespace spdnn::bench {
namespace {

template <class T>
void write(std::ofstream& file, const std::vector<T>& values) {
  file.write(reinterpret_cast<const char*>(values.data()),
             static_cast<std::streamsize>(values.size() * sizeof(T)));
}

class ScipyStep final : public StepPeer {
 public:
  ScipyStep(const StepCase& step, const std::string& python) : StepPeer("scipy") {
    file_ = std::filesystem::temp_directory_path() / ("spdnn-step-" + std::to_string(getpid()));
    std::ofstream file(file_, std::ios::binary);
    write(file, std::vector<std::int64_t>{step.width, step.batch});
    for (const StepCase::Layer& layer : step.layers) {
      write(file, layer.row_offsets);
      write(file, layer.col_indices);
      write(file, layer.values);
    }
    write(file, step.x);
    write(file, step.target);
    file.close();
    start(python, step.threads);
    about_ = line();
  }
  ~ScipyStep() override {
    if (to_ != nullptr) std::fclose(to_);
    if (from_ != nullptr) std::fclose(from_);
    if (child_ > 0) waitpid(child_, nullptr, 0);
    std::error_code ignored;
    std::filesystem::remove(file_, ignored);
  }
  ScipyStep(const ScipyStep&) = delete;
  ScipyStep& operator=(const ScipyStep&) = delete;

  [[nodiscard]] double step() override {
    say("step\n");
    return std::stod(line());
  }
  [[nodiscard]] std::vector<float> values(int layer) const override {
    say("values " + std::to_string(layer) + "\n");
    std::vector<float> values(std::stoul(line()));
    if (std::fread(values.data(), sizeof(float), values.size(), from_) != values.size()) fail();
    return values;
  }
  [[nodiscard]] std::string about() const override { return about_; }

 private:
  [[noreturn]] static void fail() {
    throw SystemError("the SciPy peer ended early; is python3-scipy installed for --python?");
  }
  void say(const std::string& text) const {
    std::fputs(text.c_str(), to_);
    std::fflush(to_);
  }
  [[nodiscard]] std::string line() const {
    char text[256];
    if (std::fgets(text, sizeof text, from_) == nullptr) fail();
    std::string read(text);
    return read.substr(0, read.find('\n'));
  }
  void start(const std::string& python, int threads) {
    int to_child[2];
    int from_child[2];
    if (pipe(to_child) != 0 || pipe(from_child) != 0) fail();
    child_ = fork();
    if (child_ < 0) fail();
    if (child_ == 0) {
      dup2(to_child[0], STDIN_FILENO);
      dup2(from_child[1], STDOUT_FILENO);
      for (const int fd : {to_child[0], to_child[1], from_child[0], from_child[1]}) close(fd);
      setenv("OPENBLAS_NUM_THREADS", std::to_string(threads).c_str(), 1);
      execlp(python.c_str(), python.c_str(), BENCH_SCIPY_SCRIPT, file_.c_str(), nullptr);
      _exit(127);
    }
    close(to_child[0]);
    close(from_child[1]);
    to_ = fdopen(to_child[1], "w");
    from_ = fdopen(from_child[0], "r");
    if (to_ == nullptr || from_ == nullptr) fail();
  }

  std::filesystem::path file_;
  pid_t child_ = -1;
  std::FILE* to_ = nullptr;
  std::FILE* from_ = nullptr;
  std::string about_;
};

}  // namespace

std::unique_ptr<StepPeer> make_scipy_step(const StepCase& step, const std::string& python) {
  return std::make_unique<ScipyStep>(step, python);
}

}  // namespace spdnn::bench
