// Work that a stream is given again and again, kept by it and replayed.
#pragma once

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "spdnn/device.hpp"

namespace spdnn::train {

/// What is queued for a key is the same each time, so that work met for the second time is kept by
/// the stream, a GPU's as a CUDA graph, and replayed from then on. Streams that keep nothing are
/// given it anew.
template <class Key>
class KeptWork {
 public:
  /// Queues `work()`, which depends on `key` alone and does nothing else that matters.
  template <class Work>
  void run(Stream& stream, const Key& key, const Work& work) {
    const auto found = std::find_if(entries_.begin(), entries_.end(),
                                    [&](const Entry& entry) { return entry.key == key; });
    if (found == entries_.end()) {
      entries_.push_back({key, nullptr, false});
      return work();
    }
    if (!std::exchange(found->met_again, true)) found->recording = stream.keep(work);
    if (found->recording == nullptr) return work();
    found->recording->replay();
    ++replayed_;
  }
  [[nodiscard]] std::int64_t replayed() const noexcept { return replayed_; }

 private:
  struct Entry {
    Key key;
    std::unique_ptr<Recording> recording;
    bool met_again;
  };
  std::vector<Entry> entries_;
  std::int64_t replayed_ = 0;
};

}  // namespace spdnn::train
