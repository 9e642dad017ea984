// The Graph Challenge's files: names, contents, and the official bias.
#include "graph_challenge.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <limits>
#include <system_error>
#include <utility>

#include "cached_text.hpp"
#include "parallel.hpp"
#include "spdnn/io.hpp"
#include "tsv.hpp"

namespace spdnn {
namespace {

namespace fs = std::filesystem;

/// Neurons and images are counted in 32 bits.
constexpr std::int64_t kMaxId = std::numeric_limits<std::int32_t>::max();
/// Layers parsed together, before they go to the cache, hold about this much text (bytes); as
/// matrices they take an eighth of it.
constexpr std::int64_t kWindowBytes = std::int64_t{1} << 28;

void check_count(std::string_view what, std::int64_t count) {
  if (count < 1 || count > kMaxId) {
    throw InputError(fmt::format("{} {}: must be from 1 to {}", count, what, kMaxId));
  }
}

TsvFormat weights_format(std::int64_t neurons) {
  return {.first = {"input neuron", neurons},
          .second = {"output neuron", neurons},
          .row_first = false,
          .rows_from_file = false,
          .missing_remedy = "put the layer there, or ask for fewer layers",
          .remedy = fmt::format("is the file of a network of {} neurons?", neurons)};
}

TsvFormat images_format(std::int64_t neurons) {
  return {.first = {"image", kMaxId},
          .second = {"neuron", neurons},
          .row_first = true,
          .rows_from_file = true,
          .missing_remedy = "put the images there",
          .remedy = fmt::format("are the images of {} pixels?", neurons)};
}

/// The first file of the window after the one that begins at `begin`.
std::size_t window_end(const std::vector<fs::path>& files, std::size_t begin, int threads) {
  std::int64_t bytes = 0;
  std::size_t end = begin;
  while (end < files.size() &&
         (bytes < kWindowBytes || end - begin < static_cast<std::size_t>(threads))) {
    std::error_code error;
    const auto size = fs::file_size(files[end++], error);
    if (!error) bytes += static_cast<std::int64_t>(size);
  }
  return end;
}

/// Parses all layers, several at once, and gives them away in order.
void parse_layers(const std::vector<fs::path>& files, std::int64_t neurons,
                  const std::function<void(Csr)>& take) {
  const int threads = reader_threads();
  const int at_once = static_cast<int>(std::min<std::int64_t>(threads, std::ssize(files)));
  std::vector<TsvReader> readers;
  readers.reserve(static_cast<std::size_t>(at_once));
  for (int i = 0; i < at_once; ++i)
    readers.emplace_back(weights_format(neurons), threads / at_once);
  for (std::size_t begin = 0; begin < files.size();) {
    const std::size_t end = window_end(files, begin, threads);
    std::vector<Csr> layers(end - begin);
    for_each_piece(std::ssize(layers), at_once, [&](std::int64_t piece, std::size_t worker) {
      const auto layer = static_cast<std::size_t>(piece);
      layers[layer] = readers[worker].read(files[begin + layer]);
    });
    for (Csr& layer : layers) take(std::move(layer));
    begin = end;
  }
}

/// Keeps a whole matrix for a view of its first rows.
class WholeMatrix final : public Storage {
 public:
  explicit WholeMatrix(Csr whole) : whole_(std::move(whole)) {}
  void prefetch() const override { whole_.storage()->prefetch(); }
  void release() const override { whole_.storage()->release(); }

 private:
  Csr whole_;
};

std::string shape_text(const Csr& matrix) {
  return fmt::format("{} × {}", matrix.rows(), matrix.cols());
}

}  // namespace

std::optional<float> graph_challenge_bias(std::int64_t neurons) {
  switch (neurons) {
    case 1024: return -0.30F;
    case 4096: return -0.35F;
    case 16384: return -0.40F;
    case 65536: return -0.45F;
    default: return std::nullopt;
  }
}

fs::path layer_path(const fs::path& data_dir, std::int64_t neurons, std::int64_t layer) {
  return data_dir / fmt::format("neuron{}", neurons) / fmt::format("n{}-l{}.tsv", neurons, layer);
}

fs::path weights_cache_path(const fs::path& data_dir, std::int64_t neurons, std::int64_t layers) {
  return data_dir / fmt::format("neuron{}", neurons) / fmt::format("n{}-{}.spdnn", neurons, layers);
}

fs::path images_path(const fs::path& data_dir, std::int64_t neurons) {
  return data_dir / fmt::format("sparse-images-{}.tsv", neurons);
}

fs::path images_cache_path(const fs::path& data_dir, std::int64_t neurons) {
  return data_dir / fmt::format("sparse-images-{}.spdnn", neurons);
}

std::vector<Csr> read_graph_challenge_weights(const fs::path& data_dir, std::int64_t neurons,
                                              std::int64_t layers, const CachePolicy& cache,
                                              ReadReport* report) {
  check_count("neurons", neurons);
  check_count("layers", layers);
  CachedText source;
  for (std::int64_t layer = 1; layer <= layers; ++layer) {
    source.texts.push_back(layer_path(data_dir, neurons, layer));
  }
  source.cache = weights_cache_path(data_dir, neurons, layers);
  source.missing_remedy = fmt::format(
      "put all {} layers there, ask for fewer layers, or generate a network (spdnn-gpu generate)",
      layers);
  source.parse = [&](const std::function<void(Csr)>& take) {
    parse_layers(source.texts, neurons, take);
  };
  source.mismatch = [&](const std::vector<Csr>& matrices) -> std::optional<std::string> {
    if (std::ssize(matrices) != layers) {
      return fmt::format("holds {} layers, but {} are needed", matrices.size(), layers);
    }
    for (const Csr& matrix : matrices) {
      if (matrix.rows() != neurons || matrix.cols() != neurons) {
        return fmt::format("holds a layer of {}, but {} × {} is needed", shape_text(matrix),
                           neurons, neurons);
      }
    }
    return std::nullopt;
  };
  ReadReport ignored;
  return read_cached_text(source, cache, report != nullptr ? *report : ignored);
}

Csr read_graph_challenge_images(const fs::path& data_dir, std::int64_t neurons,
                                std::optional<std::int64_t> count, const CachePolicy& cache,
                                ReadReport* report) {
  check_count("neurons", neurons);
  if (count) check_count("images", *count);
  const fs::path text = images_path(data_dir, neurons);
  CachedText source;
  source.texts = {text};
  source.cache = images_cache_path(data_dir, neurons);
  source.missing_remedy = "put the images there, or generate some (spdnn-gpu generate)";
  source.parse = [&](const std::function<void(Csr)>& take) {
    take(TsvReader(images_format(neurons), reader_threads()).read(text));
  };
  source.mismatch = [&](const std::vector<Csr>& matrices) -> std::optional<std::string> {
    if (matrices.size() != 1) {
      return fmt::format("holds {} matrices, but images are one", matrices.size());
    }
    if (matrices[0].cols() == neurons) return std::nullopt;
    return fmt::format("holds images of {} pixels, but {} are needed", matrices[0].cols(), neurons);
  };
  ReadReport ignored;
  Csr images = read_cached_text(source, cache, report != nullptr ? *report : ignored).front();
  if (!count || *count == images.rows()) return images;
  if (*count > images.rows()) {
    throw InputError(text, fmt::format("{} images were asked for, but it holds {}; ask for at most "
                                       "so many",
                                       *count, images.rows()));
  }
  const CsrView first = images.view().slice_rows({0, *count});
  return {first, std::make_shared<WholeMatrix>(std::move(images))};
}

fs::path categories_path(const fs::path& data_dir, std::int64_t neurons, std::int64_t layers) {
  return data_dir / fmt::format("neuron{}-l{}-categories.tsv", neurons, layers);
}

}  // namespace spdnn
