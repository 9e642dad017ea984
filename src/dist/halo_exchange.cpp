// Packing rows of panels into messages and back. A chunk's messages are `[row][image]`, those of a
// piece one after the other, as are the pieces; on a GPU those of a later chunk lie behind them.
#include <algorithm>
#include <numeric>
#include <utility>

#include "spdnn/halo.hpp"

namespace spdnn {
namespace {

/// Images in the panels before `panel`.
template <class P>
std::int64_t images_before(const P& x, std::int64_t panel) {
  return std::min(x.batch, panel * x.width);
}

/// The images of some panels.
template <class T>
Panels<T> cut(const Panels<T>& x, Range panels) {
  return {x.panel(panels.begin), x.features,
          images_before(x, panels.end) - images_before(x, panels.begin), x.width, nullptr};
}

}  // namespace

std::int64_t common_panels(Communicator& comm, std::int64_t width) {
  std::vector<std::int64_t> widths(static_cast<std::size_t>(comm.size()));
  const std::vector<std::int64_t> ones(widths.size(), 1);
  comm.all_gather(&width, widths.data(), ones, DType::i64, nullptr);
  std::int64_t common = 1;
  for (const std::int64_t w : widths) common = std::lcm(common, w);
  return common;
}

std::vector<Range> halves(std::int64_t batch, std::int64_t width, std::int64_t grain) {
  const std::int64_t panels = (batch + width - 1) / width;
  const std::int64_t grains = (batch + grain - 1) / grain;
  if (grains < 2) return {{0, panels}};
  const std::int64_t middle = (grains + 1) / 2 * (grain / width);
  return {{0, middle}, {middle, panels}};
}

template <class T>
HaloExchange<T>::HaloExchange(const Halo& halo, Communicator& comm, Device& device, Stream& stream,
                              std::int64_t most_images)
    : HaloExchange(halo, comm, device, stream, most_images, std::make_unique<HaloRoom>(), nullptr) {
}

template <class T>
HaloExchange<T>::HaloExchange(const Halo& halo, Communicator& comm, Device& device, Stream& stream,
                              std::int64_t most_images, HaloRoom& room)
    : HaloExchange(halo, comm, device, stream, most_images, nullptr, &room) {}

template <class T>
HaloExchange<T>::HaloExchange(const Halo& halo, Communicator& comm, Device& device, Stream& stream,
                              std::int64_t most_images, std::unique_ptr<HaloRoom> own,
                              HaloRoom* shared)
    : halo_(halo),
      comm_(comm),
      device_(device),
      kernels_(message_kernels<T>(device.info().kind)),
      on_host_(device.info().kind == DeviceKind::cpu),
      staged_(!on_host_ && !comm.reaches_devices()),
      own_room_(std::move(own)),
      room_(shared == nullptr ? *own_room_ : *shared),
      own_side_{halo.sends, {}, halo.words_sent(), room_.own_side, room_.own_host},
      input_side_{halo.receives, {}, halo.words_received(), room_.input_side, room_.input_host} {
  list_rows(stream);
  const auto grow = [&](Side& side) {
    const auto bytes = static_cast<std::size_t>(side.words * most_images) * sizeof(T);
    if (!on_host_ && side.room.bytes() < bytes) side.room = device_.allocate(bytes);
    if (staged_ && side.host.bytes() < bytes) side.host = device_.allocate_host(bytes);
  };
  grow(own_side_);
  grow(input_side_);
}

template <class T>
HaloExchange<T>::~HaloExchange() = default;

/// The list where kernels can read it. On the CPU that is where it is.
template <class T>
typename HaloExchange<T>::Rows HaloExchange<T>::to_device(const std::vector<std::uint32_t>& list,
                                                          Stream& stream) {
  if (on_host_) return {list.data(), std::ssize(list)};
  uploaded_.push_back(device_.allocate(list.size() * sizeof(std::uint32_t)));
  stream.copy(uploaded_.back().data(), list.data(), uploaded_.back().bytes());
  stream.synchronize();
  return {uploaded_.back().template as<const std::uint32_t>(), std::ssize(list)};
}

template <class T>
void HaloExchange<T>::list_rows(Stream& stream) {
  for (Side* side : {&own_side_, &input_side_}) {
    std::vector<std::uint32_t> all;  // one launch for all pieces
    for (const HaloPiece& piece : side->pieces) {
      if (on_host_) side->rows.push_back(to_device(piece.rows, stream));
      if (!on_host_) all.insert(all.end(), piece.rows.begin(), piece.rows.end());
    }
    if (!on_host_) side->rows.push_back(to_device(all, stream));
  }
  own_from_ = to_device(halo_.own_from, stream);
  own_to_ = to_device(halo_.own_to, stream);
}

/// By own row that others read, which rows of the messages that come back are added to it, in order
/// of rank: those of all messages at once on a GPU, of one after another on the CPU.
template <class T>
void HaloExchange<T>::list_sums(Stream& stream) {
  if (on_host_) {
    ascending_.resize(static_cast<std::size_t>(own_side_.words) + 1);
    std::iota(ascending_.begin(), ascending_.end(), 0U);
    const Rows each{ascending_.data(), std::ssize(ascending_)};
    for (const Rows& rows : own_side_.rows) sums_.push_back({rows, each, each});
    return;
  }
  std::vector<std::uint32_t> ends(static_cast<std::size_t>(halo_.own) + 1);
  for (const HaloPiece& piece : halo_.sends) {
    for (const std::uint32_t row : piece.rows) ++ends[row + 1];
  }
  std::vector<std::uint32_t> rows;
  std::vector<std::uint32_t> offsets = {0};
  for (std::uint32_t row = 0; row < halo_.own; ++row) {
    const bool is_sent = ends[row + 1] > 0;
    ends[row + 1] += ends[row];
    if (!is_sent) continue;
    rows.push_back(row);
    offsets.push_back(ends[row + 1]);
  }
  std::vector<std::uint32_t> sources(offsets.back());
  std::uint32_t message_row = 0;
  for (const HaloPiece& piece : halo_.sends) {
    for (const std::uint32_t row : piece.rows) sources[ends[row]++] = message_row++;
  }
  sums_.push_back(
      {to_device(rows, stream), to_device(offsets, stream), to_device(sources, stream)});
}

/// Where a chunk's messages are as they travel.
template <class T>
std::vector<Communicator::Message> HaloExchange<T>::place(Side& side, std::int64_t before,
                                                          std::int64_t images) {
  std::shared_ptr<std::byte> lent;
  T* at = nullptr;
  if (on_host_ && side.words > 0) {
    lent = room_.messages.take(static_cast<std::size_t>(side.words * images) * sizeof(T));
    at = reinterpret_cast<T*>(lent.get());
  } else if (!on_host_) {
    at = (staged_ ? side.host : side.room).template as<T>() + side.words * before;
  }
  std::vector<Communicator::Message> messages;
  for (const HaloPiece& piece : side.pieces) {
    const std::int64_t elements = std::ssize(piece.rows) * images;
    messages.push_back({piece.peer, at, static_cast<std::size_t>(elements) * sizeof(T), lent});
    at += elements;
  }
  return messages;
}

template <class T>
void HaloExchange<T>::start(const Panels<const T>& from, Side& out, Side& in, Range panels,
                            Stream& stream, std::int64_t& bytes) {
  const std::int64_t before = images_before(from, panels.begin);
  const Panels<const T> chunk = cut(from, panels);
  UnderWay exchange;
  exchange.sends = place(out, before, chunk.batch);
  exchange.receives = place(in, before, chunk.batch);
  T* const room = on_host_ ? nullptr : out.room.template as<T>() + out.words * before;
  for (std::size_t i = 0; i < out.rows.size(); ++i) {
    T* const message = on_host_ ? static_cast<T*>(exchange.sends[i].data) : room;
    kernels_.pack({chunk, out.rows[i].data, out.rows[i].count, message}, stream);
  }
  const std::int64_t sent = out.words * chunk.batch * static_cast<std::int64_t>(sizeof(T));
  bytes += sent;
  if (staged_ && sent > 0) {
    stream.copy(exchange.sends[0].data, room, static_cast<std::size_t>(sent));
  }
  if (!on_host_) exchange.packed = stream.record();
  if (!staged_) send(exchange, stream);
  under_way_.push_back(std::move(exchange));
}

template <class T>
void HaloExchange<T>::send(UnderWay& exchange, Stream& stream) {
  if (std::exchange(exchange.is_sent, true) || !halo_.crosses) return;
  if (staged_) exchange.packed->wait();
  exchange.pending = comm_.start_exchange(exchange.sends, exchange.receives,
                                          on_host_ || staged_ ? nullptr : &stream);
}

/// Ends the exchange that was begun first; what came is then in the device's memory. Waiting for
/// the device to have packed comes before waiting for others, and is this rank's own work. What
/// passes through the host is sent here: the host would have to wait for it before, and with it for
/// the work that it could hide behind.
template <class T>
typename HaloExchange<T>::UnderWay HaloExchange<T>::receive(Side& in, std::int64_t before,
                                                            std::int64_t images, Stream& stream) {
  UnderWay exchange = std::move(under_way_.front());
  under_way_.pop_front();
  if (exchange.packed != nullptr) exchange.packed->wait();
  send(exchange, stream);
  if (exchange.pending != nullptr) exchange.pending->finish();
  if (on_host_) {
    for (const Communicator::Message& message : exchange.receives) {
      const void* lent = exchange.pending->lent(message.peer);
      exchange.messages.push_back(static_cast<const T*>(lent != nullptr ? lent : message.data));
    }
    return exchange;
  }
  T* const messages = in.room.template as<T>() + in.words * before;
  if (staged_) {
    stream.copy(messages, in.host.template as<T>() + in.words * before,
                static_cast<std::size_t>(in.words * images) * sizeof(T));
  }
  exchange.messages.push_back(messages);
  return exchange;
}

template <class T>
void HaloExchange<T>::send_now(Stream& stream) {
  for (UnderWay& exchange : under_way_) send(exchange, stream);
}

template <class T>
void HaloExchange<T>::start_forward(const Panels<const T>& own, const Panels<T>& inputs,
                                    Range panels, Stream& stream) {
  start(own, own_side_, input_side_, panels, stream, forward_bytes_);
  if (halo_.in_place && own.data == inputs.data) return;
  kernels_.copy_rows(
      {cut(own, panels), cut(inputs, panels), own_from_.data, own_to_.data, own_to_.count}, stream);
}

template <class T>
void HaloExchange<T>::finish_forward(const Panels<T>& inputs, Range panels, Stream& stream) {
  const Panels<T> chunk = cut(inputs, panels);
  const UnderWay exchange =
      receive(input_side_, images_before(inputs, panels.begin), chunk.batch, stream);
  for (std::size_t i = 0; i < input_side_.rows.size(); ++i) {
    const Rows& rows = input_side_.rows[i];
    // Lanes without an image must be finite: they meet gradients of 0.
    kernels_.unpack({chunk, rows.data, rows.count, exchange.messages[i]}, stream);
  }
}

template <class T>
void HaloExchange<T>::start_backward(const Panels<const T>& inputs, const Panels<T>& own,
                                     Range panels, Stream& stream) {
  start(inputs, input_side_, own_side_, panels, stream, backward_bytes_);
  if (halo_.in_place && own.data == inputs.data) return;
  keep_own(inputs, own, panels, stream);
}

template <class T>
void HaloExchange<T>::keep_own(const Panels<const T>& inputs, const Panels<T>& own, Range panels,
                               Stream& stream) {
  if (own_from_.count < halo_.own) {
    const std::int64_t elements = panels.size() * own.features * own.width;
    stream.zero(own.panel(panels.begin), static_cast<std::size_t>(elements) * sizeof(T));
  }
  kernels_.copy_rows(
      {cut(inputs, panels), cut(own, panels), own_to_.data, own_from_.data, own_to_.count}, stream);
}

template <class T>
void HaloExchange<T>::finish_backward(const Panels<T>& own, Range panels, Stream& stream) {
  if (sums_.empty()) list_sums(stream);
  const Panels<T> chunk = cut(own, panels);
  const UnderWay exchange =
      receive(own_side_, images_before(own, panels.begin), chunk.batch, stream);
  for (std::size_t i = 0; i < sums_.size(); ++i) {
    const Sums& sums = sums_[i];
    kernels_.add({chunk, sums.rows.data, sums.offsets.data, sums.sources.data, sums.rows.count,
                  exchange.messages[i]},
                 stream);
  }
}

template <class T>
std::int64_t HaloExchange<T>::device_bytes() const {
  std::size_t bytes = room_.own_side.bytes() + room_.input_side.bytes();
  for (const Buffer& list : uploaded_) bytes += list.bytes();
  return static_cast<std::int64_t>(bytes) + room_.messages.bytes();
}

template <class T>
std::int64_t HaloExchange<T>::host_bytes() const {
  return static_cast<std::int64_t>(room_.own_host.bytes() + room_.input_host.bytes());
}

template class HaloExchange<float>;
template class HaloExchange<double>;
template class HaloExchange<Half>;
template class HaloExchange<Bfloat16>;

}  // namespace spdnn
