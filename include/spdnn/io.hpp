// Reading, writing and generating networks and images. Every reader validates what it reads and
// throws `InputError` naming file and line; every writer writes a temporary file and renames it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "spdnn/model.hpp"

namespace spdnn {

/// Where binary caches are kept and whether they are used at all.
struct CachePolicy {
  bool use = true;
  /// Used when the folder of the source can't be written; `$XDG_CACHE_HOME/spdnn-gpu` when empty.
  std::filesystem::path fallback_dir;
};

/// How a file was obtained, for reports.
struct ReadReport {
  std::int64_t bytes = 0;  ///< read from text or mapped from the cache
  bool from_cache = false;
  std::string cache_note;  ///< why a cache was rebuilt or could not be written; else empty
  std::filesystem::path cache_file;
  std::string origin;  ///< "official files" or what a generated cache says of itself
};

/// The official bias for N neurons (−0.30, −0.35, −0.40, −0.45 for the four official sizes).
[[nodiscard]] std::optional<float> graph_challenge_bias(std::int64_t neurons);

/// Reads `data_dir/neuronN/nN-lL.tsv`, L = 1 … layers, as weights `[N × N]` (a line `i j v` becomes
/// row j − 1, column i − 1; columns ascending), through the cache `data_dir/neuronN/nN-L.spdnn`.
/// A cache that a generator wrote is used where the text files are absent.
/// Layers are parsed in parallel on the usable cores.
[[nodiscard]] std::vector<Csr> read_graph_challenge_weights(const std::filesystem::path& data_dir,
                                                            std::int64_t neurons,
                                                            std::int64_t layers,
                                                            const CachePolicy& cache,
                                                            ReadReport* report = nullptr);

/// Reads `data_dir/sparse-images-N.tsv` as `[images × N]`, through a cache beside it. Images are
/// the largest id in the file, or `count` when given: then the first so many.
[[nodiscard]] Csr read_graph_challenge_images(const std::filesystem::path& data_dir,
                                              std::int64_t neurons,
                                              std::optional<std::int64_t> count,
                                              const CachePolicy& cache,
                                              ReadReport* report = nullptr);

/// Path of the truth file `data_dir/neuronN-lL-categories.tsv`.
[[nodiscard]] std::filesystem::path categories_path(const std::filesystem::path& data_dir,
                                                    std::int64_t neurons, std::int64_t layers);
/// Reads category ids (1-based in the file, 0-based here, ascending). Ids above `max_images` are an
/// error: no file names more images than the input file has.
[[nodiscard]] std::vector<std::int64_t> read_categories(const std::filesystem::path& file,
                                                        std::int64_t max_images);
/// Writes category ids, 1-based, one a line.
void write_categories(const std::filesystem::path& file, const std::vector<std::int64_t>& ids);

/// Matrices `[rows × cols]` in one binary file: any list of CSR matrices with a line that says
/// where they come from. Used as cache and as the project's own format for networks and images.
void write_cache(const std::filesystem::path& file, const std::vector<Csr>& matrices,
                 const std::string& origin);
/// Maps a file of `write_cache` and checks version, sizes and checksums of all of it. Throws
/// `InputError` with the reason when it can't be trusted.
[[nodiscard]] std::vector<Csr> read_cache(const std::filesystem::path& file,
                                          std::string* origin = nullptr);

/// Images of an MNIST idx file (magic 2051), plain or gzip-compressed.
struct IdxImages {
  std::int64_t count = 0, height = 0, width = 0;
  std::vector<std::uint8_t> pixels;  ///< [count][height][width]
};
[[nodiscard]] IdxImages read_idx_images(const std::filesystem::path& file);
/// Labels of an MNIST idx file (magic 2049), plain or gzip-compressed.
[[nodiscard]] std::vector<std::uint8_t> read_idx_labels(const std::filesystem::path& file);

/// A RadiX-Net network as the Graph Challenge builds them.
///
/// With B = `fold` and C = neurons / B classes (a power of two), layer l (from 1) connects input i
/// to output j exactly when j mod C ∈ {g(i), (g(i) − 2^k) mod C}, k = (l − 1) mod log2 C. g(i) = i
/// mod C in the first log2 C layers; each later group of log2 C layers has one random permutation
/// of its own. Every row has 2·B entries of value `weight`.
struct RadixNetSpec {
  std::int64_t neurons = 1024;
  std::int64_t layers = 120;
  std::int64_t fold = 16;  ///< neurons / fold must be a power of two ≥ 2
  float weight = 0.0625F;
  std::uint64_t seed = 1;
};
/// Throws `InputError` where the spec is not one that can be built.
void validate(const RadixNetSpec& spec);
/// One layer, 0 ≤ layer < spec.layers, columns ascending. Equal for equal specs on every machine.
[[nodiscard]] Csr radixnet_layer(const RadixNetSpec& spec, std::int64_t layer);
[[nodiscard]] std::string radixnet_origin(const RadixNetSpec& spec);

/// Handwritten-like digits drawn procedurally (strokes, random slant, thickness and position):
/// `count` images of 28 × 28 grey values, equal for equal seeds. For where no data exist.
[[nodiscard]] IdxImages draw_digits(std::int64_t count, std::uint64_t seed);

/// Makes Graph Challenge input of grey images: transposed, resized to √neurons × √neurons by
/// Fourier interpolation of all images together, on where above half of the largest value of all.
/// `[images × neurons]`, all values 1. MNIST's 60,000 training images give the official input
/// files; fewer give slightly different ones, so make all and take the first rows.
[[nodiscard]] Csr challenge_images(const IdxImages& images, std::int64_t neurons);

/// What `generate` reports while it works: layers or images done, of how many.
using GenerateProgress = void (*)(std::int64_t done, std::int64_t total, void* user);

/// Writes a generated network where `read_graph_challenge_weights` finds it: the cache alone, or
/// the text files too. Works one layer at a time, so that size is bound by the disk alone.
void generate_graph_challenge_weights(const std::filesystem::path& data_dir,
                                      const RadixNetSpec& spec, bool tsv,
                                      GenerateProgress progress = nullptr, void* user = nullptr);
/// Writes generated images where `read_graph_challenge_images` finds them.
void generate_graph_challenge_images(const std::filesystem::path& data_dir, const Csr& images,
                                     const std::string& origin, bool tsv);

/// Writes a file as a whole: to a temporary name beside it, then renamed. Throws `SystemError`.
void write_file_atomically(const std::filesystem::path& file, std::string_view content);

}  // namespace spdnn
