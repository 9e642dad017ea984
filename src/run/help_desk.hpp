// How ranks of several processes hand over images under way, and form crews.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "job.hpp"
#include "pass.hpp"
#include "rank_memory.hpp"
#include "roster.hpp"

namespace spdnn {

/// One for each process. The first one's has the roster of all ranks, and a thread for each that
/// asks there in its name, since offers wait; ranks ask by letter. Thread-safe.
class HelpDesk {
 public:
  /// All processes make theirs together; `speeds` by rank, relative.
  HelpDesk(const Job& job, std::vector<double> speeds);
  HelpDesk(const HelpDesk&) = delete;
  HelpDesk& operator=(const HelpDesk&) = delete;
  ~HelpDesk();

  /// What a rank asks for.
  enum class Kind : std::int32_t { offer, claim, give, enlist, remaining };
  struct Question {
    Kind kind = Kind::offer;
    std::int32_t rank = 0;
    std::int32_t helper = 0;    ///< give, enlist
    std::int64_t number = 0;    ///< claim: most helpers; enlist: the helper's place
    std::uint64_t segment = 0;  ///< give
    std::int64_t images = 0;    ///< give
    double seconds = 0.0;       ///< remaining
  };
  void ask(const Question& question);
  /// The answer to an offer (segment and images; the place in a crew; or nothing, where no rank has
  /// work) or to a claim (ranks).
  [[nodiscard]] std::vector<std::int64_t> answer(Communicator& comm);

  /// Images under way for `rank`, or the ranks of its crew, as `parcel` receives them.
  void post(int rank, std::vector<std::byte> parcel);
  [[nodiscard]] std::vector<std::byte> parcel(Communicator& comm);

  /// A group of some ranks of `comm`; see `World`.
  [[nodiscard]] std::unique_ptr<Communicator> among(Communicator& comm,
                                                    std::span<const int> ranks) {
    return world_.among(comm, ranks);
  }

  /// Ranks that wait for work, as far as this process has heard.
  [[nodiscard]] int idle() const { return idle_; }
  /// The relative speed of the fastest of them; 0 where there are none.
  [[nodiscard]] double fastest_idle() const { return fastest_idle_; }

 private:
  struct Proxy {
    std::deque<Question> questions;
    std::thread thread;
  };
  void serve_letters();
  void run_proxy(std::size_t rank);
  void end_proxies();
  [[nodiscard]] std::optional<std::vector<std::int64_t>> settle(const Question& question);
  /// To all processes.
  void tell_idle(const IdleRanks& idle);
  [[nodiscard]] std::vector<std::byte> take(
      std::map<int, std::deque<std::vector<std::byte>>>& letters, Communicator& comm);

  World& world_;
  std::vector<int> process_of_;  ///< by rank
  SharedRoster roster_;
  std::atomic<int> idle_{0};
  std::atomic<double> fastest_idle_{0.0};
  std::mutex mutex_;
  std::condition_variable asked_;
  bool over_ = false;
  std::vector<Proxy> proxies_;  ///< by rank, in the first process
  std::map<int, std::deque<std::vector<std::byte>>> answers_, parcels_;  ///< by rank
};

/// One rank's way to the desk.
class DeskRoster final : public Roster {
 public:
  DeskRoster(HelpDesk& desk, const PassContext& context, Communicator& comm, Device& device);
  [[nodiscard]] std::optional<Assignment> offer(int rank, Slots* landing) override;
  [[nodiscard]] int idle() const override { return desk_.idle(); }
  [[nodiscard]] double fastest_idle() const override { return desk_.fastest_idle(); }
  void tell_remaining(int rank, double seconds) override;
  [[nodiscard]] std::vector<Helper> claim(int rank, std::size_t most) override;
  [[nodiscard]] std::vector<Helper> claim_all(int rank) override;
  void give(const Helper& helper, const Assignment& assignment) override;
  [[nodiscard]] std::shared_ptr<Crew> form_crew(int leader, const std::vector<Helper>& helpers,
                                                const std::vector<double>& speeds) override;
  void abort(const std::string& reason) override { comm_.abort(reason); }

 private:
  [[nodiscard]] Panels<float> panels(const Slots& slots, const Parcel& parcel) const;
  [[nodiscard]] std::shared_ptr<Crew> join(const std::vector<int>& members,
                                           const std::vector<double>& speeds);

  HelpDesk& desk_;
  const PassContext& context_;
  Communicator& comm_;
  Device& device_;
  std::optional<Slots> outbox_;  ///< what is given is put together here
  double told_s_ = 0.0;          ///< that were last said to remain
};

}  // namespace spdnn
