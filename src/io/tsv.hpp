// Matrices from text: one entry a line, `first second value`, ids counted from 1.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "spdnn/matrix.hpp"
#include "tsv_chunk.hpp"

namespace spdnn {

class InputFile;

/// Bytes of text parsed at once; with what is made of them they stay in a core's L2 cache.
inline constexpr std::int64_t kTsvChunkBytes = std::int64_t{1} << 20;

/// Reads files of one format, in parallel within a file. Keeps its scratch memory between files;
/// used from one thread.
class TsvReader {
 public:
  TsvReader(TsvFormat format, int threads, std::int64_t chunk_bytes = kTsvChunkBytes);

  /// The matrix a file describes, columns ascending. Throws `InputError` for the first line that is
  /// not an entry or repeats one.
  [[nodiscard]] Csr read(const std::filesystem::path& file);

 private:
  template <class Index>
  [[nodiscard]] Csr read_as(const InputFile& file, const TsvFormat& format);

  TsvFormat format_;
  std::int64_t chunk_bytes_;
  std::vector<TsvParser> parsers_;  ///< one for each thread
};

}  // namespace spdnn
