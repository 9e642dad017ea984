// The processes that an MPI launcher started, and groups of their ranks.
#include <fmt/format.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <exception>
#include <optional>

#include "mpi_endings.hpp"
#include "mpi_group.hpp"
#include "mpi_watch.hpp"
#include "world.hpp"

namespace spdnn::comm {
namespace {

/// Whether one process may read the memory of another: containers often forbid it, and Open MPI
/// then prints an error for each message.
bool may_read_processes() {
  int from = 1, to = 0;
  const iovec here = {&to, sizeof to}, there = {&from, sizeof from};
  return process_vm_readv(getpid(), &here, 1, &there, 1, 0) == sizeof from;
}

/// What Open MPI reads as it starts; what a user set stays. Ranks wait by sleeping, so its own
/// waiting is to leave them the cores.
void set_defaults() {
  setenv("OMPI_MCA_mpi_yield_when_idle", "1", 0);
  if (!may_read_processes()) setenv("OMPI_MCA_btl_vader_single_copy_mechanism", "none", 0);
}

/// MPI from its start to its end.
class Library {
 public:
  Library() {
    set_defaults();
    int provided = 0;
    check_mpi(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &provided), "MPI_Init_thread");
    if (provided < MPI_THREAD_MULTIPLE) {
      throw CommError(
          "this MPI does not let threads call it at once (MPI_THREAD_MULTIPLE); use "
          "one that was built with it");
    }
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  }
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;
  ~Library() {
    if (ends_well) MPI_Finalize();
  }
  [[nodiscard]] static MPI_Comm duplicate() {
    MPI_Comm copy = MPI_COMM_NULL;
    check_mpi(MPI_Comm_dup(MPI_COMM_WORLD, &copy), "MPI_Comm_dup");
    MPI_Comm_set_errhandler(copy, MPI_ERRORS_RETURN);
    return copy;
  }
  bool ends_well = false;  ///< else MPI would wait for processes that will not come
};

class MpiWorld final : public World {
 public:
  explicit MpiWorld(const WorldSpec& spec)
      : job_(Library::duplicate(), Library::duplicate(), spec.largest_message) {
    auto caller = one_caller();
    MPI_Comm host = MPI_COMM_NULL;
    check_mpi(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &host),
              "MPI_Comm_split_type");
    MPI_Comm_rank(host, &local_process_);
    MPI_Comm_size(host, &local_processes_);
    MPI_Comm_free(&host);
    int process = 0, count = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &process);
    MPI_Comm_size(MPI_COMM_WORLD, &count);
    caller.unlock();
    MpiGroup all;
    for (int p = 0; p < count; ++p) all.places.push_back({p, 0});
    all.lineage = {0};
    processes_.emplace(job_, std::move(all), process);
    endings_.emplace(job_, process, count);
    watch_.emplace(job_, *endings_, process, count, spec.last_resort);
    job_.watch = &*watch_;
  }
  ~MpiWorld() override {
    // Nobody leaves before all are done: then no message is under way, and finalising is short.
    if (failed_ || std::uncaught_exceptions() > 0) return;
    try {
      processes_->barrier();
      watch_->stop();
      library_.ends_well = true;
    } catch (const CommError&) {  // NOLINT(bugprone-empty-catch): others failed, and say so
    }
  }

  [[nodiscard]] Communicator& processes() override { return *processes_; }
  [[nodiscard]] int local_process() const override { return local_process_; }
  [[nodiscard]] int local_processes() const override { return local_processes_; }

  void run_ranks(int ranks, const std::function<void(Communicator&)>& body) override {
    if (ranks < 0 || ranks > max_slots) {
      throw CommError(
          fmt::format("{} ranks in one process; allowed are 0 to {}", ranks, max_slots));
    }
    MpiGroup group;
    // A number that no group had before: what was sent in one that failed may still be on its way.
    std::int64_t number = 0;
    int first = 0;
    const std::vector<std::int64_t> twos(static_cast<std::size_t>(processes_->size()), 2);
    std::vector<std::int64_t> told(2 * twos.size());
    const std::int64_t own[] = {ranks, job_.newest_group};
    processes_->all_gather(own, told.data(), twos, DType::i64, nullptr);
    for (int p = 0; p < processes_->size(); ++p) {
      if (p == processes_->rank()) first = static_cast<int>(group.places.size());
      for (int slot = 0; slot < told[2 * p]; ++slot) group.places.push_back({p, slot});
      number = std::max(number, told[2 * p + 1] + 1);
    }
    if (group.places.empty()) throw CommError("a group needs at least 1 rank, not 0");
    group.lineage = {static_cast<std::uint32_t>(number)};
    std::vector<std::unique_ptr<Communicator>> ends;
    for (int slot = 0; slot < ranks; ++slot) {
      ends.push_back(std::make_unique<MpiCommunicator>(job_, group, first + slot));
    }
    run_threads(std::move(ends), body);
  }

  [[nodiscard]] std::unique_ptr<Communicator> among(Communicator& comm,
                                                    std::span<const int> ranks) override {
    return dynamic_cast<const MpiCommunicator&>(comm).part(ranks);
  }

  [[nodiscard]] Ending fail(const std::exception& error) override {
    failed_ = true;
    const bool behind = watch_->held_up();
    Ending ending = conclude(error);
    if (behind) ending.speaks = false;
    return ending;
  }
  void set_patience(double seconds) override { watch_->set_patience(seconds); }

  void send(int process, int topic, std::span<const std::byte> letter) override {
    job_.mail.send(process, topic, letter);
  }
  void serve(int topic, Handler handler) override { job_.mail.serve(topic, std::move(handler)); }
  void wait_until(Communicator& comm, const std::function<bool()>& done) override {
    dynamic_cast<MpiCommunicator&>(comm).wait_until("a wait for other processes", done);
  }

 private:
  [[nodiscard]] Ending conclude(const std::exception& error) {
    // A launcher that ends all processes because one has died looks like an interruption.
    const std::string found = watch_->finding();
    if (!found.empty()) {
      Ending ending = endings_->conclude({true, ExitStatus::failure}, found);
      ending.reason = found;
      return ending;
    }
    const bool own = dynamic_cast<const OthersFailed*>(&error) == nullptr;
    const std::string reason =
        fmt::format("process {} failed: {}", processes_->rank(), error.what());
    if (own) job_.failures.fail_all(reason);
    return endings_->conclude({own, status_of(error)}, reason);
  }

  Library library_;
  MpiJob job_;
  std::optional<MpiCommunicator> processes_;
  std::optional<Endings> endings_;
  std::optional<Watch> watch_;
  int local_process_ = 0, local_processes_ = 1;
  bool failed_ = false;
};

}  // namespace

std::unique_ptr<World> open_mpi_world(const WorldSpec& spec) {
  return std::make_unique<MpiWorld>(spec);
}

}  // namespace spdnn::comm
