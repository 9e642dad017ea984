// Who owns which rows of each layer, and what that makes cross between the owners.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "spdnn/model.hpp"

namespace spdnn {

/// The rows of one layer by owner: a permutation plus offsets. Part p owns the original rows
/// `rows[offsets[p] .. offsets[p + 1])`, ascending within a part. A part may be empty.
struct LayerPartition {
  std::vector<std::uint32_t> rows;
  std::vector<std::int64_t> offsets;
};

/// The rows of every layer of the network whose `model_key` it carries.
struct Partition {
  std::uint64_t model_key = 0;
  std::vector<LayerPartition> layers;
  [[nodiscard]] int parts() const;  ///< 0 where there are no layers
};

/// A hash of what partitions depend on: the widths of all layers and where their weights stand, not
/// the values. Equal however the matrices are stored. Throws `InputError` where a layer is no
/// sparse matrix, whose rows are what is partitioned.
[[nodiscard]] std::uint64_t model_key(const Model& model);

/// The matrix of each layer. Throws as `model_key` does.
[[nodiscard]] std::vector<CsrView> partitioned_weights(const Model& model);

/// Throws `InputError` naming the layer and part where a row is missing, owned twice or out of
/// order, offsets are not ascending from 0 to the rows, layers disagree in the number of parts, or
/// the partition was made for another network.
void validate(const Partition& partition, const Model& model);

/// The owner of each row.
[[nodiscard]] std::vector<std::uint32_t> owners_of(const LayerPartition& layer);
/// The partition in which row r belongs to `owners[r]`, each below `parts`.
[[nodiscard]] LayerPartition partition_by_owners(std::span<const std::uint32_t> owners, int parts);

/// Most parts there may be.
inline constexpr int kMaxParts = 65535;

/// Throws `InputError` unless there are 1 to `kMaxParts` speeds, finite, not negative, not all 0.
void check_speeds(const std::vector<double>& speeds);

// Partitions that look at no more than how many weights a row has. Each throws `InputError` for
// fewer than 1 or more than `kMaxParts` parts.

/// Contiguous rows, in each layer as near to equal in weights as whole rows come.
[[nodiscard]] Partition block_partition(const Model& model, int parts);
/// Contiguous rows, each part's weights in proportion to its speed (finite, not negative, not all
/// 0).
[[nodiscard]] Partition proportional_partition(const Model& model,
                                               const std::vector<double>& speeds);
/// Row r belongs to part r mod `parts`.
[[nodiscard]] Partition cyclic_partition(const Model& model, int parts);
/// Rows in random order, dealt out evenly: parts differ by one row at most.
[[nodiscard]] Partition random_partition(const Model& model, int parts, std::uint64_t seed);

/// Features that one part sends another.
struct Transfer {
  int from = 0;
  int to = 0;
  std::int64_t words = 0;
  friend bool operator==(const Transfer&, const Transfer&) = default;
};

/// What one layer makes cross, and what each part computes of it. Words are counted for one image;
/// a batch sends so many times more in as many messages.
struct LayerTraffic {
  /// What parts send before they compute this layer: one word for each neuron of the layer before
  /// and each part, other than its owner, that owns a row that reads it. None for the first layer,
  /// whose inputs every part has. Ascending by (from, to); each a message, none empty.
  std::vector<Transfer> transfers;
  std::vector<std::int64_t> nonzeros;  ///< weights of each part's rows
  std::int64_t words = 0;              ///< of all transfers
  std::int64_t max_sent = 0;           ///< words of the part that sends most
  std::int64_t max_received = 0;       ///< words of the part that receives most
};

/// What a network makes cross in one forward pass. A backward pass sends the same words the other
/// way: partial sums of gradients to the owners of the neurons.
struct Traffic {
  std::vector<LayerTraffic> layers;
  std::int64_t words = 0;  ///< the connectivity − 1 of the hypergraph model, exactly
  std::int64_t messages = 0;
  std::int64_t max_sent = 0;      ///< words of the part that sends most, all layers together
  std::int64_t max_received = 0;  ///< words of the part that receives most, all layers together
};

/// Counts what crosses, exactly. Throws as `validate`.
[[nodiscard]] Traffic count_traffic(const Model& model, const Partition& partition);

/// How far the fullest part of any layer is above its share of the layer's weights: 0.03 where it
/// has 3 % more. Shares are in proportion to `speeds`, equal where there are none. A layer without
/// weights counts as balanced; weights of a part of speed 0 make it infinite.
[[nodiscard]] double imbalance(const Traffic& traffic, const std::vector<double>& speeds = {});

/// What a search for few words may do.
struct HypergraphRequest {
  std::vector<double> speeds;  ///< of the parts, relative: their shares of each layer's weights
  double imbalance = 0.03;     ///< a part may exceed its share of a layer by this, or by one row
  std::uint64_t seed = 1;
  double effort = 1.0;            ///< how long to search, relative
  int searches = 4;               ///< from different seeds, of which the best is kept
  int threads = 1;                ///< searches at a time; makes no difference to what is found
  std::int64_t phase_layers = 0;  ///< layers partitioned at once; 0: as suits memory and caches
};

/// Searches the hypergraph of the network (Demirci and Ferhatosmanoglu, ICS 2021) for a partition
/// that sends few words: rows are vertices, neurons are nets, each layer is balanced on its own.
/// Multilevel with annealed refinement; later phases know the owners of the layer before them.
/// Never worse than `cyclic_partition` within the same balance, or `proportional_partition`. Equal
/// requests give equal partitions. Throws `InputError` for a request out of bounds.
[[nodiscard]] Partition hypergraph_partition(const Model& model, const HypergraphRequest& request);

/// Whether this build has Zoltan.
[[nodiscard]] bool have_zoltan();
/// What Zoltan's PHG makes of the layers one after another, each knowing the owners of the one
/// before it, with rows moved where it leaves a part above the limits. Searches, effort, threads
/// and phases are not Zoltan's. Throws `InputError` where the build has no Zoltan, `SystemError`
/// where it fails.
[[nodiscard]] Partition zoltan_partition(const Model& model, const HypergraphRequest& request);

/// Names of the ways of dividing rows, those that this build lacks left out: "random", "block"
/// (rows one after another, in proportion to speeds), "cyclic", "hypergraph", "zoltan".
[[nodiscard]] std::vector<std::string> partition_models();
/// Divides by the way of a name. Throws `InputError` where there is none of that name.
[[nodiscard]] Partition make_partition(const std::string& name, const Model& model,
                                       const HypergraphRequest& request);

/// How the ranks of a run that share a network divide its rows.
struct PartitionSpec {
  std::string model = "auto";  ///< or one of `partition_models()`, or "file"
  std::filesystem::path file;  ///< what `write_partition` wrote, for "file"
  std::uint64_t seed = 1;      ///< of random partitions and searches
  [[nodiscard]] bool chosen() const { return model != "auto"; }
};
/// The partition that a run chose, one part for each of `speeds`. Throws as `read_partition` and
/// `make_partition`.
[[nodiscard]] Partition choose_partition(const PartitionSpec& spec, const Model& model,
                                         const std::vector<double>& speeds);

/// How ranks that share the rows of a network divide the weights of a layer (Moreno-Álvarez et al.,
/// 2021): by outputs, each rank having its units' rows, which read inputs of others, so that inputs
/// are gathered before the layer; or by inputs, each rank having the columns of what it put out
/// itself, so that nothing is told before the layer, and partial sums go to the owners of its units
/// behind it.
enum class LayerSplit : std::uint8_t { outputs, inputs };

/// What really crossed between ranks that share the rows of a network, in bytes, all ranks
/// together, beside what their partition let expect.
struct RowTraffic {
  std::string partition;  ///< its way of dividing, or its file
  int parts = 0;
  std::optional<double> imbalance;  ///< as `imbalance`, over the ranks' shares
  /// Before a layer, or behind it where that is split by inputs, and at the end of the list before
  /// the loss, or where outputs are gathered.
  struct Layer {
    LayerSplit split = LayerSplit::outputs;
    std::int64_t forward = 0, backward = 0;
    std::optional<std::int64_t> predicted_forward, predicted_backward;
  };
  std::vector<Layer> layers;
};

/// Writes a partition as text, whole or not at all: three lines that name the network's key and the
/// number of parts, then the owner of each row, from 0, layer by layer, a line each.
void write_partition(const std::filesystem::path& file, const Partition& partition);
/// Reads such a file, or one without the three lines, as hMETIS, PaToH and Mt-KaHyPar write them
/// for what `write_hypergraph` wrote. Throws `InputError` naming the line of what is wrong, and for
/// a file of another network, or of another number of parts than `parts`.
[[nodiscard]] Partition read_partition(const std::filesystem::path& file, const Model& model,
                                       std::optional<int> parts = std::nullopt);
/// Writes the network's hypergraph in hMETIS's format (.hgr): vertices are the rows, layer by
/// layer, weighted by nonzeros; nets the neurons that are read, inputs of the first layer not among
/// them.
void write_hypergraph(const std::filesystem::path& file, const Model& model);

}  // namespace spdnn
