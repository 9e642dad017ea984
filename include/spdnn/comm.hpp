// Collectives between ranks. Rank and size live on the object; nothing is global.
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "spdnn/device.hpp"
#include "spdnn/error.hpp"

namespace spdnn {

enum class Reduction : std::uint8_t { sum, max, min, bit_or, bit_and };

/// One rank's end of a group of ranks. Every rank of the group makes the same calls in the same
/// order. Sizes may differ between ranks and may be 0. A call on host memory with a null stream is
/// complete when it returns; with a stream it is ordered on it. When a rank fails (`abort`),
/// waiting ranks and later calls throw `CommError` instead of hanging.
class Communicator {
 public:
  virtual ~Communicator() = default;
  [[nodiscard]] virtual int rank() const = 0;
  [[nodiscard]] virtual int size() const = 0;

  /// Waits until every rank is here.
  virtual void barrier() = 0;

  /// Gathers every rank's piece: rank r gives `counts[r]` elements from `send`, and all get all
  /// pieces in rank order in `receive`. `counts` are equal on all ranks.
  virtual void all_gather(const void* send, void* receive, std::span<const std::int64_t> counts,
                          DType type, Stream* stream) = 0;

  /// Combines `count` elements of every rank, in rank order, so that all ranks get the same bits.
  /// bit_or and bit_and take integer types. `send == receive` is allowed.
  virtual void all_reduce(const void* send, void* receive, std::int64_t count, DType type,
                          Reduction reduction, Stream* stream) = 0;

  /// Combines as `all_reduce` and leaves rank r the r-th piece of `counts[r]` elements.
  virtual void reduce_scatter(const void* send, void* receive, std::span<const std::int64_t> counts,
                              DType type, Reduction reduction, Stream* stream) = 0;

  /// A piece sent to, or received from, `peer`.
  struct Message {
    int peer = 0;
    void* data = nullptr;  ///< not written when sent
    std::size_t bytes = 0;
    /// Whoever has it keeps `data`; may be null. Where both ends of a started exchange give it,
    /// threads of an in-process group copy nothing: the piece is lent (`Pending::lent`), and what
    /// is sent must stay as it is while anybody has its owner.
    std::shared_ptr<void> owner = nullptr;
  };
  /// Sends and receives all pieces; a send of rank a to b matches b's receive from a, of the same
  /// size. At most one piece each way for each pair.
  virtual void exchange(std::span<const Message> sends, std::span<const Message> receives,
                        Stream* stream) = 0;

  /// An exchange under way. One that is destroyed unfinished fails the group.
  class Pending {
   public:
    Pending() = default;
    Pending(const Pending&) = delete;
    Pending& operator=(const Pending&) = delete;
    virtual ~Pending() = default;
    /// Returns when all pieces are here and those sent may be written again. Once.
    virtual void finish() = 0;
    /// After `finish`: where to read what `peer` sent, in its memory, which stays as long as this
    /// lives; null where the piece is in its place.
    [[nodiscard]] virtual const void* lent(int /*peer*/) const { return nullptr; }
  };
  /// Begins an exchange and returns at once; memory of the pieces belongs to it until `finish`, and
  /// what `stream` was given before is sent. Other calls may come in between, and several exchanges
  /// may be under way; the n-th of a rank goes with the n-th of the others.
  [[nodiscard]] virtual std::unique_ptr<Pending> start_exchange(std::span<const Message> sends,
                                                                std::span<const Message> receives,
                                                                Stream* stream) = 0;

  /// Whether what a call finds in the memory of a device goes to others from there; else it is
  /// copied to the host first, which a caller with host memory of its own does better itself.
  [[nodiscard]] virtual bool reaches_devices() const { return false; }

  /// A group of the ranks that give the same `color`, in order of `key`, then rank.
  [[nodiscard]] virtual std::unique_ptr<Communicator> split(int color, int key) = 0;

  /// Marks the group as failed: every rank that waits or calls gets `CommError` with `reason`.
  virtual void abort(const std::string& reason) = 0;

  /// What this rank is at, for the message that names it should it die or hang: a phase (a literal)
  /// and how far it is in it, e.g. "segment", 17. In several processes, a rank that computes and
  /// shows nothing for long counts as hung, unless its place is below 0. Cheap.
  virtual void show(const char* /*phase*/, std::int64_t /*place*/) {}
  /// The device of this rank, for the same message.
  virtual void show_device(const std::string& /*name*/) {}

  /// Bytes this rank has sent to others so far.
  [[nodiscard]] virtual std::int64_t bytes_sent() const = 0;
};

/// A declared link of each rank of an in-process group to all others, so that runs on one machine
/// behave as on several: what a rank sends goes through its link piece after piece at `bytes_per_s`
/// (0: at once), and arrives `latency_s` after it has gone through. Pieces to itself are free.
struct Link {
  double latency_s = 0.0;
  double bytes_per_s = 0.0;
  friend bool operator==(const Link&, const Link&) = default;
};

/// Runs `body` once for each of `size` ranks, each on a thread of its own with its end of an
/// in-process group; returns when all ended. The first error any rank threw aborts the group and is
/// rethrown here.
void run_ranks(int size, const std::function<void(Communicator&)>& body, const Link& link = {});

/// Something that does so with this process's part of the ranks.
using RunRanks = std::function<void(const std::function<void(Communicator&)>& body)>;

/// What the machine that this process is on calls itself.
[[nodiscard]] std::string host_name();

/// How the processes of a job find one another, and how long they wait.
struct WorldSpec {
  std::size_t largest_message = std::size_t{1} << 30U;  ///< bytes; longer pieces go as several
  /// Called on a thread of its own where this process is the one to say that another has died or
  /// hangs, and computes on without noticing; it does not return.
  std::function<void(const std::string& reason)> last_resort;
};

/// The processes of one job: this one alone, or as many as a launcher (mpirun, srun) started, each
/// with this object of its own. All of them call `processes` and `run_ranks` in the same order.
class World {
 public:
  World() = default;
  World(const World&) = delete;
  World& operator=(const World&) = delete;
  virtual ~World() = default;
  /// A group with one rank for each process, for the thread that opened the world.
  [[nodiscard]] virtual Communicator& processes() = 0;
  /// This process's number among those on its host, and how many there are.
  [[nodiscard]] virtual int local_process() const = 0;
  [[nodiscard]] virtual int local_processes() const = 0;
  /// Runs `body` once for each of this process's `ranks` ranks, each on a thread of its own, in one
  /// group with those of the other processes; ranks are numbered process by process. A process may
  /// have none. The first error of a rank of this process is rethrown; where all of them are well
  /// but others are not, a `CommError` that says why.
  virtual void run_ranks(int ranks, const std::function<void(Communicator&)>& body) = 0;

  /// A group of some ranks of the group of `comm`, one that `run_ranks` made, in the order of
  /// `ranks`. They make it without the others: each of them calls this with the same list. Two
  /// ranks are in one such group at a time. When it fails, so does the whole group.
  [[nodiscard]] virtual std::unique_ptr<Communicator> among(Communicator& comm,
                                                            std::span<const int> ranks) = 0;

  /// Ends the job in failure: every process calls this with the error that ended its work, which
  /// tells it of the others'. Afterwards nothing may be called. It takes at most a few seconds,
  /// whatever became of the others.
  struct Ending {
    bool speaks = false;  ///< this process's error is the one to report; no other reports any
    ExitStatus status = ExitStatus::failure;  ///< all processes end with it
    std::string reason;  ///< in place of the error's own where another process died or hangs
  };
  [[nodiscard]] virtual Ending fail(const std::exception& error) = 0;
  /// How long ranks of other processes may show nothing new before they count as hung; 20 s at
  /// first.
  virtual void set_patience(double seconds) = 0;

  /// Beside the groups, processes send each other letters, which arrive in order.
  using Handler = std::function<void(int from, std::span<const std::byte> letter)>;
  /// Sends a letter of `topic` (from 16 on); returns at once.
  virtual void send(int process, int topic, std::span<const std::byte> letter) = 0;
  /// Who opens the letters of a topic, one at a time, on any thread; those that came before wait
  /// for it. It may send, but not wait. With null, letters wait for the next one.
  virtual void serve(int topic, Handler handler) = 0;
  /// Opens letters until `done` holds. Throws `CommError` once the group of `comm` has failed.
  virtual void wait_until(Communicator& comm, const std::function<bool()>& done) = 0;
};

/// The processes that the launcher of this one started, connected by MPI, or this one alone where
/// there is no launcher. At most one at a time. Throws `CommError` where a launcher is there, but
/// this build has no MPI, or the launcher does not know of this MPI.
[[nodiscard]] std::unique_ptr<World> open_world(const WorldSpec& spec = {});

/// This process alone; its ranks share memory.
[[nodiscard]] std::unique_ptr<World> single_world();

}  // namespace spdnn
