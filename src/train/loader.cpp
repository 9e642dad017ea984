// The thread that fills batches, and how it takes turns with the rank.
#include "loader.hpp"

#include <pthread.h>

#include <algorithm>
#include <utility>

namespace spdnn::train {
namespace {

/// A thread begins with the cores of the one that started it.
void run_on(const std::vector<int>& cores) {
  if (cores.empty()) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const int core : cores) CPU_SET(static_cast<std::size_t>(core), &set);
  pthread_setaffinity_np(pthread_self(), sizeof set, &set);  // a hint: failure costs only speed
}

}  // namespace

Loader::Loader(std::int64_t features, std::int64_t most_images, std::int64_t width, Device& device,
               const std::vector<int>& cores)
    : features_(features), width_(width) {
  for (Slot& slot : slots_) slot.x = room(most_images, device);
  thread_ = std::thread([this, cores] {
    run_on(cores);
    work();
  });
}

Buffer Loader::room(std::int64_t most_images, Device& device) const {
  const std::int64_t lanes = (most_images + width_ - 1) / width_ * width_;
  return device.allocate_host(static_cast<std::size_t>(lanes * features_) * sizeof(float));
}

Loader::~Loader() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

std::int64_t Loader::bytes() const {
  std::int64_t bytes = 0;
  for (const Slot& slot : slots_) {
    bytes += static_cast<std::int64_t>(slot.x.bytes() + slot.labels.size() * sizeof(std::int32_t));
  }
  return bytes;
}

void Loader::start(const LabelledImages& data, std::vector<std::uint32_t> order,
                   std::vector<Range> shares) {
  {
    const std::lock_guard lock(mutex_);
    data_ = &data;
    order_ = std::move(order);
    shares_ = std::move(shares);
    filled_ = taken_ = returned_ = 0;
  }
  changed_.notify_all();
}

void Loader::change(std::int64_t first, const std::vector<Range>& shares, std::int64_t most_images,
                    Device& device) {
  Buffer rooms[2] = {room(most_images, device), room(most_images, device)};
  const std::lock_guard lock(mutex_);
  for (std::size_t i = static_cast<std::size_t>(first); i < shares_.size(); ++i) {
    shares_[i] = shares[i];
  }
  for (int i = 0; i < 2; ++i) {
    if (rooms[i].bytes() > slots_[i].x.bytes()) slots_[i].larger = std::move(rooms[i]);
  }
}

Batch Loader::next() {
  std::unique_lock lock(mutex_);
  returned_ = taken_;
  changed_.notify_all();
  changed_.wait(lock, [this] { return filled_ > taken_; });
  for (Slot& each : slots_) {  // the device is this thread's, not the loader's
    if (each.larger.bytes() <= each.x.bytes()) each.larger = {};
  }
  const Slot& slot = slots_[taken_ % 2];
  ++taken_;
  return {{slot.x.as<const float>(), features_, slot.images, width_, nullptr}, slot.labels.data()};
}

void Loader::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    // A slot may be written when the batch it held two turns ago was given back.
    changed_.wait(lock, [this] {
      return stop_ || (filled_ < std::ssize(shares_) && filled_ < returned_ + 2);
    });
    if (stop_) return;
    Slot& slot = slots_[filled_ % 2];
    const Range share = shares_[filled_];
    if (slot.larger.bytes() > slot.x.bytes()) std::swap(slot.larger, slot.x);
    lock.unlock();
    fill(slot, share);
    lock.lock();
    ++filled_;
    changed_.notify_all();
  }
}

void Loader::fill(Slot& slot, Range share) {
  slot.images = share.size();
  slot.labels.resize(static_cast<std::size_t>(share.size()));
  const Panels<float> x = {slot.x.as<float>(), features_, slot.images, width_, nullptr};
  for (std::int64_t i = 0; i < share.size(); ++i) {
    const std::int64_t image = order_[share.begin + i];
    data_->copy_image(image, x.panel(i / width_) + i % width_, width_);
    slot.labels[i] = data_->labels[image];
  }
  for (std::int64_t lane = share.size(); lane < x.count() * width_; ++lane) {
    for (std::int64_t f = 0; f < x.features; ++f) x.at(f, lane) = 0.0F;
  }
}

}  // namespace spdnn::train
