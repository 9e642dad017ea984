// Samples with labels: MNIST's pairs of idx files, and sparse samples from text.
#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <system_error>

#include "files.hpp"
#include "parallel.hpp"
#include "spdnn/io.hpp"
#include "tsv.hpp"
#include "tsv_line.hpp"

namespace spdnn {
namespace {

namespace fs = std::filesystem;

/// `folder/name`, or that with .gz behind it where only this is there.
fs::path plain_or_compressed(const fs::path& folder, const std::string& name) {
  fs::path compressed = folder / (name + ".gz");
  std::error_code ignored;
  return fs::exists(folder / name, ignored) || !fs::exists(compressed, ignored) ? folder / name
                                                                                : compressed;
}

LabelledImages read_idx_pair(const fs::path& folder, const std::string& part) {
  const fs::path images_file = plain_or_compressed(folder, part + "-images-idx3-ubyte");
  const fs::path labels_file = plain_or_compressed(folder, part + "-labels-idx1-ubyte");
  IdxImages images = read_idx_images(images_file);
  const std::vector<std::uint8_t> labels = read_idx_labels(labels_file);
  if (std::ssize(labels) != images.count) {
    throw InputError(labels_file, fmt::format("{} labels for the {} images of {}; are they of one "
                                              "set?",
                                              labels.size(), images.count, images_file.string()));
  }
  LabelledImages result;
  result.count = images.count;
  result.height = images.height;
  result.width = images.width;
  result.pixels = std::move(images.pixels);
  result.labels.assign(labels.begin(), labels.end());
  result.classes = 1 + *std::max_element(result.labels.begin(), result.labels.end());
  return result;
}

/// Labels, one a line.
std::vector<std::int32_t> read_labels(const fs::path& path, std::int64_t most) {
  const std::string text = InputFile(path, "put the labels there, one a line").read_all();
  std::vector<std::int32_t> labels;
  std::string_view rest = text;
  std::int64_t blank = 0;
  for (std::int64_t number = 1; !rest.empty(); ++number) {
    std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(line.size() + 1, rest.size()));
    if (is_blank(line)) {
      if (blank == 0) blank = number;
      continue;
    }
    if (blank != 0) throw InputError(path, blank, "blank line between labels; remove it");
    if (line.ends_with('\r')) line.remove_suffix(1);
    const std::string_view field = take_field(line);
    std::optional<std::string> error;
    const auto label = read_id(field, {"label", most, 0}, "", error);
    if (label && !is_blank(line)) {
      error = fmt::format("{} follows the label; one label a line", quote(take_field(line)));
    }
    if (error) throw InputError(path, number, *error);
    labels.push_back(static_cast<std::int32_t>(*label));
  }
  if (labels.empty()) throw InputError(path, "holds no label; give one a line");
  return labels;
}

}  // namespace

void LabelledImages::copy_image(std::int64_t image, float* to, std::int64_t stride) const {
  const std::int64_t size = features();
  if (!pixels.empty()) {
    const std::uint8_t* const from = pixels.data() + image * size;
    for (std::int64_t f = 0; f < size; ++f) to[f * stride] = static_cast<float>(from[f]) / 255.0F;
    return;
  }
  for (std::int64_t f = 0; f < size; ++f) to[f * stride] = 0.0F;
  const CsrView& view = sparse.view();
  for (std::int64_t k = view.row_begin(image); k < view.row_begin(image + 1); ++k) {
    to[view.col(k) * stride] = static_cast<float>(view.value(k));
  }
}

LabelledSets read_mnist(const fs::path& folder) {
  LabelledSets sets{read_idx_pair(folder, "train"), read_idx_pair(folder, "t10k")};
  if (sets.train.height != sets.test.height || sets.train.width != sets.test.width) {
    throw InputError(
        folder,
        fmt::format("training images are {} × {}, test images {} × {}; are they "
                    "of one set?",
                    sets.train.height, sets.train.width, sets.test.height, sets.test.width));
  }
  sets.train.classes = sets.test.classes = std::max(sets.train.classes, sets.test.classes);
  return sets;
}

LabelledImages read_labelled_tsv(const fs::path& images, const fs::path& labels,
                                 std::int64_t features, std::optional<std::int64_t> classes) {
  constexpr std::int64_t kMost = std::numeric_limits<std::int32_t>::max();
  if (features < 1 || features > kMost) {
    throw InputError(images, fmt::format("{} features; there must be 1 to {}", features, kMost));
  }
  LabelledImages result;
  result.labels = read_labels(labels, classes.value_or(kMost) - 1);
  result.count = std::ssize(result.labels);
  result.width = features;
  result.classes = classes.value_or(
      1 + std::int64_t{*std::max_element(result.labels.begin(), result.labels.end())});
  const TsvFormat format{.first = {"image", result.count},
                         .second = {"feature", features},
                         .row_first = true,
                         .rows_from_file = false,
                         .missing_remedy = "put the samples there, lines of image, feature, value",
                         .remedy = fmt::format("{} has {} labels", labels.string(), result.count)};
  result.sparse = TsvReader(format, reader_threads()).read(images);
  return result;
}

}  // namespace spdnn
