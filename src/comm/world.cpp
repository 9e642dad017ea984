// Which processes a job has: those of the launcher's environment, or this one.
#include "world.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <cstdlib>

namespace spdnn {
namespace {

class SingleWorld final : public World {
 public:
  [[nodiscard]] Communicator& processes() override { return *alone_; }
  [[nodiscard]] int local_process() const override { return 0; }
  [[nodiscard]] int local_processes() const override { return 1; }
  void run_ranks(int ranks, const std::function<void(Communicator&)>& body) override {
    spdnn::run_ranks(ranks, body);
  }
  [[nodiscard]] std::unique_ptr<Communicator> among(Communicator& /*comm*/,
                                                    std::span<const int> /*ranks*/) override {
    throw CommError("some ranks of one process share memory: they are no group of their own");
  }
  [[nodiscard]] Ending fail(const std::exception& error) override {
    return {true, comm::status_of(error), ""};
  }
  void set_patience(double /*seconds*/) override {}
  // One process has nobody to write to: its ranks share memory.
  void send(int /*process*/, int /*topic*/, std::span<const std::byte> /*letter*/) override {
    throw CommError("one process sends no letters");
  }
  void serve(int /*topic*/, Handler /*handler*/) override {}
  void wait_until(Communicator& /*comm*/, const std::function<bool()>& /*done*/) override {
    throw CommError("one process gets no letters");
  }

 private:
  std::unique_ptr<Communicator> alone_ =
      comm::make_in_process(std::make_shared<comm::Group>(1), 0, Link{});
};

/// The value of the first of `names` that is set to a number; −1 where none is.
int number_in_environment(std::initializer_list<const char*> names) {
  for (const char* name : names) {
    const char* text = std::getenv(name);
    if (text != nullptr && *text >= '0' && *text <= '9') return std::atoi(text);
  }
  return -1;
}

/// Processes that the launcher says it started.
int launched_processes() {
  return number_in_environment({"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"});
}

}  // namespace

ExitStatus comm::status_of(const std::exception& error) {
  const auto* own = dynamic_cast<const Error*>(&error);
  return own == nullptr ? ExitStatus::failure : own->status();
}

std::string host_name() {
  std::array<char, 256> name{};
  gethostname(name.data(), name.size() - 1);
  return name.data();
}

std::unique_ptr<World> single_world() { return std::make_unique<SingleWorld>(); }

std::unique_ptr<World> open_world(const WorldSpec& spec) {
  const int launched = launched_processes();
  if (launched < 1) return single_world();
  std::unique_ptr<World> world = comm::open_mpi_world(spec);
  if (world == nullptr) {
    if (launched == 1) return single_world();
    throw CommError(
        fmt::format("a launcher started {} processes, but this build has no MPI to connect them: "
                    "install libopenmpi-dev, then configure and build again",
                    launched));
  }
  const int found = world->processes().size();
  if (found < launched) {
    throw CommError(fmt::format(
        "the launcher started {} processes, but MPI connects {}: start them with the mpirun of "
        "the MPI this was built with, or with srun --mpi=pmix",
        launched, found));
  }
  return world;
}

}  // namespace spdnn
