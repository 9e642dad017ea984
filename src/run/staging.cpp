// Packing a layer's form into pinned memory, and the two slots.
#include "staging.hpp"

#include <cstring>

namespace spdnn {
namespace {

constexpr std::size_t kAlignment = 256;

/// A piece of device memory that is filled in pinned memory first. Past its end nothing is
/// written, but counted.
struct Image {
  std::byte* there = nullptr;
  std::byte* pinned = nullptr;
  std::size_t capacity = 0, used = 0;
};

/// Puts what would be copied to the device into the image.
class PackingStream final : public Stream {
 public:
  explicit PackingStream(Image& image) : image_(image) {}
  void copy(void* to, const void* from, std::size_t bytes) override {
    if (std::byte* at = place(to, bytes)) std::memcpy(at, from, bytes);
  }
  void zero(void* to, std::size_t bytes) override {
    if (std::byte* at = place(to, bytes)) std::memset(at, 0, bytes);
  }
  [[nodiscard]] std::unique_ptr<Event> record() override { throw unexpected(); }
  void wait(const Event& /*event*/) override { throw unexpected(); }
  void synchronize() override {}
  [[nodiscard]] void* native() override { throw unexpected(); }

 private:
  [[nodiscard]] std::byte* place(void* to, std::size_t bytes) const {
    const auto offset = static_cast<std::size_t>(static_cast<std::byte*>(to) - image_.there);
    return bytes == 0 || offset + bytes > image_.capacity ? nullptr : image_.pinned + offset;
  }
  static DeviceError unexpected() {
    return DeviceError("a kernel whose weights are staged may only copy while it prepares them");
  }
  Image& image_;
};

/// Hands out parts of the image as device memory.
class PackingDevice final : public Device {
 public:
  PackingDevice(Device& device, Image& image) : device_(device), image_(image) {}
  [[nodiscard]] const DeviceInfo& info() const override { return device_.info(); }
  [[nodiscard]] std::unique_ptr<Stream> make_stream() override {
    return std::make_unique<PackingStream>(image_);
  }
  [[nodiscard]] Buffer allocate(std::size_t bytes) override {
    std::byte* at = image_.there + image_.used;
    image_.used += (bytes + kAlignment - 1) / kAlignment * kAlignment;
    return {at, bytes, [](void*, std::size_t) {}};
  }
  [[nodiscard]] Buffer allocate_host(std::size_t bytes) override {
    return device_.allocate_host(bytes);
  }
  [[nodiscard]] std::int64_t peak_bytes() const override { return device_.peak_bytes(); }
  [[nodiscard]] std::int64_t free_bytes() const override { return device_.free_bytes(); }

 private:
  Device& device_;
  Image& image_;
};

}  // namespace

StagedLayers::StagedLayers(const Model& model, Device& device, Stream& compute)
    : model_(model), device_(device), compute_(compute), copies_(device.make_stream()) {}

const PreparedWeights& StagedLayers::get(std::int64_t layer, const SpmmKernel<float>& kernel) {
  Slot& slot = slots_[layer % 2];
  if (slot.layer != layer) fetch(layer, kernel);
  compute_.wait(*slot.arrived);
  return slot.weights;
}

void StagedLayers::release(std::int64_t layer) {
  Slot& slot = slots_[layer % 2];
  if (slot.layer == layer) slot.used = compute_.record();
}

void StagedLayers::fetch(std::int64_t layer, const SpmmKernel<float>& kernel) {
  Slot& slot = slots_[layer % 2];
  if (slot.layer == layer) return;
  const Csr& host = layer_weights(model_.layers[layer]);
  if (slot.layer >= 0) {
    slot.arrived->wait();  // its pinned memory is free
    if (slot.used != nullptr) copies_->wait(*slot.used);
  }
  pack(slot, host.view(), kernel);
  slot.arrived = copies_->record();
  slot.layer = layer;
  if (host.storage() != nullptr) host.storage()->release();
  if (layer + 1 < std::ssize(model_.layers)) {
    const Csr& next = layer_weights(model_.layers[layer + 1]);
    if (next.storage() != nullptr) next.storage()->prefetch();
  }
}

/// Fills the slot's pinned memory and queues its copy. Where the layer is larger than any before
/// it, the slot grows and the layer is packed once more, for its new address.
void StagedLayers::pack(Slot& slot, const CsrView& host, const SpmmKernel<float>& kernel) {
  for (;;) {
    Image image{slot.there.as<std::byte>(), slot.pinned.as<std::byte>(), slot.there.bytes(), 0};
    PackingDevice device(device_, image);
    PackingStream stream(image);
    slot.weights = kernel.prepare(host, device, stream);
    if (image.used <= image.capacity) {
      copies_->copy(image.there, image.pinned, image.used);
      return;
    }
    compute_.synchronize();
    slot.there = Buffer();
    slot.pinned = Buffer();
    slot.there = device_.allocate(image.used);
    slot.pinned = device_.allocate_host(image.used);
  }
}

}  // namespace spdnn
