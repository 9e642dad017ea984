// How ranks of several processes share images and rows: by messages in place of memory.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "crew.hpp"
#include "image_queue.hpp"
#include "roster.hpp"
#include "spdnn/comm.hpp"

namespace spdnn {

/// Images handed out by the first process, which the ranks of all ask by letter. One for each
/// process; thread-safe.
class ImageDesk {
 public:
  /// `queue`: what the first process hands out; the others' is not used.
  ImageDesk(World& world, ImageQueue& queue);
  ImageDesk(const ImageDesk&) = delete;
  ImageDesk& operator=(const ImageDesk&) = delete;
  ~ImageDesk();
  /// Asks for the rank of `comm`.
  [[nodiscard]] Range take(Communicator& comm, std::int64_t batch);

 private:
  World& world_;
  ImageQueue& queue_;
  std::mutex mutex_;
  std::map<int, Range> given_;  ///< by rank: what has arrived and was not taken yet
};

/// One rank's way to the desk.
class DeskSource final : public ImageSource {
 public:
  DeskSource(ImageDesk& desk, Communicator& comm) : desk_(desk), comm_(comm) {}
  [[nodiscard]] Range take(int /*rank*/, std::int64_t batch) override {
    return desk_.take(comm_, batch);
  }

 private:
  ImageDesk& desk_;
  Communicator& comm_;
};

/// A rank's end of a crew whose members are the ranks of a group, in order. Each has all
/// activations; after a layer the members send one another the rows they computed.
class MessageCrew final : public Crew {
 public:
  MessageCrew(Communicator& comm, const std::vector<double>& speeds) : Crew(speeds), comm_(comm) {}
  void begin(const CrewStep& step, Pace& pace) override;
  void dismiss(Pace& pace) override;
  [[nodiscard]] bool next(const std::array<float*, 2>& own, Pace& pace) override;
  [[nodiscard]] bool needs_rows(std::int64_t layer) const override {
    return rows_.find(layer) == rows_.end();
  }
  void tell_rows(std::int64_t layer, std::vector<std::uint32_t> rows) override;
  void finish_layer(std::int64_t layer, const Panels<float>& y, Pace& pace) override;
  void tell(std::size_t member, std::uint8_t* alive, double busy_s) override;
  void combine_alive(std::uint8_t* /*alive*/) const override {}  // told to all
  void rebalance() override { rebalances_ = true; }
  void abort(const std::string& reason) override { comm_.abort(reason); }

 private:
  [[nodiscard]] bool announce(std::int64_t (&words)[6]);

  Communicator& comm_;
  std::map<std::int64_t, std::vector<std::vector<std::uint32_t>>> rows_;  ///< by layer, member
  bool rebalances_ = false;
  std::vector<float> send_, receive_;
};

/// A roster of one rank, for `Helping::rows` alone: all ranks of the group are one crew to the end.
class ModelRoster final : public Roster {
 public:
  ModelRoster(Communicator& comm, const std::vector<double>& speeds)
      : comm_(comm), crew_(std::make_shared<MessageCrew>(comm, speeds)) {}
  [[nodiscard]] std::optional<Assignment> offer(int rank, Slots* landing) override;
  [[nodiscard]] int idle() const override { return 0; }
  void tell_remaining(int /*rank*/, double /*seconds*/) override {}
  [[nodiscard]] std::vector<Helper> claim(int /*rank*/, std::size_t /*most*/) override {
    return {};
  }
  [[nodiscard]] std::vector<Helper> claim_all(int rank) override;
  void give(const Helper& /*helper*/, const Assignment& /*assignment*/) override {}
  [[nodiscard]] std::shared_ptr<Crew> form_crew(int /*leader*/,
                                                const std::vector<Helper>& /*helpers*/,
                                                const std::vector<double>& /*speeds*/) override {
    return crew_;
  }
  void abort(const std::string& reason) override { comm_.abort(reason); }

 private:
  Communicator& comm_;
  std::shared_ptr<MessageCrew> crew_;
  bool served_ = false;
};

}  // namespace spdnn
