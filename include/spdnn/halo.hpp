// What the rows of one rank read of the others' (Demirci and Ferhatosmanoglu, ICS 2021): halo
// lists, computed once, and the exchanges they ask for with every batch.
//
// A rank owns some of the features between two layers and reads some: its own and the halo. Before
// a layer every owner sends the features that others read; on the way back the readers send their
// parts of the gradient the opposite way, to be added up at the owner.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "spdnn/comm.hpp"
#include "spdnn/message_op.hpp"
#include "spdnn/partition.hpp"

namespace spdnn {

/// Features that go to, or come from, one rank.
struct HaloPiece {
  int peer = 0;
  std::vector<std::uint32_t> rows;
};

/// One rank's side of the features between two layers. Features it owns are counted in an order of
/// its own (`own`), those it reads (`inputs`) in another, ascending in their original numbers
/// unless it was asked for otherwise.
struct Halo {
  std::int64_t own = 0, inputs = 0;
  std::vector<HaloPiece> sends;     ///< rows of own; by peer, none empty
  std::vector<HaloPiece> receives;  ///< rows of inputs; by peer, none empty
  /// Own features that the rank reads itself: row `own_from[i]` of own is `own_to[i]` of inputs. A
  /// `local_halo`, which no exchange is made for, lists none.
  std::vector<std::uint32_t> own_from, own_to;
  /// Inputs are the own features in the same order: this rank needs to move nothing.
  bool in_place = false;
  /// Any rank sends anything.
  bool crosses = false;

  /// Words sent for one image forward, and received; the way back has them the other way round.
  [[nodiscard]] std::int64_t words_sent() const;
  [[nodiscard]] std::int64_t words_received() const;
};

/// Gives rank p `blocks[p]` and returns what each rank gave this one. Sizes need not be known
/// beforehand. All ranks call it.
[[nodiscard]] std::vector<std::vector<std::byte>> exchange_blocks(
    Communicator& comm, std::vector<std::vector<std::byte>> blocks);

/// The partition that rank 0 makes, on every rank; `make` is called there alone. All ranks call it.
[[nodiscard]] Partition share_partition(Communicator& comm, const std::function<Partition()>& make);

/// The features between two layers as the ranks share them.
struct FeatureOwners {
  std::vector<std::uint32_t> owners;  ///< by feature; equal on all ranks
  std::vector<std::uint32_t> own;     ///< this rank's, in its order
};
/// What a rank reads of the features between two layers: `needed`, in its order.
struct HaloRequest {
  FeatureOwners features;
  std::vector<std::uint32_t> needed;
};
/// Finds what crosses between all layers at once. All ranks call it, with as many requests.
[[nodiscard]] std::vector<Halo> make_halos(Communicator& comm,
                                           std::span<const HaloRequest> requests);
/// What every rank asks of this one: features it owns, none of itself.
struct HaloAsked {
  std::vector<std::vector<std::uint32_t>> by_rank;
  bool crosses = false;  ///< any rank asks anything of any other
};
/// The halos of one rank where what others ask is known, by request: nobody is called.
[[nodiscard]] std::vector<Halo> make_halos(int rank, std::span<const HaloRequest> requests,
                                           std::span<const HaloAsked> asked);
/// The same for one: `owners[f]` is the rank that owns feature f.
[[nodiscard]] Halo make_halo(Communicator& comm, std::span<const std::uint32_t> owners,
                             std::span<const std::uint32_t> own,
                             const std::vector<std::uint32_t>& needed);
/// The halo of a rank alone, or of a layer that reads what the same rank puts out: nothing crosses.
[[nodiscard]] Halo local_halo(std::int64_t features);

/// The columns that some rows of a layer's weights read: row r those of the entries
/// [offsets[r], offsets[r + 1]), or all of them where there are no offsets.
struct RowPattern {
  std::int64_t rows = 0;
  const std::int64_t* offsets = nullptr;
  const std::uint32_t* columns = nullptr;
  [[nodiscard]] bool is_dense() const { return offsets == nullptr; }
};
/// What the columns stand for: `columns` of them for each item of the layer's inputs, which is
/// `features` features, one or a plane.
struct InputItems {
  std::int64_t count = 0, columns = 1, features = 1;
};
/// Some rows of a layer without the inputs that they do not read. Inputs keep their order, so that
/// each sum has the order it has on one rank.
struct RowSlice {
  /// Row i is row `order[i]` of those given. The first `interior` ones read own inputs alone.
  std::vector<std::size_t> order;
  std::int64_t interior = 0;
  std::vector<std::uint32_t> read;     ///< items, ascending
  std::int64_t cols = 0;               ///< columns of these items
  std::vector<std::int64_t> offsets;   ///< as `RowPattern`, columns counted among `cols`; none
  std::vector<std::uint32_t> columns;  ///< where the rows read everything
};
/// Cuts out the rows of `rank`. `before` is null for a first layer, whose inputs every rank has.
/// With `keep_order` rows stay in the order given, and none count as interior unless all are.
[[nodiscard]] RowSlice slice_rows(int rank, const RowPattern& rows, const InputItems& items,
                                  const FeatureOwners* before, bool keep_order = false);

/// The original features of units (neurons, filters, channels), which have so many each.
[[nodiscard]] std::vector<std::uint32_t> features_of(const std::vector<std::uint32_t>& units,
                                                     std::int64_t features_per_unit);
/// Units of one part.
[[nodiscard]] std::span<const std::uint32_t> part_of(const LayerPartition& partition, int part);
/// Who owns the features that a layer's units put out; `own_units` are this rank's in its order.
[[nodiscard]] FeatureOwners feature_owners(const LayerPartition& units,
                                           std::int64_t features_per_unit,
                                           const std::vector<std::uint32_t>& own_units);

/// A number of images that is a whole number of panels on each rank, whose panels are `width`
/// images wide. All ranks call it.
[[nodiscard]] std::int64_t common_panels(Communicator& comm, std::int64_t width);

/// A batch in panels as chunks whose exchanges are hidden behind one another's work: two halves,
/// the first no smaller, or all of it where that has no more than `grain` images.
[[nodiscard]] std::vector<Range> halves(std::int64_t batch, std::int64_t width, std::int64_t grain);

/// Memory of messages. Ranks of this process read them where they are and may hold on to them, so
/// that each comes back by itself. Copies share it.
class MessagePool {
 public:
  MessagePool();
  /// So many bytes, not set; they come back when nobody has them any more, from any thread.
  [[nodiscard]] std::shared_ptr<std::byte> take(std::size_t bytes) const;
  /// What was allocated so far.
  [[nodiscard]] std::int64_t bytes() const;

 private:
  struct Blocks;
  std::shared_ptr<Blocks> blocks_;
};

/// Where messages lie. Exchanges of which one ends before the other begins may share it.
struct HaloRoom {
  MessagePool messages;         ///< of the CPU, and nothing else
  Buffer own_side, input_side;  ///< messages of owned features, and of the halo's
  Buffer own_host, input_host;  ///< the same on their way through the host; empty without one
};

/// The exchanges of one halo, for panels in the memory of a device, which packs and unpacks what
/// they send. From a GPU a message goes to other GPUs as it is where the communicator reaches them
/// (`Communicator::reaches_devices`), else through pinned memory of the host. A batch goes in
/// chunks, each a range of panels; several may be under way, and all ranks begin and end them in
/// the same order. Messages hold the images of a batch alone, not the rest of its last panel, so
/// that panels may be of another width on each rank, as long as chunks are of the same images. CPU
/// ranks of an in-process group read each other's messages where they are.
template <class T>
class HaloExchange {
 public:
  /// Room for `most_images` images. The halo, the communicator and the device must live as long;
  /// calls get the same stream.
  HaloExchange(const Halo& halo, Communicator& comm, Device& device, Stream& stream,
               std::int64_t most_images);
  /// In `room`, which grows as is needed and must live as long.
  HaloExchange(const Halo& halo, Communicator& comm, Device& device, Stream& stream,
               std::int64_t most_images, HaloRoom& room);
  HaloExchange(const HaloExchange&) = delete;
  HaloExchange& operator=(const HaloExchange&) = delete;
  ~HaloExchange();

  /// Sends what others read of `own` and copies what this rank reads itself to `inputs`. What goes
  /// through the host is sent no later than by the end of this exchange.
  void start_forward(const Panels<const T>& own, const Panels<T>& inputs, Range panels,
                     Stream& stream);
  /// Puts what came into its rows of `inputs`.
  void finish_forward(const Panels<T>& inputs, Range panels, Stream& stream);
  /// Sends the halo's rows of `inputs` to their owners; `own` becomes what this rank itself adds, 0
  /// where it adds nothing.
  void start_backward(const Panels<const T>& inputs, const Panels<T>& own, Range panels,
                      Stream& stream);
  /// Adds what came to `own`, in order of rank.
  void finish_backward(const Panels<T>& own, Range panels, Stream& stream);
  /// Sends all that is still to be sent. Comes before another exchange on the same communicator
  /// that begins and ends meanwhile: the others began this one first.
  void send_now(Stream& stream);
  /// The rows of `inputs` that this rank owns go to their rows of `own`; nothing is sent.
  void keep_own(const Panels<const T>& inputs, const Panels<T>& own, Range panels, Stream& stream);

  /// On the device, and pinned on the host beside it.
  [[nodiscard]] std::int64_t device_bytes() const;
  [[nodiscard]] std::int64_t host_bytes() const;
  /// Bytes this rank sent so far.
  [[nodiscard]] std::int64_t forward_bytes() const { return forward_bytes_; }
  [[nodiscard]] std::int64_t backward_bytes() const { return backward_bytes_; }

 private:
  /// Rows of messages in the device's memory.
  struct Rows {
    const std::uint32_t* data = nullptr;
    std::int64_t count = 0;
  };
  /// One side of the halo: who it goes to or comes from, and its messages.
  struct Side {
    const std::vector<HaloPiece>& pieces;
    std::vector<Rows> rows;  ///< by piece, or all of them at once
    std::int64_t words = 0;  ///< of all, for an image
    Buffer& room;
    Buffer& host;
  };
  struct UnderWay {
    std::vector<Communicator::Message> sends, receives;
    std::unique_ptr<Event> packed;  ///< null on the CPU, which has packed by then
    bool is_sent = false;
    std::unique_ptr<Communicator::Pending> pending;
    std::vector<const T*> messages;  ///< by entry of `Side::rows`, once received
  };
  /// What is added to own rows: to row `rows[i]` the message's rows `sources[offsets[i]]` ….
  struct Sums {
    Rows rows, offsets, sources;
  };
  HaloExchange(const Halo& halo, Communicator& comm, Device& device, Stream& stream,
               std::int64_t most_images, std::unique_ptr<HaloRoom> own, HaloRoom* shared);
  [[nodiscard]] Rows to_device(const std::vector<std::uint32_t>& list, Stream& stream);
  void list_rows(Stream& stream);
  void list_sums(Stream& stream);
  void start(const Panels<const T>& from, Side& out, Side& in, Range panels, Stream& stream,
             std::int64_t& bytes);
  void send(UnderWay& exchange, Stream& stream);
  [[nodiscard]] std::vector<Communicator::Message> place(Side& side, std::int64_t before,
                                                         std::int64_t images);
  [[nodiscard]] UnderWay receive(Side& in, std::int64_t before, std::int64_t images,
                                 Stream& stream);

  const Halo& halo_;
  Communicator& comm_;
  Device& device_;
  const MessageKernels<T>& kernels_;
  bool on_host_;  ///< the device's memory is the host's
  bool staged_;   ///< messages go through the host
  std::unique_ptr<HaloRoom> own_room_;
  HaloRoom& room_;
  Side own_side_, input_side_;
  Rows own_from_, own_to_;
  std::vector<Sums> sums_;                ///< by entry of the own side's rows; made when first used
  std::vector<std::uint32_t> ascending_;  ///< 0, 1, …: on the CPU a message has a row once
  std::vector<Buffer> uploaded_;
  std::deque<UnderWay> under_way_;
  std::int64_t forward_bytes_ = 0, backward_bytes_ = 0;
};

}  // namespace spdnn
