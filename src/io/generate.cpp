// Generated networks and images, written where the Graph Challenge readers look for official ones,
// and never over those.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>
#include <iterator>
#include <system_error>

#include "cache.hpp"
#include "files.hpp"
#include "graph_challenge.hpp"
#include "parallel.hpp"
#include "spdnn/io.hpp"

namespace spdnn {
namespace {

namespace fs = std::filesystem;

/// Layers made ahead while others are written, as long as there are several (bytes).
constexpr std::int64_t kBatchBytes = std::int64_t{1} << 28;
constexpr std::string_view kElsewhere =
    "move it away, or generate into another folder (--data-dir)";

void make_folder(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  std::error_code ignored;
  if (error || !fs::is_directory(folder, ignored)) {
    throw SystemError(fmt::format("{}: can't make this folder: {}", folder.string(),
                                  error ? error.message() : "a file of that name is in the way"));
  }
}

bool is_there(const fs::path& path) {
  std::error_code error;
  return fs::symlink_status(path, error).type() != fs::file_type::not_found;
}

/// The cache in `file`; null where there is none, or none that can be read.
std::unique_ptr<CacheFile> existing_cache(const fs::path& file) {
  if (!is_there(file)) return nullptr;
  try {
    return std::make_unique<CacheFile>(file);
  } catch (const InputError&) {
    return nullptr;
  }
}

/// Throws `InputError` where writing `cache` and, with `tsv`, `texts` would replace, or leave
/// beside it, anything that an earlier call did not generate.
void refuse_to_replace(const fs::path& cache, const std::vector<fs::path>& texts, bool tsv) {
  std::vector<fs::path> in_the_way;
  std::copy_if(texts.begin(), texts.end(), std::back_inserter(in_the_way), is_there);
  const auto old = existing_cache(cache);
  const bool generated = old != nullptr && old->origin() != kOfficialOrigin;
  if (old != nullptr && !generated && in_the_way.empty()) {
    throw InputError(
        cache,
        fmt::format("holds official data that a generated file would replace; {}", kElsewhere));
  }
  if (in_the_way.empty()) return;
  if (generated && tsv) {
    const auto& own = old->sources();
    const auto found = stamp_sources(in_the_way);
    if (std::all_of(found.begin(), found.end(), [&](const SourceStamp& stamp) {
          return std::find(own.begin(), own.end(), stamp) != own.end();
        })) {
      return;
    }
  }
  throw InputError(in_the_way.front(),
                   fmt::format("is in the way: readers prefer text files, and generated data never "
                               "replace any that may be official; {}",
                               kElsewhere));
}

/// Text files on their way: written into a folder of their own and moved to their places together,
/// so that an interrupted run leaves nothing that looks complete.
class PendingTexts {
 public:
  PendingTexts(std::vector<fs::path> texts, const fs::path& beside)
      : texts_(std::move(texts)), folder_(beside) {
    folder_ += ".texts";
    if (texts_.empty()) return;
    std::error_code error;
    fs::remove_all(folder_, error);
    make_folder(folder_);
  }
  ~PendingTexts() {
    std::error_code error;
    if (!texts_.empty()) fs::remove_all(folder_, error);
  }
  PendingTexts(const PendingTexts&) = delete;
  PendingTexts& operator=(const PendingTexts&) = delete;

  [[nodiscard]] bool wanted() const { return !texts_.empty(); }
  /// Where the i-th file is written until `publish`.
  [[nodiscard]] fs::path pending(std::size_t i) const { return folder_ / texts_[i].filename(); }
  [[nodiscard]] std::vector<SourceStamp> stamps() const {
    std::vector<fs::path> files;
    for (std::size_t i = 0; i < texts_.size(); ++i) files.push_back(pending(i));
    return stamp_sources(files);
  }
  void publish() const {
    for (std::size_t i = 0; i < texts_.size(); ++i) {
      std::error_code error;
      fs::rename(pending(i), texts_[i], error);
      if (error) {
        throw SystemError(
            fmt::format("{}: can't be written: {}", texts_[i].string(), error.message()));
      }
    }
  }

 private:
  std::vector<fs::path> texts_;
  fs::path folder_;
};

void append(std::string& text, std::int64_t number) {
  std::array<char, 24> digits{};
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), number).ptr;
  text.append(digits.data(), end);
}

/// The shortest of the official files' notation that reads back as the same number.
std::string to_text(double value, const char* official_format) {
  std::string text = fmt::format(fmt::runtime(official_format), value);
  const auto same = static_cast<float>(value);
  return std::strtof(text.c_str(), nullptr) == same ? text : fmt::format("{:.8e}", value);
}

/// Writes a line `a b value` for each entry, in row order: with `row_first` a is the row, else the
/// column. Both count from 1.
void write_tsv(const fs::path& file, const CsrView& matrix, bool row_first,
               const char* value_format) {
  constexpr std::size_t kFlush = std::size_t{1} << 20;
  OutputFile output(file);
  std::string text;
  std::string value;
  for (std::int64_t row = 0; row < matrix.rows; ++row) {
    for (std::int64_t k = matrix.row_begin(row); k < matrix.row_begin(row + 1); ++k) {
      if (k == 0 || !matrix.shared_value) value = to_text(matrix.value(k), value_format);
      append(text, 1 + (row_first ? row : matrix.col(k)));
      text += '\t';
      append(text, 1 + (row_first ? matrix.col(k) : row));
      text += '\t';
      text += value;
      text += '\n';
    }
    if (text.size() >= kFlush || row + 1 == matrix.rows) {
      output.write(text);
      text.clear();
    }
  }
  output.commit();
}

}  // namespace

void generate_graph_challenge_weights(const fs::path& data_dir, const RadixNetSpec& spec, bool tsv,
                                      GenerateProgress progress, void* user) {
  validate(spec);
  std::vector<fs::path> texts;
  for (std::int64_t layer = 1; layer <= spec.layers; ++layer) {
    texts.push_back(layer_path(data_dir, spec.neurons, layer));
  }
  const fs::path cache = weights_cache_path(data_dir, spec.neurons, spec.layers);
  refuse_to_replace(cache, texts, tsv);
  make_folder(cache.parent_path());
  const PendingTexts pending(tsv ? texts : std::vector<fs::path>{}, cache);
  CacheWriter writer(cache, radixnet_origin(spec));

  // Piece 0 writes the batch made before while the others make the next one.
  const int threads = reader_threads();
  const std::int64_t layer_bytes = radixnet_layer(spec, 0).view().bytes();
  const std::int64_t batch = std::clamp<std::int64_t>(kBatchBytes / layer_bytes, 1, threads);
  std::vector<Csr> made;
  for (std::int64_t first = 0; first < spec.layers || !made.empty(); first += batch) {
    const std::int64_t count = std::clamp<std::int64_t>(spec.layers - first, 0, batch);
    std::vector<Csr> next(static_cast<std::size_t>(count));
    for_each_piece(count + 1, threads + 1, [&](std::int64_t piece, std::size_t) {
      if (piece == 0) {
        for (const Csr& layer : made) writer.add(layer.view());
        return;
      }
      const std::int64_t layer = first + piece - 1;
      next[piece - 1] = radixnet_layer(spec, layer);
      if (pending.wanted()) {
        write_tsv(pending.pending(static_cast<std::size_t>(layer)), next[piece - 1].view(), false,
                  "{:e}");
      }
    });
    made = std::move(next);
    if (progress != nullptr) progress(std::min(first, spec.layers), spec.layers, user);
  }
  if (pending.wanted()) writer.set_sources(pending.stamps());
  writer.finish();
  pending.publish();
}

void generate_graph_challenge_images(const fs::path& data_dir, const Csr& images,
                                     const std::string& origin, bool tsv) {
  const fs::path text = images_path(data_dir, images.cols());
  const fs::path cache = images_cache_path(data_dir, images.cols());
  const CsrView& view = images.view();
  if (tsv && (view.rows == 0 || view.row_begin(view.rows) == view.row_begin(view.rows - 1))) {
    throw InputError(text, fmt::format("can't hold these {} images: the last is empty, and a text "
                                       "file ends with the last image that has a pixel; leave the "
                                       "text file out",
                                       view.rows));
  }
  refuse_to_replace(cache, {text}, tsv);
  make_folder(data_dir);
  const PendingTexts pending(tsv ? std::vector<fs::path>{text} : std::vector<fs::path>{}, cache);
  CacheWriter writer(cache, origin);
  writer.add(view);
  if (pending.wanted()) {
    write_tsv(pending.pending(0), view, true, "{:g}");
    writer.set_sources(pending.stamps());
  }
  writer.finish();
  pending.publish();
}

}  // namespace spdnn
