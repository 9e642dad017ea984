// Packing rows of panels into messages and back. A message is `[panel][row][image]`, images that
// are there alone; the messages of a chunk lie one after the other, those of a later chunk behind
// them.
#include <algorithm>

#include "spdnn/halo.hpp"

namespace spdnn {
namespace {

/// Images in the panels before `panel`, and in it.
template <class P>
std::int64_t images_before(const P& x, std::int64_t panel) {
  return std::min(x.batch, panel * x.width);
}
template <class P>
std::int64_t images_of(const P& x, std::int64_t panel) {
  return images_before(x, panel + 1) - images_before(x, panel);
}

/// Rows worth handing to another thread.
constexpr std::int64_t kRowGrain = 256;

/// Calls `row(row of x, its images in the panel, elements of the message)` for all rows of a piece.
template <class P, class T, class Row>
void for_each_row(const P& x, const std::vector<std::uint32_t>& rows, T* message, Range panels,
                  ThreadTeam& team, const Row& row) {
  const auto count = std::ssize(rows);
  for (std::int64_t panel = panels.begin; panel < panels.end; ++panel) {
    const std::int64_t images = images_of(x, panel);
    team.parallel_for(count, kRowGrain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        row(x.panel(panel) + std::int64_t{rows[i]} * x.width, images, message + i * images);
      }
    });
    message += count * images;
  }
}

}  // namespace

template <class T>
HaloExchange<T>::HaloExchange(const Halo& halo, Communicator& comm, std::int64_t most_images)
    : halo_(halo), comm_(comm), own_room_(std::make_unique<HaloRoom<T>>()), room_(*own_room_) {
  make_room(most_images);
}

template <class T>
HaloExchange<T>::HaloExchange(const Halo& halo, Communicator& comm, std::int64_t most_images,
                              HaloRoom<T>& room)
    : halo_(halo), comm_(comm), room_(room) {
  make_room(most_images);
}

template <class T>
void HaloExchange<T>::make_room(std::int64_t most_images) {
  const auto grow = [](std::vector<T>& side, std::int64_t elements) {
    if (std::ssize(side) < elements) side.resize(static_cast<std::size_t>(elements));
  };
  grow(room_.own_side, halo_.words_sent() * most_images);
  grow(room_.input_side, halo_.words_received() * most_images);
}

template <class T>
HaloExchange<T>::~HaloExchange() = default;

template <class T>
void HaloExchange<T>::start(const Panels<const T>& from, const std::vector<HaloPiece>& out,
                            std::vector<T>& sent, const std::vector<HaloPiece>& in,
                            std::vector<T>& received, Range panels, Stream& stream,
                            std::int64_t& bytes) {
  const std::int64_t before = images_before(from, panels.begin);
  const std::int64_t images = images_before(from, panels.end) - before;
  // Where each piece's message is, in buffers that hold all images of a batch.
  const auto place = [&](const std::vector<HaloPiece>& pieces, std::vector<T>& buffer) {
    std::int64_t words = 0;
    for (const HaloPiece& piece : pieces) words += std::ssize(piece.rows);
    T* at = buffer.data() + words * before;
    std::vector<Communicator::Message> messages;
    for (const HaloPiece& piece : pieces) {
      const std::int64_t elements = std::ssize(piece.rows) * images;
      messages.push_back({piece.peer, at, static_cast<std::size_t>(elements) * sizeof(T)});
      at += elements;
    }
    return messages;
  };
  const std::vector<Communicator::Message> sends = place(out, sent);
  for (std::size_t i = 0; i < out.size(); ++i) {
    for_each_row(from, out[i].rows, static_cast<T*>(sends[i].data), panels, stream.team(),
                 [](const T* row, std::int64_t count, T* to) { std::copy_n(row, count, to); });
    bytes += static_cast<std::int64_t>(sends[i].bytes);
  }
  under_way_.push_back({panels, halo_.crosses
                                    ? comm_.start_exchange(sends, place(in, received), nullptr)
                                    : nullptr});
}

template <class T>
void HaloExchange<T>::wait_for(Range panels) {
  const auto found =
      std::find_if(under_way_.begin(), under_way_.end(),
                   [&](const UnderWay& exchange) { return exchange.panels == panels; });
  if (found->pending != nullptr) found->pending->finish();
  under_way_.erase(found);
}

template <class T>
void HaloExchange<T>::start_forward(const Panels<const T>& own, const Panels<T>& inputs,
                                    Range panels, Stream& stream) {
  start(own, halo_.sends, room_.own_side, halo_.receives, room_.input_side, panels, stream,
        forward_bytes_);
  if (halo_.in_place && own.data == inputs.data) return;
  for (std::int64_t panel = panels.begin; panel < panels.end; ++panel) {
    const T* from = own.panel(panel);
    T* to = inputs.panel(panel);
    stream.team().parallel_for(
        std::ssize(halo_.own_to), kRowGrain, [&](std::int64_t begin, std::int64_t end) {
          for (std::int64_t i = begin; i < end; ++i) {
            std::copy_n(from + std::int64_t{halo_.own_from[i]} * own.width, own.width,
                        to + std::int64_t{halo_.own_to[i]} * own.width);
          }
        });
  }
}

template <class T>
void HaloExchange<T>::finish_forward(const Panels<T>& inputs, Range panels, Stream& stream) {
  wait_for(panels);
  T* message =
      room_.input_side.data() + halo_.words_received() * images_before(inputs, panels.begin);
  for (const HaloPiece& piece : halo_.receives) {
    for_each_row(inputs, piece.rows, message, panels, stream.team(),
                 [&](T* row, std::int64_t count, const T* from) {
                   std::copy_n(from, count, row);
                   // Lanes without an image must be finite: they meet gradients of 0.
                   std::fill_n(row + count, inputs.width - count, T{0});
                 });
    message += std::ssize(piece.rows) *
               (images_before(inputs, panels.end) - images_before(inputs, panels.begin));
  }
}

template <class T>
void HaloExchange<T>::start_backward(const Panels<const T>& inputs, const Panels<T>& own,
                                     Range panels, Stream& stream) {
  start(inputs, halo_.receives, room_.input_side, halo_.sends, room_.own_side, panels, stream,
        backward_bytes_);
  if (halo_.in_place && own.data == inputs.data) return;
  for (std::int64_t panel = panels.begin; panel < panels.end; ++panel) {
    const T* from = inputs.panel(panel);
    T* to = own.panel(panel);
    std::fill_n(to, own.features * own.width, T{0});
    stream.team().parallel_for(
        std::ssize(halo_.own_to), kRowGrain, [&](std::int64_t begin, std::int64_t end) {
          for (std::int64_t i = begin; i < end; ++i) {
            std::copy_n(from + std::int64_t{halo_.own_to[i]} * own.width, own.width,
                        to + std::int64_t{halo_.own_from[i]} * own.width);
          }
        });
  }
}

template <class T>
void HaloExchange<T>::finish_backward(const Panels<T>& own, Range panels, Stream& stream) {
  wait_for(panels);
  const T* message = room_.own_side.data() + halo_.words_sent() * images_before(own, panels.begin);
  for (const HaloPiece& piece : halo_.sends) {
    for_each_row(own, piece.rows, message, panels, stream.team(),
                 [](T* row, std::int64_t count, const T* from) {
                   for (std::int64_t i = 0; i < count; ++i) row[i] += from[i];
                 });
    message += std::ssize(piece.rows) *
               (images_before(own, panels.end) - images_before(own, panels.begin));
  }
}

template <class T>
std::int64_t HaloExchange<T>::buffer_bytes() const {
  return static_cast<std::int64_t>((room_.own_side.size() + room_.input_side.size()) * sizeof(T));
}

template class HaloExchange<float>;
template class HaloExchange<double>;

}  // namespace spdnn
