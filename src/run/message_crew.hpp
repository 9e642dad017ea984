// Crews of ranks of several processes, each with activations of its own.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "crew.hpp"
#include "spdnn/plan.hpp"

namespace spdnn {

/// One member's end of a crew whose members tell one another their rows of each layer. All of them
/// have the whole network; images go to the helpers when the leader's have changed.
class MessageCrew final : public Crew {
 public:
  /// `comm`: of the members alone, in their order. What the leader thinks of their `speeds` counts.
  MessageCrew(std::unique_ptr<Communicator> comm, const std::vector<double>& speeds);

  void begin(const CrewStep& step, const CrewRoom& room, Pace& pace) override;
  void dismiss(Pace& pace) override;
  [[nodiscard]] bool next(const CrewRoom& room, Pace& pace) override;
  void finish_layer(const CrewLayer& layer, const CrewRoom& room, Pace& pace) override;
  void tell(std::size_t member, const std::uint8_t* alive, double busy_s) override;
  void combine_alive(std::uint8_t* alive) const override;
  void rebalance() override;

 private:
  struct Letter;
  [[nodiscard]] std::span<const std::uint32_t> first_features(std::int64_t count);
  [[nodiscard]] std::span<const std::uint32_t> features_of(const CrewLayer& layer,
                                                           std::size_t member);
  void pass_letter(Letter& letter, Pace& pace);
  void pass_inputs(const CrewRoom& room, Pace& pace);
  void pass(void* data, std::size_t bytes, Pace& pace);
  void write_tail(std::byte* to) const;
  void read_tail(std::size_t member, const std::byte* from);

  std::unique_ptr<Communicator> comm_;
  std::size_t member_;
  bool begun_ = false;
  std::vector<std::uint32_t> all_;           ///< 0, 1, 2, …
  std::vector<std::byte> pieces_;            ///< of a layer, by member
  std::vector<std::int64_t> bytes_;          ///< of each piece
  const std::uint8_t* own_alive_ = nullptr;  ///< told, and not yet to the others
  double own_busy_s_ = 0.0;
  std::vector<std::uint8_t> alive_;  ///< of the images, in any member's rows
  std::vector<double> busy_s_;       ///< by member, in the last step
};

/// Measures what the ranks of `comm` take for a layer's rows. All of them call it, and get the
/// same.
[[nodiscard]] MessageCost measure_messages(Communicator& comm, Device& device);

}  // namespace spdnn
