// Requests for images, and rows sent after each layer.
#include "remote.hpp"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "spdnn/pace.hpp"

namespace spdnn {
namespace {

enum Topic : int { topic_request = 16, topic_given = 17 };

/// A request holds a number of images, its answer a range of them.
struct Request {
  std::int64_t rank = 0, batch = 0;
};
struct Answer {
  std::int64_t rank = 0;
  Range images;
};

template <class T>
std::span<const std::byte> letter_of(const T& value) {
  return std::as_bytes(std::span(&value, 1));
}

template <class T>
T open_as(std::span<const std::byte> letter) {
  T value;
  std::memcpy(&value, letter.data(), sizeof value);
  return value;
}

/// Waiting for the others is no work.
class Waiting {
 public:
  explicit Waiting(Pace& pace) : pace_(pace) { pace_.begin_wait(); }
  Waiting(const Waiting&) = delete;
  Waiting& operator=(const Waiting&) = delete;
  ~Waiting() { pace_.end_wait(); }

 private:
  Pace& pace_;
};

}  // namespace

ImageDesk::ImageDesk(World& world, ImageQueue& queue) : world_(world), queue_(queue) {
  world_.serve(topic_given, [this](int /*from*/, std::span<const std::byte> letter) {
    const auto answer = open_as<Answer>(letter);
    const std::lock_guard lock(mutex_);
    given_[static_cast<int>(answer.rank)] = answer.images;
  });
  if (world_.processes().rank() != 0) return;
  world_.serve(topic_request, [this](int from, std::span<const std::byte> letter) {
    const auto request = open_as<Request>(letter);
    const Range images = queue_.take(static_cast<int>(request.rank), request.batch);
    world_.send(from, topic_given, letter_of(Answer{request.rank, images}));
  });
}

ImageDesk::~ImageDesk() {
  world_.serve(topic_request, nullptr);
  world_.serve(topic_given, nullptr);
}

Range ImageDesk::take(Communicator& comm, std::int64_t batch) {
  if (world_.processes().rank() == 0) return queue_.take(comm.rank(), batch);
  world_.send(0, topic_request, letter_of(Request{comm.rank(), batch}));
  Range images;
  world_.wait_until(comm, [&] {
    const std::lock_guard lock(mutex_);
    const auto found = given_.find(comm.rank());
    if (found == given_.end()) return false;
    images = found->second;
    given_.erase(found);
    return true;
  });
  return images;
}

/// The leader tells all members; false when the crew is over.
bool MessageCrew::announce(std::int64_t (&words)[6]) {
  std::vector<std::int64_t> counts(size(), 0);
  counts[0] = 6;
  comm_.all_gather(words, words, counts, DType::i64, nullptr);
  if (words[0] == 0) return false;
  if (words[5] != 0) {
    share_by_speed();
    rows_.clear();
  }
  return true;
}

void MessageCrew::begin(const CrewStep& step, Pace& pace) {
  const Waiting waiting(pace);
  step_ = step;
  std::int64_t words[6] = {1,
                           static_cast<std::int64_t>(step.segment),
                           step.images,
                           step.width,
                           step.features,
                           rebalances_ ? 1 : 0};
  rebalances_ = false;
  static_cast<void>(announce(words));
  std::vector<std::int64_t> counts(size(), 0);
  counts[0] = Panels<float>{nullptr, step.features, step.images, step.width, nullptr}.size();
  comm_.all_gather(step.from, step.from, counts, DType::f32, nullptr);
}

void MessageCrew::dismiss(Pace& pace) {
  const Waiting waiting(pace);
  std::int64_t words[6] = {};
  static_cast<void>(announce(words));
}

bool MessageCrew::next(const std::array<float*, 2>& own, Pace& pace) {
  const Waiting waiting(pace);
  std::int64_t words[6] = {};
  if (!announce(words)) return false;
  step_ = {static_cast<std::size_t>(words[1]), own[0], own[1], words[2], words[3], words[4]};
  std::vector<std::int64_t> counts(size(), 0);
  counts[0] = Panels<float>{nullptr, step_.features, step_.images, step_.width, nullptr}.size();
  comm_.all_gather(nullptr, step_.from, counts, DType::f32, nullptr);
  return true;
}

void MessageCrew::tell_rows(std::int64_t layer, std::vector<std::uint32_t> rows) {
  const std::vector<std::int64_t> ones(size(), 1);
  std::vector<std::int64_t> counts(size());
  const std::int64_t own = std::ssize(rows);
  comm_.all_gather(&own, counts.data(), ones, DType::i64, nullptr);
  std::vector<std::uint32_t> all(
      static_cast<std::size_t>(std::accumulate(counts.begin(), counts.end(), std::int64_t{0})));
  comm_.all_gather(rows.data(), all.data(), counts, DType::u32, nullptr);
  auto at = all.begin();
  for (const std::int64_t count : counts) {
    rows_[layer].emplace_back(at, at + count);
    at += count;
  }
}

void MessageCrew::finish_layer(std::int64_t layer, const Panels<float>& y, Pace& pace) {
  const Waiting waiting(pace);
  const auto& rows = rows_[layer];
  const std::int64_t panels = y.count();
  std::vector<std::int64_t> counts;
  for (const auto& of_member : rows) counts.push_back(std::ssize(of_member) * panels * y.width);
  const auto me = static_cast<std::size_t>(comm_.rank());
  send_.resize(static_cast<std::size_t>(counts[me]));
  receive_.resize(
      static_cast<std::size_t>(std::accumulate(counts.begin(), counts.end(), std::int64_t{0})));
  float* to = send_.data();
  for (std::int64_t p = 0; p < panels; ++p) {
    for (const std::uint32_t row : rows[me]) {
      to = std::copy_n(y.panel(p) + row * y.width, y.width, to);
    }
  }
  comm_.all_gather(send_.data(), receive_.data(), counts, DType::f32, nullptr);
  const float* from = receive_.data();
  for (std::size_t member = 0; member < rows.size(); ++member) {
    if (member == me) {
      from += counts[me];
      continue;
    }
    for (std::int64_t p = 0; p < panels; ++p) {
      for (const std::uint32_t row : rows[member]) {
        std::copy_n(from, y.width, y.panel(p) + row * y.width);
        from += y.width;
      }
    }
  }
}

void MessageCrew::tell(std::size_t /*member*/, std::uint8_t* alive, double busy_s) {
  comm_.all_reduce(alive, alive, step_.images, DType::u8, Reduction::bit_or, nullptr);
  const std::vector<std::int64_t> ones(size(), 1);
  std::vector<double> busy(size());
  comm_.all_gather(&busy_s, busy.data(), ones, DType::f64, nullptr);
  for (std::size_t m = 0; m < size(); ++m) members_[m].busy_s = busy[m];
}

std::optional<Assignment> ModelRoster::offer(int rank, Slots* /*landing*/) {
  if (rank == 0 || std::exchange(served_, true)) return std::nullopt;
  return Membership{crew_, static_cast<std::size_t>(rank)};
}

std::vector<Roster::Helper> ModelRoster::claim_all(int rank) {
  std::vector<Helper> helpers;
  for (int r = 0; r < comm_.size(); ++r) {
    if (r != rank) helpers.push_back({r, nullptr});
  }
  return helpers;
}

}  // namespace spdnn
