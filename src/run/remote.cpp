// Requests for images, and their answers.
#include "remote.hpp"

#include <cstring>

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

}  // namespace spdnn
