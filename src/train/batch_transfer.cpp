// Copies of batches, where a device has memory of its own.
#include "batch_transfer.hpp"

#include <algorithm>

#include "host_view.hpp"

namespace spdnn::train {
namespace {

std::size_t found_bytes(std::int64_t images) {
  return sizeof(double) + static_cast<std::size_t>(images) * sizeof(std::int32_t);
}

std::int64_t bytes_of(const Buffer& buffer) { return static_cast<std::int64_t>(buffer.bytes()); }

}  // namespace

template <class T>
BatchTransfer<T>::BatchTransfer(Device& device, Stream& stream, std::int64_t inputs,
                                std::int64_t most_images, std::int64_t lanes)
    : stream_(stream),
      copies_(!shares_memory(device)),
      found_(device.allocate(found_bytes(most_images))) {
  if (!copies_) return;
  images_ = device.allocate(static_cast<std::size_t>(inputs * lanes) * sizeof(T));
  labels_ = device.allocate(static_cast<std::size_t>(most_images) * sizeof(std::int32_t));
  found_back_ = device.allocate_host(found_bytes(most_images));
}

template <class T>
Panels<const T> BatchTransfer<T>::images(const Panels<const T>& host) {
  if (!copies_) return host;
  Panels<const T> copied = host;
  copied.data = images_.as<const T>();
  stream_.copy(images_.data(), host.data, static_cast<std::size_t>(host.size()) * sizeof(T));
  return copied;
}

template <class T>
const std::int32_t* BatchTransfer<T>::labels(const std::int32_t* host, std::int64_t count) {
  if (!copies_) return host;
  stream_.copy(labels_.data(), host, static_cast<std::size_t>(count) * sizeof(std::int32_t));
  return labels_.as<const std::int32_t>();
}

template <class T>
void BatchTransfer<T>::start_back(std::int64_t count) {
  if (copies_) stream_.copy(found_back_.data(), found_.data(), found_bytes(count));
}

template <class T>
void BatchTransfer<T>::mark_back(std::int64_t count) {
  count_ = count;
  if (copies_) back_ = stream_.record();
}

template <class T>
double BatchTransfer<T>::finish(std::int32_t* predictions) {
  if (back_ != nullptr) back_->wait();
  const auto* sum = (copies_ ? found_back_ : found_).template as<double>();
  if (predictions != nullptr) {
    std::copy_n(reinterpret_cast<const std::int32_t*>(sum + 1), count_, predictions);
  }
  return *sum;
}

template <class T>
std::int64_t BatchTransfer<T>::device_bytes() const {
  return bytes_of(images_) + bytes_of(labels_) + bytes_of(found_);
}

template <class T>
std::int64_t BatchTransfer<T>::host_bytes() const {
  return bytes_of(found_back_);
}

template class BatchTransfer<float>;
template class BatchTransfer<double>;

}  // namespace spdnn::train
