// Memory of messages that several threads read.
#include <algorithm>
#include <mutex>
#include <new>

#include "spdnn/halo.hpp"

namespace spdnn {

struct MessagePool::Blocks {
  static constexpr std::align_val_t kAlignment{64};
  struct Free {
    void operator()(std::byte* data) const { ::operator delete(data, kAlignment); }
  };
  struct Block {
    std::unique_ptr<std::byte, Free> data;
    std::size_t bytes = 0;
  };
  std::mutex mutex;
  std::vector<Block> idle;  ///< the one that came back last stands last
  std::int64_t bytes = 0;

  /// The smallest idle one that is large enough, of equal ones that which caches know best.
  Block take(std::size_t least) {
    const std::lock_guard lock(mutex);
    auto best = idle.end();
    for (auto block = idle.begin(); block != idle.end(); ++block) {
      if (block->bytes >= least && (best == idle.end() || block->bytes <= best->bytes)) {
        best = block;
      }
    }
    if (best != idle.end()) {
      Block block = std::move(*best);
      idle.erase(best);
      return block;
    }
    bytes += static_cast<std::int64_t>(least);
    idle.reserve(idle.capacity() + 1);  // so that giving back does not fail
    return {std::unique_ptr<std::byte, Free>(
                static_cast<std::byte*>(::operator new(least, kAlignment))),
            least};
  }
  void give_back(Block block) noexcept {
    const std::lock_guard lock(mutex);
    idle.push_back(std::move(block));
  }
};

MessagePool::MessagePool() : blocks_(std::make_shared<Blocks>()) {}

std::shared_ptr<std::byte> MessagePool::take(std::size_t bytes) const {
  /// A block until it goes back.
  struct Lease {
    Lease(std::shared_ptr<Blocks> from, std::size_t least)
        : blocks(std::move(from)), block(blocks->take(least)) {}
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    ~Lease() { blocks->give_back(std::move(block)); }
    std::shared_ptr<Blocks> blocks;
    Blocks::Block block;
  };
  const auto lease = std::make_shared<Lease>(blocks_, std::max<std::size_t>(bytes, 1));
  return {lease, lease->block.data.get()};
}

std::int64_t MessagePool::bytes() const {
  const std::lock_guard lock(blocks_->mutex);
  return blocks_->bytes;
}

}  // namespace spdnn
