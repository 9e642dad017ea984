// What the rows of one rank read of the others' (Demirci and Ferhatosmanoglu, ICS 2021): halo
// lists, computed once, and the exchanges they ask for with every batch.
//
// A rank owns some of the features between two layers and reads some: its own and the halo. Before
// a layer every owner sends the features that others read; on the way back the readers send their
// parts of the gradient the opposite way, to be added up at the owner.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "spdnn/comm.hpp"
#include "spdnn/partition.hpp"

namespace spdnn {

/// Features that go to, or come from, one rank.
struct HaloPiece {
  int peer = 0;
  std::vector<std::uint32_t> rows;
};

/// One rank's side of the features between two layers. Features it owns are counted in an order of
/// its own (`own`), those it reads in ascending order of their original numbers (`inputs`).
struct Halo {
  std::int64_t own = 0, inputs = 0;
  std::vector<HaloPiece> sends;     ///< rows of own; by peer, none empty
  std::vector<HaloPiece> receives;  ///< rows of inputs; by peer, none empty
  /// Own features that the rank reads itself: row `own_from[i]` of own is `own_to[i]` of inputs.
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
/// What a rank reads of the features between two layers: `needed`, ascending.
struct HaloRequest {
  FeatureOwners features;
  std::vector<std::uint32_t> needed;
};
/// Finds what crosses between all layers at once. All ranks call it, with as many requests.
[[nodiscard]] std::vector<Halo> make_halos(Communicator& comm,
                                           std::span<const HaloRequest> requests);
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
[[nodiscard]] RowSlice slice_rows(int rank, const RowPattern& rows, const InputItems& items,
                                  const FeatureOwners* before);

/// The original features of units (neurons, filters, channels), which have so many each.
[[nodiscard]] std::vector<std::uint32_t> features_of(const std::vector<std::uint32_t>& units,
                                                     std::int64_t features_per_unit);
/// Units of one part.
[[nodiscard]] std::span<const std::uint32_t> part_of(const LayerPartition& partition, int part);
/// Who owns the features that a layer's units put out; `own_units` are this rank's in its order.
[[nodiscard]] FeatureOwners feature_owners(const LayerPartition& units,
                                           std::int64_t features_per_unit,
                                           const std::vector<std::uint32_t>& own_units);

/// Where messages lie. Exchanges of which one ends before the other begins may share it.
template <class T>
struct HaloRoom {
  std::vector<T> own_side, input_side;  ///< messages of owned features, and of the halo's
};

/// The exchanges of one halo, for panels of CPU memory. A batch goes in chunks, each a range of
/// panels; several may be under way, and all ranks begin them in the same order. Messages hold the
/// images of a batch alone, not the rest of its last panel.
template <class T>
class HaloExchange {
 public:
  /// Room for `most_images` images. The halo and the communicator must live as long.
  HaloExchange(const Halo& halo, Communicator& comm, std::int64_t most_images);
  /// In `room`, which grows as is needed and must live as long.
  HaloExchange(const Halo& halo, Communicator& comm, std::int64_t most_images, HaloRoom<T>& room);
  HaloExchange(const HaloExchange&) = delete;
  HaloExchange& operator=(const HaloExchange&) = delete;
  ~HaloExchange();

  /// Sends what others read of `own` and copies what this rank reads itself to `inputs`.
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

  [[nodiscard]] std::int64_t buffer_bytes() const;
  /// Bytes this rank sent so far.
  [[nodiscard]] std::int64_t forward_bytes() const { return forward_bytes_; }
  [[nodiscard]] std::int64_t backward_bytes() const { return backward_bytes_; }

 private:
  struct UnderWay {
    Range panels;
    std::unique_ptr<Communicator::Pending> pending;
  };
  void start(const Panels<const T>& from, const std::vector<HaloPiece>& out, std::vector<T>& sent,
             const std::vector<HaloPiece>& in, std::vector<T>& received, Range panels,
             Stream& stream, std::int64_t& bytes);
  void wait_for(Range panels);
  void make_room(std::int64_t most_images);

  const Halo& halo_;
  Communicator& comm_;
  std::unique_ptr<HaloRoom<T>> own_room_;
  HaloRoom<T>& room_;
  std::vector<UnderWay> under_way_;
  std::int64_t forward_bytes_ = 0, backward_bytes_ = 0;
};

}  // namespace spdnn
