// Partitions that need no search, and what every partition must be.
#include "spdnn/partition.hpp"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <numeric>

#include "spdnn/random.hpp"

namespace spdnn {
namespace {

void check_parts(std::int64_t parts) {
  if (parts < 1 || parts > kMaxParts) {
    throw InputError(fmt::format("{} parts; give 1 to {}", parts, kMaxParts));
  }
}

/// Hashes numbers as a stream of 32-bit words, so that how a matrix stores them makes no
/// difference.
class WordHash {
 public:
  WordHash() : state_(XXH3_createState()) {
    if (state_ == nullptr) throw std::bad_alloc();
    XXH3_64bits_reset(state_.get());
  }
  void add(const void* words, std::int64_t count) {
    XXH3_64bits_update(state_.get(), words, static_cast<std::size_t>(count) * 4);
  }
  void add(std::int64_t number) { add(&number, 2); }
  void add_widened(const std::uint16_t* numbers, std::int64_t count) {
    std::array<std::uint32_t, 1024> words{};
    for (std::int64_t first = 0; first < count; first += std::ssize(words)) {
      const std::int64_t some = std::min<std::int64_t>(std::ssize(words), count - first);
      std::copy_n(numbers + first, some, words.begin());
      add(words.data(), some);
    }
  }
  [[nodiscard]] std::uint64_t value() const { return XXH3_64bits_digest(state_.get()); }

 private:
  struct Free {
    void operator()(XXH3_state_t* state) const { XXH3_freeState(state); }
  };
  std::unique_ptr<XXH3_state_t, Free> state_;
};

void add_pattern(WordHash& hash, const CsrView& matrix) {
  hash.add(matrix.rows);
  hash.add(matrix.cols);
  for (std::int64_t row = 0; row < matrix.rows; ++row) hash.add(matrix.row_begin(row + 1));
  if (matrix.index_type == DType::u16) {
    hash.add_widened(static_cast<const std::uint16_t*>(matrix.col_indices), matrix.nnz);
  } else {
    hash.add(matrix.col_indices, matrix.nnz);
  }
}

/// Calls `owner(layer index, matrix)` for the owners of each layer's rows.
template <class Owners>
Partition by_layer(const Model& model, int parts, Owners owners) {
  check_parts(parts);
  Partition partition{model_key(model), {}};
  const std::vector<CsrView> weights = partitioned_weights(model);
  for (std::size_t l = 0; l < weights.size(); ++l) {
    partition.layers.push_back(partition_by_owners(owners(l, weights[l]), parts));
  }
  return partition;
}

/// Contiguous rows: a row goes to the part in whose share of the weights its middle lies.
std::vector<std::uint32_t> contiguous_owners(const CsrView& matrix,
                                             const std::vector<double>& speeds) {
  const double all = std::accumulate(speeds.begin(), speeds.end(), 0.0);
  const bool by_rows = matrix.nnz == 0;
  const auto total = static_cast<double>(by_rows ? matrix.rows : matrix.nnz);
  std::vector<std::uint32_t> owners(static_cast<std::size_t>(matrix.rows));
  std::size_t part = 0;
  double share_end = speeds.front();
  for (std::int64_t row = 0; row < matrix.rows; ++row) {
    const std::int64_t twice =
        by_rows ? 2 * row + 1 : matrix.row_begin(row) + matrix.row_begin(row + 1);
    const double middle = static_cast<double>(twice) / 2.0 / total * all;
    while (middle > share_end && part + 1 < speeds.size()) share_end += speeds[++part];
    owners[row] = static_cast<std::uint32_t>(part);
  }
  return owners;
}

void validate_layer(const LayerPartition& layer, std::int64_t rows, int parts, std::size_t index) {
  const auto fail = [&](const std::string& what) {
    throw InputError(fmt::format("partition, layer {}: {}", index + 1, what));
  };
  if (std::ssize(layer.offsets) != parts + 1) {
    fail(fmt::format("{} parts, but layer 1 has {}", std::ssize(layer.offsets) - 1, parts));
  }
  if (std::ssize(layer.rows) != rows) {
    fail(fmt::format("{} rows, but the network's layer has {}", layer.rows.size(), rows));
  }
  if (layer.offsets.front() != 0 || layer.offsets.back() != rows ||
      !std::is_sorted(layer.offsets.begin(), layer.offsets.end())) {
    fail(fmt::format("offsets must ascend from 0 to the {} rows", rows));
  }
  std::vector<bool> owned(static_cast<std::size_t>(rows));
  for (int part = 0; part < parts; ++part) {
    for (std::int64_t k = layer.offsets[part]; k < layer.offsets[part + 1]; ++k) {
      const std::uint32_t row = layer.rows[k];
      if (row >= rows) fail(fmt::format("part {} owns row {} of {}", part, row, rows));
      if (owned[row]) fail(fmt::format("row {} is owned twice", row));
      owned[row] = true;
      if (k > layer.offsets[part] && layer.rows[k - 1] > row) {
        fail(fmt::format("rows of part {} are not ascending at row {}", part, row));
      }
    }
  }
}

}  // namespace

int Partition::parts() const {
  return layers.empty() ? 0 : static_cast<int>(std::ssize(layers.front().offsets)) - 1;
}

std::vector<CsrView> partitioned_weights(const Model& model) {
  std::vector<CsrView> weights;
  for (const Layer& layer : model.layers) {
    const auto* linear = std::get_if<SparseLinear>(&layer);
    if (linear == nullptr) {
      throw InputError(
          fmt::format("layer {} is not a sparse matrix: only networks of sparse linear layers can "
                      "be partitioned",
                      weights.size() + 1));
    }
    weights.push_back(linear->weights.view());
  }
  return weights;
}

std::uint64_t model_key(const Model& model) {
  WordHash hash;
  for (const CsrView& matrix : partitioned_weights(model)) add_pattern(hash, matrix);
  return hash.value();
}

void validate(const Partition& partition, const Model& model) {
  const std::vector<CsrView> weights = partitioned_weights(model);
  if (partition.layers.size() != weights.size()) {
    throw InputError(fmt::format("the partition has {} layers, but the network has {}",
                                 partition.layers.size(), weights.size()));
  }
  check_parts(partition.parts());
  for (std::size_t l = 0; l < weights.size(); ++l) {
    validate_layer(partition.layers[l], weights[l].rows, partition.parts(), l);
  }
  if (const std::uint64_t key = model_key(model); key != partition.model_key) {
    throw InputError(
        fmt::format("the partition was made for a network with key {:016x}, but this one has "
                    "{:016x}: same widths, other weights; partition this network",
                    partition.model_key, key));
  }
}

std::vector<std::uint32_t> owners_of(const LayerPartition& layer) {
  std::vector<std::uint32_t> owners(layer.rows.size());
  for (std::size_t part = 0; part + 1 < layer.offsets.size(); ++part) {
    for (std::int64_t k = layer.offsets[part]; k < layer.offsets[part + 1]; ++k) {
      owners[layer.rows[k]] = static_cast<std::uint32_t>(part);
    }
  }
  return owners;
}

LayerPartition partition_by_owners(std::span<const std::uint32_t> owners, int parts) {
  check_parts(parts);
  LayerPartition layer;
  layer.offsets.assign(static_cast<std::size_t>(parts) + 1, 0);
  for (std::size_t row = 0; row < owners.size(); ++row) {
    if (owners[row] >= static_cast<std::uint32_t>(parts)) {
      throw InputError(fmt::format("row {} belongs to part {}, but there are {} parts, from 0 on",
                                   row, owners[row], parts));
    }
    ++layer.offsets[owners[row] + 1];
  }
  std::partial_sum(layer.offsets.begin(), layer.offsets.end(), layer.offsets.begin());
  layer.rows.resize(owners.size());
  std::vector<std::int64_t> next(layer.offsets.begin(), layer.offsets.end() - 1);
  for (std::size_t row = 0; row < owners.size(); ++row) {
    layer.rows[next[owners[row]]++] = static_cast<std::uint32_t>(row);
  }
  return layer;
}

Partition block_partition(const Model& model, int parts) {
  check_parts(parts);
  return proportional_partition(model, std::vector<double>(static_cast<std::size_t>(parts), 1.0));
}

void check_speeds(const std::vector<double>& speeds) {
  check_parts(std::ssize(speeds));
  const bool usable = std::all_of(speeds.begin(), speeds.end(),
                                  [](double s) { return std::isfinite(s) && s >= 0.0; });
  if (!usable || !(std::accumulate(speeds.begin(), speeds.end(), 0.0) > 0.0)) {
    throw InputError("speeds of parts must be finite and not negative, and not all 0");
  }
}

Partition proportional_partition(const Model& model, const std::vector<double>& speeds) {
  check_speeds(speeds);
  return by_layer(model, static_cast<int>(std::ssize(speeds)),
                  [&](std::size_t, const CsrView& m) { return contiguous_owners(m, speeds); });
}

Partition cyclic_partition(const Model& model, int parts) {
  return by_layer(model, parts, [&](std::size_t, const CsrView& matrix) {
    std::vector<std::uint32_t> owners(static_cast<std::size_t>(matrix.rows));
    for (std::size_t row = 0; row < owners.size(); ++row) {
      owners[row] = static_cast<std::uint32_t>(row % static_cast<std::size_t>(parts));
    }
    return owners;
  });
}

Partition random_partition(const Model& model, int parts, std::uint64_t seed) {
  return by_layer(model, parts, [&](std::size_t layer, const CsrView& matrix) {
    std::vector<std::uint32_t> owners =
        random_permutation(static_cast<std::uint32_t>(matrix.rows), Random(seed, layer));
    for (std::uint32_t& owner : owners) owner %= static_cast<std::uint32_t>(parts);
    return owners;
  });
}

}  // namespace spdnn
