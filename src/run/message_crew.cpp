// Steps, images and rows as messages between the members of a crew.
#include "message_crew.hpp"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "spdnn/message_op.hpp"
#include "spdnn/pace.hpp"
#include "spdnn/timing.hpp"

namespace spdnn {
namespace {

/// Members are CPU ranks.
const MessageKernels<float>& kernels() { return message_kernels<float>(DeviceKind::cpu); }

/// Behind the rows of a step's last layer: what the step took the member, and its flags.
std::size_t tail_bytes(std::int64_t images) {
  const auto flags = static_cast<std::size_t>(images);
  return sizeof(double) + (flags + sizeof(float) - 1) / sizeof(float) * sizeof(float);
}

}  // namespace

/// What the leader tells before a step, beside the rows of each member.
struct MessageCrew::Letter {
  bool over = false;
  bool images_follow = false;
  std::uint64_t segment = 0;
  std::int64_t images = 0, inputs = 0;
};

MessageCrew::MessageCrew(std::unique_ptr<Communicator> comm, const std::vector<double>& speeds)
    : Crew(speeds),
      comm_(std::move(comm)),
      member_(static_cast<std::size_t>(comm_->rank())),
      bytes_(speeds.size()),
      busy_s_(speeds.size()) {}

/// From the leader to all others, who know the size.
void MessageCrew::pass(void* data, std::size_t bytes, Pace& pace) {
  std::vector<Communicator::Message> sends, receives;
  for (int m = 1; m < comm_->size() && member_ == 0; ++m) sends.push_back({m, data, bytes});
  if (member_ != 0) receives.push_back({0, data, bytes});
  pace.begin_wait();
  comm_->exchange(sends, receives, nullptr);
  pace.end_wait();
}

void MessageCrew::pass_letter(Letter& letter, Pace& pace) {
  const std::size_t rows = rows_.size() * sizeof(RowShare);
  std::vector<std::byte> bytes(sizeof letter + rows);
  std::memcpy(bytes.data(), &letter, sizeof letter);
  std::memcpy(bytes.data() + sizeof letter, rows_.data(), rows);
  pass(bytes.data(), bytes.size(), pace);
  std::memcpy(&letter, bytes.data(), sizeof letter);
  std::memcpy(rows_.data(), bytes.data() + sizeof letter, rows);
}

/// The activations that the step begins with.
void MessageCrew::pass_inputs(const CrewRoom& room, Pace& pace) {
  const Panels<float> x = {step_.from, step_.inputs, step_.images, room.width, nullptr};
  const auto features = first_features(x.features);
  pieces_.resize(
      std::max(pieces_.size(), static_cast<std::size_t>(x.features * x.batch) * sizeof(float)));
  auto* message = reinterpret_cast<float*>(pieces_.data());
  if (member_ == 0) kernels().pack({x, features.data(), x.features, message}, room.stream);
  pass(message, static_cast<std::size_t>(x.features * x.batch) * sizeof(float), pace);
  if (member_ != 0) kernels().unpack({x, features.data(), x.features, message}, room.stream);
}

void MessageCrew::begin(const CrewStep& step, const CrewRoom& room, Pace& pace) {
  Letter letter = {false, !begun_ || step.arrangement != step_.arrangement, step.segment,
                   step.images, step.inputs};
  step_ = step;
  begun_ = true;
  pass_letter(letter, pace);
  if (letter.images_follow) pass_inputs(room, pace);
}

void MessageCrew::dismiss(Pace& pace) {
  Letter letter;
  letter.over = true;
  pass_letter(letter, pace);
}

bool MessageCrew::next(const CrewRoom& room, Pace& pace) {
  Letter letter;
  pass_letter(letter, pace);
  if (letter.over) return false;
  step_.segment = letter.segment;
  step_.images = letter.images;
  step_.inputs = letter.inputs;
  if (letter.images_follow) {
    step_.from = room.activations[0];
    step_.to = room.activations[1];
    pass_inputs(room, pace);
  }
  return true;
}

std::span<const std::uint32_t> MessageCrew::first_features(std::int64_t count) {
  if (std::ssize(all_) < count) {
    all_.resize(static_cast<std::size_t>(count));
    std::iota(all_.begin(), all_.end(), 0U);
  }
  return {all_.data(), static_cast<std::size_t>(count)};
}

/// Those of a member's rows.
std::span<const std::uint32_t> MessageCrew::features_of(const CrewLayer& layer,
                                                        std::size_t member) {
  const RowShare& share = rows_[member];
  if (layer.kernel->rows_of != nullptr) return layer.kernel->rows_of(*layer.weights, share);
  const std::int64_t each = layer.y.features / std::max<std::int64_t>(layer.rows, 1);
  const std::int64_t begin = layer.rows * share.begin / share.of * each;
  const std::int64_t end = layer.rows * share.end / share.of * each;
  return first_features(end).subspan(static_cast<std::size_t>(begin));
}

void MessageCrew::finish_layer(const CrewLayer& layer, const CrewRoom& room, Pace& pace) {
  const bool tails = own_alive_ != nullptr;
  std::vector<std::int64_t> begins;
  std::int64_t end = 0;
  for (std::size_t m = 0; m < size(); ++m) {
    begins.push_back(end);
    bytes_[m] = std::ssize(features_of(layer, m)) * layer.y.batch *
                    static_cast<std::int64_t>(sizeof(float)) +
                static_cast<std::int64_t>(tails ? tail_bytes(layer.y.batch) : 0);
    end += bytes_[m];
  }
  pieces_.resize(std::max(pieces_.size(), static_cast<std::size_t>(end)));
  const auto piece = [&](std::size_t m) { return pieces_.data() + begins[m]; };
  const auto tail = [&](std::size_t m) { return piece(m) + bytes_[m] - tail_bytes(layer.y.batch); };
  const auto own = features_of(layer, member_);
  kernels().pack({layer.y, own.data(), std::ssize(own), reinterpret_cast<float*>(piece(member_))},
                 room.stream);
  if (tails) write_tail(tail(member_));
  pace.begin_wait();
  comm_->all_gather(piece(member_), pieces_.data(), bytes_, DType::u8, nullptr);
  pace.end_wait();
  if (tails) alive_.assign(static_cast<std::size_t>(layer.y.batch), 0);
  for (std::size_t m = 0; m < size(); ++m) {
    if (tails) read_tail(m, tail(m));
    if (m == member_) continue;
    const auto features = features_of(layer, m);
    kernels().unpack(
        {layer.y, features.data(), std::ssize(features), reinterpret_cast<const float*>(piece(m))},
        room.stream);
  }
  own_alive_ = nullptr;
  std::swap(step_.from, step_.to);
}

void MessageCrew::tell(std::size_t /*member*/, const std::uint8_t* alive, double busy_s) {
  own_alive_ = alive;
  own_busy_s_ = busy_s;
}

void MessageCrew::write_tail(std::byte* to) const {
  std::memcpy(to, &own_busy_s_, sizeof own_busy_s_);
  std::memcpy(to + sizeof own_busy_s_, own_alive_, static_cast<std::size_t>(step_.images));
}

void MessageCrew::read_tail(std::size_t member, const std::byte* from) {
  std::memcpy(&busy_s_[member], from, sizeof(double));
  for (std::size_t i = 0; i < alive_.size(); ++i) {
    alive_[i] |= std::to_integer<std::uint8_t>(from[sizeof(double) + i]);
  }
}

void MessageCrew::combine_alive(std::uint8_t* alive) const {
  std::copy(alive_.begin(), alive_.end(), alive);
}

void MessageCrew::rebalance() { Crew::rebalance(busy_s_); }

MessageCost measure_messages(Communicator& comm, Device& device) {
  constexpr int kRuns = 4;
  constexpr std::int64_t kManyRows = 16384;
  constexpr std::int64_t kManyImages = 16;
  const std::unique_ptr<Stream> stream = device.make_stream();
  const std::int64_t width = panel_width(device.info());
  Pace pace(1.0);
  MessageCrew crew(comm.split(0, comm.rank()),
                   std::vector<double>(static_cast<std::size_t>(comm.size()), 1.0));
  const CrewRoom room = {*stream, width, {}};
  SpmmKernel<float> in_order = {};
  const Panels<float> shape = {nullptr, kManyRows, kManyImages, width, nullptr};
  std::vector<float> outputs(static_cast<std::size_t>(shape.size()), 1.0F);
  const auto seconds = [&](std::int64_t rows, std::int64_t images, int times) {
    const CrewLayer layer = {
        &in_order, nullptr, rows, {outputs.data(), rows, images, width, nullptr}};
    return fastest_together(comm, kRuns,
                            [&] {
                              for (int i = 0; i < times; ++i) crew.finish_layer(layer, room, pace);
                            }) /
           times;
  };
  const double few = seconds(comm.size(), 1, 8);
  const double rows = seconds(kManyRows, 1, 2);
  const double bytes = seconds(kManyRows, kManyImages, 1);
  // Each member sends its part to all others, and receives theirs.
  const double crossed = 2.0 * (comm.size() - 1) / comm.size() *
                         static_cast<double>(kManyRows * (kManyImages - 1)) * sizeof(float);
  // What noise makes negative is nothing.
  return {few, std::max(rows - few, 0.0) / static_cast<double>(kManyRows),
          std::max(bytes - rows, 0.0) / crossed};
}

}  // namespace spdnn
