// How ranks of several processes share images: by letters in place of memory.
#pragma once

#include <map>
#include <mutex>

#include "image_queue.hpp"
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

}  // namespace spdnn
