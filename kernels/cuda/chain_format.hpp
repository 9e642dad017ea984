// The weights of `chain_resident`: a stream of chunks that blocks copy to shared memory one after
// another, each holding some row blocks of one layer. Plain C++, built on the host.
//
// A chunk begins with its jobs; the data follow, each piece at a multiple of 16 bytes: a job's row
// ids (u16), its list of columns (u16), and where values differ, these, interleaved `[entry][row]`.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "spdnn/matrix.hpp"

namespace spdnn::cuda {

inline constexpr int kChainUnit = 16;           ///< bytes; what a thread copies at once
inline constexpr int kChainColumns = 8;         ///< columns of one unit
inline constexpr int kChainChunkBytes = 16384;  ///< two of them stand beside the activations

/// A block of rows that share a list. Where its data are is counted in units from the chunk's
/// start.
struct alignas(kChainUnit) ChainJob {
  std::int32_t entries = 0;
  std::uint16_t rows = 0;  ///< 16, 8, 4, 2 or 1
  std::uint16_t rows_at = 0, list_at = 0, values_at = 0;
};

struct ChainChunk {
  std::int64_t begin = 0;  ///< units from the stream's start
  std::int32_t units = 0;
  std::int32_t jobs = 0;
};

struct ChainFormatLayer {
  std::int64_t chunk_begin = 0, chunk_end = 0;
  float shared_weight = 0.0F;  ///< where all values of the matrix are equal
};

struct alignas(kChainUnit) ChainUnit {
  std::uint16_t words[kChainColumns];
};

struct ChainFormat {
  std::vector<ChainUnit> stream;
  std::vector<ChainChunk> chunks;
  std::vector<ChainFormatLayer> layers;
};

/// Most entries a row may have so that it fits a chunk by itself.
[[nodiscard]] std::int64_t most_chain_entries(bool shared_value);

/// Makes the stream of matrices in host memory (u16 or u32 columns below 65536, f32 values). A
/// layer of few rows gets smaller jobs, so that there is one for each of `workers`. A matrix of one
/// value has none in the stream only if `shared_values`. Throws `DeviceError` for a row that is
/// longer than `most_chain_entries`.
[[nodiscard]] ChainFormat build_chain(std::span<const CsrView> layers, std::int64_t workers,
                                      bool shared_values);

}  // namespace spdnn::cuda
