// A group of ranks in several processes, connected by MPI messages.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "host_communicator.hpp"
#include "mpi_job.hpp"

namespace spdnn::comm {

/// Which ranks a group has, and how it is told from others.
struct MpiGroup {
  std::vector<Place> places;           ///< by rank
  std::vector<std::uint32_t> lineage;  ///< its number, after those of the groups it was split from
  /// Of a part, which has the number of the group it is a part of: that one's places; else empty.
  std::vector<Place> whole;
};

/// One rank's end of a group.
class MpiCommunicator final : public HostCommunicator {
 public:
  MpiCommunicator(MpiJob& job, MpiGroup group, int rank);
  ~MpiCommunicator() override;
  [[nodiscard]] int rank() const override { return rank_; }
  [[nodiscard]] int size() const override { return static_cast<int>(group_.places.size()); }
  [[nodiscard]] std::unique_ptr<Communicator> split(int color, int key) override;
  /// This rank's end of a part of the group; see `World::among`.
  [[nodiscard]] std::unique_ptr<Communicator> part(std::span<const int> ranks) const;
  void abort(const std::string& reason) override;
  void show(const char* phase, std::int64_t place) override;
  void show_device(const std::string& name) override;
  /// Returns when `done` holds, which is looked at again and again while letters are opened. Throws
  /// where the group fails, in words that name `what`.
  void wait_until(const std::string& what, const std::function<bool()>& done);

 private:
  friend class MpiTransfers;
  class Meeting;
  class StartedExchange;
  struct Header;
  void perform(Call& call) override;
  [[nodiscard]] std::unique_ptr<Pending> start(Call& call) override;
  void gather(Meeting& meeting, const Call& call, const void* own,
              const std::vector<Range>& pieces);
  void combine_own(Meeting& meeting, const Call& call, const std::vector<Range>& pieces,
                   void* result);
  void check(const std::string& call) const;
  [[nodiscard]] bool is_part() const { return !group_.whole.empty(); }
  [[nodiscard]] int tag(int from, int to, bool header) const;

  MpiJob& job_;
  MpiGroup group_;
  int rank_;
  std::uint32_t next_group_;  ///< a number that no group with two of these ranks has
};

}  // namespace spdnn::comm
