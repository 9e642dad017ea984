// Builds the stream of `chain_resident`.
#include "cuda/chain_format.hpp"

#include <algorithm>
#include <cstring>
#include <string>

#include "cuda/row_blocks.hpp"

namespace spdnn::cuda {
namespace {

constexpr std::int64_t kUnits = kChainChunkBytes / kChainUnit;

constexpr std::int64_t units_of(std::int64_t bytes) {
  return (bytes + kChainUnit - 1) / kChainUnit;
}

/// Units a job takes, itself included.
std::int64_t job_units(std::int64_t rows, std::int64_t entries, bool shared_values) {
  return 1 + units_of(rows * 2) + units_of(entries * 2) +
         (shared_values ? 0 : units_of(entries * rows * 4));
}

class Builder {
 public:
  Builder(std::int64_t workers, bool shared_values)
      : workers_(workers), shared_values_(shared_values) {}

  void add_layer(const CsrView& csr) {
    csr_ = &csr;
    ChainFormatLayer layer;
    layer.chunk_begin = std::ssize(format_.chunks);
    if (csr.nnz > 0) layer.shared_weight = static_cast<float>(csr.value(0));
    int most = kMostBlockRows;
    while (most > 1 && csr.rows < most * workers_) most /= 2;
    blocks_ = make_row_blocks(csr, most);
    // Threads of a warp work on neighbouring jobs: equal ones, as far as there are.
    std::stable_sort(blocks_.blocks.begin(), blocks_.blocks.end(),
                     [](const RowBlock& a, const RowBlock& b) {
                       return a.rows != b.rows ? a.rows > b.rows : a.entries > b.entries;
                     });
    std::vector<Part> open;
    std::int64_t used = 0;
    for (const RowBlock& block : blocks_.blocks) {
      for (const Part& part : parts_of(block)) {
        const std::int64_t units = job_units(part.rows, block.entries, shared_values_);
        if (used + units > kUnits) {
          close_chunk(open);
          used = 0;
        }
        open.push_back(part);
        used += units;
      }
    }
    close_chunk(open);
    layer.chunk_end = std::ssize(format_.chunks);
    format_.layers.push_back(layer);
  }

  [[nodiscard]] ChainFormat take() { return std::move(format_); }

 private:
  /// Some rows of a block.
  struct Part {
    const RowBlock* block;
    std::int64_t first;  ///< in `blocks_.rows`
    std::int64_t rows;
  };

  /// A block in pieces that fit a chunk.
  [[nodiscard]] std::vector<Part> parts_of(const RowBlock& block) const {
    std::int64_t rows = block.rows;
    while (rows > 1 && job_units(rows, block.entries, shared_values_) > kUnits) rows /= 2;
    if (job_units(rows, block.entries, shared_values_) > kUnits) {
      throw DeviceError("chain_resident: row " + std::to_string(blocks_.rows[block.first]) +
                        " has " + std::to_string(block.entries) + " entries, but a chunk holds " +
                        std::to_string(most_chain_entries(shared_values_)));
    }
    std::vector<Part> parts;
    for (std::int64_t r = 0; r < block.rows; r += rows) {
      parts.push_back({&block, block.first + r, rows});
    }
    return parts;
  }

  void close_chunk(std::vector<Part>& open) {
    if (open.empty()) return;
    ChainChunk chunk;
    chunk.begin = std::ssize(format_.stream);
    chunk.jobs = static_cast<std::int32_t>(open.size());
    format_.stream.resize(format_.stream.size() + open.size());
    for (std::size_t j = 0; j < open.size(); ++j) {
      const ChainJob job = write_data(chunk.begin, open[j]);
      std::memcpy(&format_.stream[static_cast<std::size_t>(chunk.begin) + j], &job, sizeof job);
    }
    chunk.units = static_cast<std::int32_t>(std::ssize(format_.stream) - chunk.begin);
    format_.chunks.push_back(chunk);
    open.clear();
  }

  /// Appends data in whole units; where they begin, counted from the chunk's start.
  template <class T>
  std::uint16_t append(std::int64_t chunk_begin, const std::vector<T>& data) {
    const std::int64_t at = std::ssize(format_.stream);
    const std::size_t bytes = data.size() * sizeof(T);
    format_.stream.resize(
        static_cast<std::size_t>(at + units_of(static_cast<std::int64_t>(bytes))));
    if (bytes > 0) std::memcpy(format_.stream.data() + at, data.data(), bytes);
    return static_cast<std::uint16_t>(at - chunk_begin);
  }

  ChainJob write_data(std::int64_t chunk_begin, const Part& part) {
    const std::int64_t entries = part.block->entries;
    std::vector<std::uint16_t> rows;
    std::vector<std::uint16_t> list;
    std::vector<float> values;
    for (std::int64_t r = 0; r < part.rows; ++r) {
      rows.push_back(static_cast<std::uint16_t>(blocks_.rows[part.first + r]));
    }
    for (std::int64_t k = 0; k < entries; ++k) {
      list.push_back(static_cast<std::uint16_t>(csr_->col(part.block->list + k)));
      for (std::int64_t r = 0; r < part.rows && !shared_values_; ++r) {
        const std::int64_t row = blocks_.rows[part.first + r];
        values.push_back(static_cast<float>(csr_->value(csr_->row_begin(row) + k)));
      }
    }
    ChainJob job;
    job.entries = static_cast<std::int32_t>(entries);
    job.rows = static_cast<std::uint16_t>(part.rows);
    job.rows_at = append(chunk_begin, rows);
    job.list_at = append(chunk_begin, list);
    job.values_at = append(chunk_begin, values);
    return job;
  }

  std::int64_t workers_;
  bool shared_values_;
  const CsrView* csr_ = nullptr;
  RowBlocks blocks_;
  ChainFormat format_;
};

}  // namespace

std::int64_t most_chain_entries(bool shared_value) {
  std::int64_t entries = kChainChunkBytes / (shared_value ? 2 : 6);
  while (job_units(1, entries, shared_value) > kUnits) --entries;
  return entries;
}

ChainFormat build_chain(std::span<const CsrView> layers, std::int64_t workers, bool shared_values) {
  Builder builder(workers, shared_values);
  for (const CsrView& layer : layers) builder.add_layer(layer);
  return builder.take();
}

}  // namespace spdnn::cuda
